"""The sentence users type: python src/main.py --config=s2q --env-config=smax with env_args.map_name=3m"""

import sys

from shoal.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
