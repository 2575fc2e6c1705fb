"""The command of ``shoal.reproduce.codebook`` under its earlier name."""

import sys

from shoal.reproduce.codebook import main

if __name__ == "__main__":
    sys.exit(main())
