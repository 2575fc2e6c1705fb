"""The sweep's command line: a grid of runs, or a search for settings, through Ray; a report of them at the end."""

import argparse
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from shoal.config import files
from shoal.sweeps import plan
from shoal.sweeps.board import Board
from shoal.sweeps.drive import drive
from shoal.sweeps.folder import SweepFolder
from shoal.sweeps.pool import Job, Pool
from shoal.sweeps.search import Search, SearchSettings, example_of, read_settings, read_space
from shoal.utils import cluster
from shoal.utils.errors import UserError
from shoal.utils.program import typed
from shoal.utils.signals import StopRequest

REPORT_FILE = "report.html"
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


@dataclass(frozen=True)
class Request:
    """A sweep as it was asked for."""

    configs: list[str]
    env_configs: list[str]
    maps: list[str]
    seeds: list[int]
    grid: dict[str, list[Any]]
    given: list[files.Layer]
    search: SearchSettings | None
    space: dict[str, Any]
    folder: Path
    options: argparse.Namespace

    def plan(self, changes: dict[str, Any] | None = None, tag: str = "") -> list[plan.PlannedRun]:
        """Every run, checked; for a search, those of one trial with its ``changes`` and its ``tag``."""
        cells = plan.cells(self.configs, self.env_configs, self.maps, self.seeds, self.grid)
        if changes is not None:
            cells = (replace(cell, changes=changes, tag=tag) for cell in cells)
        return [plan.planned(cell, self.given, self.folder / "runs") for cell in cells]


def main(argv: list[str]) -> int:
    """Run the command line. Exit status: 0 all runs finished, 1 some failed for good or an error the user can fix,
    128 + n stopped by signal n.
    """
    try:
        return _main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped at once; resume with: {_again(argv)}", file=sys.stderr)
        return 130


def _main(argv: list[str]) -> int:
    request = read(argv[1:])
    if request.options.dry_run:
        for run in request.plan(example_of(request.space), "trial000") if request.search else request.plan():
            print(run.name)
        return 0
    folder = SweepFolder(request.folder)
    with folder.locked():
        signum, jobs, shown = _run(request, folder)
        failed = [job for job in jobs if job.state == "failed"]
        if signum is not None:
            left = sum(job.state != "finished" for job in jobs)
            print(f"stopped by {signal.Signals(signum).name} with {left} runs to do; resume with: {_again(argv)}")
            return 128 + signum
        reported = _report([job for job in shown if job.state == "finished"], request.folder)
    for job in failed:
        print(f"failed: {job.folder.path.name}: {job.note} (its output: {job.folder.output})", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} runs failed; fix the cause, then: {_again(argv)}", file=sys.stderr)
    return 1 if failed or not reported else 0


def _again(argv: Sequence[str]) -> str:
    return f"{typed('sweep')} {shlex.join(argv[1:])}"


def read(arguments: list[str]) -> Request:
    """Understand the command line, and check every run that it stands for.

    Raises:
        UserError: something in it cannot be meant.
    """
    at = arguments.index("with") if "with" in arguments else len(arguments)
    options = _parser().parse_args(arguments[:at])
    given = files.typed(arguments[at + 1 :])
    maps = _names(options.maps)
    search = read_settings(options.optuna) if options.optuna else None
    if search and options.grid:
        raise UserError("--optuna and --grid exclude each other: put the settings of the grid into the space.")
    grid = plan.read_grid(Path(options.grid)) if options.grid else {}
    space = read_space(search.space) if search else {}
    plan.check_given([*given, files.Layer("--grid or space", plan.nested(grid | space))], maps)
    configs, env_configs = _names(options.configs), _names(options.env_configs)
    if search and len(configs) != 1:
        raise UserError(f"--optuna searches the settings of one algorithm, not of {len(configs)}: start it for each.")
    words = [Path(word).stem for word in (*configs, *env_configs)] + maps
    name = options.name or "_".join([*words, *(["search"] if search else [])])
    if not re.fullmatch(r"[\w.+-]+", name):
        raise UserError(f"--name={name} cannot be a folder's name here: use letters, digits, '_', '.', '+' and '-'.")
    request = Request(
        configs,
        env_configs,
        maps,
        plan.read_seeds(options.seeds),
        grid,
        given,
        search,
        space,
        Path(options.results) / "sweeps" / name,
        options,
    )
    names = [run.name for run in (request.plan(example_of(request.space), "trial000") if search else request.plan())]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"Two runs would both be called {sorted(twice)[0]}: name each algorithm, map and value once.")
    if options.cpus_per_run < 0 or options.gpus_per_run < 0 or options.jobs < 0 or options.retries < 0:
        raise UserError("--cpus-per-run, --gpus-per-run, --jobs and --retries cannot be negative.")
    if not options.cpus_per_run and not options.gpus_per_run:
        raise UserError("--cpus-per-run=0 needs --gpus-per-run: something must say how many runs fit.")
    return request


