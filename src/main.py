"""The sentence users type: python src/main.py --config=s2q --env-config=smax with env_args.map_name=3m"""

import sys

if __name__ == "__main__":
    from shoal.cli import main  # here, because every spawned environment process imports this file

    sys.exit(main(sys.argv))
