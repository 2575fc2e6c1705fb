"""The words of the sweep's command line: its options, and its help. Nothing heavy is imported to print that."""

import argparse
from typing import NoReturn

from shoal.utils.errors import UserError
from shoal.utils.program import typed

_DESCRIPTION = (
    "Trains many runs through Ray, as many at a time as there is room for: every algorithm on every environment and\n"
    "map with every seed, a grid of settings, or a search for settings. It ends with a report of all runs."
)
_EPILOG = """
examples:
  {sweep} --configs=qmix,s2q --env-configs=smax --maps=3m,2s3z --seeds=5 with t_max=500000
  {sweep} --configs=qmix --env-configs=smax --grid=grid.yaml --seeds=3       every combination of settings
  {sweep} --configs=qmix --env-configs=smax --seeds=2 --optuna trials=40 space=space.yaml
  {sweep} --configs=s2q --env-configs=sc2 --maps=MMM2 --address=10.0.0.1:6379 --gpus-per-run=0.5

The same command continues a sweep that was stopped; finished runs are not repeated. See docs/sweeps.md.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"The command line was not understood ({message}): see --help.")


def parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the settings behind ``with``. Asked for help, it prints that and exits.

    Raises:
        UserError: an option is unknown, is missing or has no such value.
    """
    at = arguments.index("with") if "with" in arguments else len(arguments)
    return _parser().parse_args(arguments[:at]), arguments[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=typed("sweep"),
        usage="%(prog)s --configs=ALG[,ALG] --env-configs=ENV[,ENV] [--maps=MAP[,MAP]] [options] [with KEY=VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(sweep=typed("sweep")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--configs", required=True, metavar="ALG", help="algorithms, as --config of one run, separated by commas")
    add("--env-configs", required=True, metavar="ENV", help="environments, as --env-config of one run")
    add("--maps", default="", metavar="MAP", help="maps (env_args.map_name); the environment's own one without it")
    add("--seeds", default="5", help="5 is seeds 0 to 4, 3,7 these two, 5-9 five to nine (default 5)")
    add("--grid", metavar="FILE", help="YAML file: each setting with a list of the values to try")
    add(
        "--optuna", nargs="+", metavar="KEY=VALUE", help="search: trials=40 space=FILE [metric= last= direction= seed=]"
    )
    add("--name", default="", help="folder of the sweep below results/sweeps; made of the names above without it")
    add("--results", default="results", metavar="DIR", help="folder of all results (default results)")
    add("--address", default="", help="Ray cluster: HOST:PORT, or auto on one of its machines; this machine without it")
    add("--cpus-per-run", type=float, default=1.0, metavar="N", help="CPUs set aside for each run (default 1)")
    add(
        "--gpus-per-run", type=float, default=0.0, metavar="N", help="GPUs, or a share of one (default 0: none is seen)"
    )
    add("--jobs", type=int, default=0, metavar="N", help="most runs at a time (default: as many as there is room for)")
    add(
        "--retries",
        type=int,
        default=2,
        metavar="N",
        help="new starts of a run that fails without progress (default 2)",
    )
    add("--dry-run", action="store_true", help="check everything, name the runs, start nothing")
    return parser
