"""Many runs from one command: python src/sweep.py --configs=qmix,s2q --env-configs=smax --maps=3m,2s3z --seeds=5"""

import sys

if __name__ == "__main__":
    from shoal.sweeps.cli import main

    sys.exit(main(sys.argv))
