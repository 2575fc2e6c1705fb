"""The command of ``shoal.reproduce.actions`` under its earlier name."""

import sys

from shoal.reproduce.actions import main

if __name__ == "__main__":
    sys.exit(main())
