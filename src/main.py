"""The sentence users type: python src/main.py --config=s2q --env-config=smax with env_args.map_name=3m"""

import sys


def main() -> int:
    """Run the command line. The doctor needs nothing that may be missing; everything else says what is."""
    if sys.argv[1:2] == ["doctor"]:
        from shoal import doctor

        return doctor.main(sys.argv[2:])
    try:
        from shoal.cli import main as run
    except ImportError as error:
        print(f"error: Shoal cannot start ({error}): python src/main.py doctor says what to install.", file=sys.stderr)
        return 1
    return run(sys.argv)


if __name__ == "__main__":  # every spawned environment process imports this file
    sys.exit(main())
