"""The sentence users type: python src/main.py --config=s2q --env-config=smax with env_args.map_name=3m"""

import sys

if __name__ == "__main__":  # every spawned environment process imports this file
    from shoal.command_line.main import main

    sys.exit(main(sys.argv))
