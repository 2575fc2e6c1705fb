"""The command of ``shoal.reproduce.action_map`` under its earlier name."""

import sys

from shoal.reproduce.action_map import main

if __name__ == "__main__":
    sys.exit(main())
