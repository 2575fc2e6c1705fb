"""The command of ``shoal.reproduce.payoff_exploration`` under its earlier name."""

import sys

from shoal.reproduce.payoff_exploration import main

if __name__ == "__main__":
    sys.exit(main())
