"""The command of ``shoal.reproduce.sisl`` under its earlier name."""

import sys

from shoal.reproduce.sisl import main

if __name__ == "__main__":
    sys.exit(main())
