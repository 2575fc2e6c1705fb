"""The command of ``shoal.reproduce.confidence`` under its earlier name."""

import sys

from shoal.reproduce.confidence import main

if __name__ == "__main__":
    sys.exit(main())
