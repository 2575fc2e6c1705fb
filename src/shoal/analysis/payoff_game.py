"""The command of ``shoal.reproduce.payoff_game`` under its earlier name."""

import sys

from shoal.reproduce.payoff_game import main

if __name__ == "__main__":
    sys.exit(main())
