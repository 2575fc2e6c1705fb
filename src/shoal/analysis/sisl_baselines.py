"""The command of ``shoal.reproduce.sisl_baselines`` under its earlier name."""

import sys

from shoal.reproduce.sisl_baselines import main

if __name__ == "__main__":
    sys.exit(main())