def _names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=typed("sweep"),
        usage="%(prog)s --configs=ALG[,ALG] --env-configs=ENV[,ENV] [--maps=MAP[,MAP]] [options] [with KEY=VALUE ...]",
        description=__doc__,
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


def _run(request: Request, folder: SweepFolder) -> tuple[int | None, list[Job], list[Job]]:
    """Run everything to its end, or until a signal asks to stop. Returns that signal, all jobs, and those to report."""
    o = request.options

    def jobs_of(changes: dict[str, Any] | None = None, tag: str = "") -> list[Job]:
        return [Job(run, folder.of(run)) for run in request.plan(changes, tag)]

    search = Search(request.folder, request.search, request.space, jobs_of) if request.search else None
    first = [] if search else jobs_of()
    for job in first:
        job.look()
    if not search and all(job.state == "finished" for job in first):
        print(f"all {len(first)} runs were finished before")
        return None, first, first
    if search and not search.wants_more:
        print(f"all {search.trials} trials were finished before")
        return None, [], _tell(search, request.folder)
    with StopRequest() as stop, cluster.joined(o.address or cluster.HERE) as ray:
        pool = Pool(ray, o.cpus_per_run, o.gpus_per_run, o.jobs, o.retries)
        pool.add(first)
        with Board(request.folder.name) as board:
            board.say(_opening(request, pool, ray))
            drive(pool, board, stop, search)
    return stop.signum, pool.jobs, _tell(search, request.folder) if search else pool.jobs


def _opening(request: Request, pool: Pool, ray: Any) -> str:
    o = request.options
    machines = cluster.machines(ray)
    gpus = sum(machine.gpus for machine in machines)
    done = sum(job.state == "finished" for job in pool.jobs)
    runs = f"{len(pool.jobs)} runs, {done} of them finished before" if not request.search else "search"
    text = f"{request.folder}: {runs}; {pool.room} at a time on {len(machines)} machine{'s' * (len(machines) > 1)}"
    if gpus and not o.gpus_per_run:
        text += (
            f"\nnote: {gpus:g} GPUs are there, which no run will see: --gpus-per-run=1, or a share of 1, gives them out"
        )
    return text


def _tell(search: Search, folder: Path) -> list[Job]:
    """Print and store the best trials. Returns their jobs."""
    for number, value, changes in search.best():
        print(f"trial {number:<4}{value:<10.4g}" + "  ".join(f"{key}={value}" for key, value in changes.items()))
    path = search.write_best(folder)
    if path is not None:
        print(f"best settings {path}")
    return search.best_jobs()


def _report(jobs: Sequence[Job], folder: Path) -> bool:
    """Write the report page of the finished runs. Returns whether there is one."""
    if not jobs:
        return False
    from shoal.analysis.__main__ import main as analysis  # matplotlib and pandas take a second to import

    records = [str(record) for job in jobs if job.record for record in job.folder.chain(job.record)]
    return analysis(["report", *records, "--out", str(folder / REPORT_FILE), "--title", folder.name]) == 0
