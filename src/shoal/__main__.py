"""``python -m shoal``: the ``shoal`` command where it is not on the path."""

import sys

from shoal.command import main

if __name__ == "__main__":  # every spawned environment process imports this file
    sys.exit(main(program="python -m shoal"))
