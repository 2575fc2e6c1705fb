"""The papers' figures and tables: trained, drawn, and compared with what the papers say.

    python -m shoal.reproduce --list
    python -m shoal.reproduce s2q-matrix --seeds 10 --jobs 2

A reproduction trains what its folder lacks and ends with pictures, a table (markdown and CSV) and a verdict on each of
the paper's claims. After an interruption, the same command continues: finished runs are kept, others resume from their
checkpoint.
"""

import argparse
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.reproduce import catalogue
from shoal.reproduce.declaration import Reproduction, Verdict
from shoal.utils.ending import exit_status
from shoal.utils.errors import UserError
from shoal.utils.program import typed

if TYPE_CHECKING:
    from shoal.reproduce import running

_DOOR = "python -m shoal.reproduce"
_WIDTH = 110


def main(argv: Sequence[str] | None = None, among: Sequence[Reproduction] | None = None) -> int:
    """The command line, of the reproductions ``among`` or else of all.

    Exit status: 0 done, whatever the verdict; 1 an error the user can fix, or runs that failed; 2 a command line that
    was not understood; 128 + n stopped by signal n.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(arguments)
    again = f"{typed('reproduce')} {shlex.join(arguments)}"
    known = catalogue.every() if among is None else among
    if args.list or not args.id:
        return _status(lambda: _listed(known), again)
    return _status(lambda: reproduce(catalogue.find(args.id, known), args, again), again)


def _listed(known: Sequence[Reproduction]) -> int:
    print("\n\n".join(described(one) for one in known))
    return 0


def _status(command: Callable[[], int], again: str) -> int:
    return exit_status(command, stopped=f"stopped at once; resume with: {again}")


def door(reproduction: Reproduction, command: str, argv: Sequence[str] | None = None) -> int:
    """One reproduction under the name of an earlier version, ``command``, with the default of ``--jobs`` of then.

    Exit status as of ``main``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog=command,
        description=f"{reproduction.paper}, {reproduction.figure}: {reproduction.claim}\n\n"
        f"The earlier name of '{typed('reproduce')} {reproduction.id}'.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser, jobs=1)
    args = parser.parse_args(arguments)
    again = f"{command} {shlex.join(arguments)}".rstrip()
    return _status(lambda: reproduce(reproduction, args, again), again)


def reproduce(reproduction: Reproduction, args: argparse.Namespace, again: str) -> int:
    """Carry out one reproduction, as far as it is asked for.

    Args:
        reproduction: what to carry out.
        args: ``seeds``, ``jobs``, ``out``, ``quick`` and ``dry_run``.
        again: the command that continues where this one is stopped.

    Raises:
        UserError: an option cannot be meant, or it failed for a reason that the user can fix.
    """
    from shoal.reproduce import report, running

    options = options_of(reproduction, args)
    if args.dry_run:
        running.planned(reproduction, options)
        for arm in reproduction.arms:
            for seed in arm.seeds(options.seeds, reproduction.first_seed):
                print(arm.command(seed, reproduction.quick if options.quick else {}))
        return 0
    try:
        trained = running.train(reproduction, options)
    except running.StoppedError as stopped:
        name = signal.Signals(stopped.signum).name
        print(f"stopped by {name} with {stopped.left} runs to do; resume with: {again}", flush=True)
        return 128 + stopped.signum
    verdicts, written = report.write(reproduction, trained, options.quick)
    table = (options.out / report.TABLE).with_suffix(".md").read_text()
    print(f"\n{table}\n{told(reproduction, verdicts)}\n")
    print("\n".join(map(str, written)))
    return 0


def options_of(reproduction: Reproduction, args: argparse.Namespace) -> "running.Options":
    """What was chosen, with the defaults of the reproduction.

    Raises:
        UserError: a number is out of range.
    """
    from shoal.reproduce.running import Options

    seeds = args.seeds if args.seeds is not None else 1 if args.quick else reproduction.seeds
    if seeds < 1:
        raise UserError(f"--seeds {seeds} is not possible: train with at least one seed.")
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs} is not possible: at least one run must be trained at a time.")
    out, runs = args.out or reproduction.folder, args.out or reproduction.runs_folder
    if args.quick and not args.out:
        out, runs = (folder.with_name(f"{folder.name}_quick") for folder in (out, runs))
    return Options(seeds, args.jobs, out, runs, args.quick)


def described(reproduction: Reproduction) -> str:
    """What ``--list`` says of it."""
    r = reproduction
    lines = {
        "command": f"{typed('reproduce')} {r.id}",
        "claim": r.claim,
        "paper": r.paper_numbers,
        "runs": f"{n_runs(r)} (command lines: {len(r.arms)}, seeds: {r.seeds})"
        + (f", those of {r.runs_of} where they are there" if r.runs_of else ""),
        "time": f"{duration(r.minutes)} on two cores ({r.time_from})",
        **({"note": r.note} if r.note else {}),
    }
    rows = [
        textwrap.fill(text, _WIDTH, initial_indent=f"  {name:<9}", subsequent_indent=" " * 11, break_on_hyphens=False)
        for name, text in lines.items()
    ]
    return "\n".join([f"{r.id}: {r.paper}, {r.figure}", *rows])


def n_runs(reproduction: Reproduction) -> int:
    """How many runs it trains with its own number of seeds."""
    return sum(len(arm.seeds(reproduction.seeds)) for arm in reproduction.arms)


def duration(minutes: float) -> str:
    """``12 minutes`` or ``2.5 hours``."""
    return f"{minutes:g} minutes" if minutes < 90 else f"{minutes / 60:.2g} hours"


def told(reproduction: Reproduction, verdicts: Sequence[Verdict]) -> str:
    """The verdicts on a terminal."""
    rows = [f"{v.word:<15}{v.claim}\n{'':<15}here: {v.found}" for v in verdicts]
    return "\n".join([f"{reproduction.paper}, {reproduction.figure}:", *rows])


def _description() -> str:
    assert __doc__ is not None
    return __doc__.replace(_DOOR, typed("reproduce"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=typed("reproduce"),
        description=_description(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", nargs="?", help="what to reproduce, one of those that --list shows")
    parser.add_argument(
        "--list", action="store_true", help="paper, figure, command, expected time and the paper's numbers of each"
    )
    _add_options(parser, jobs=2)
    return parser


def _add_options(parser: argparse.ArgumentParser, jobs: int) -> None:
    """The options of one reproduction."""
    add = parser.add_argument
    add("--seeds", type=int, metavar="N", help="runs of each method (default: what --list says)")
    add(
        "--jobs",
        type=int,
        default=jobs,
        metavar="N",
        help=f"runs trained side by side, a core each (default: {jobs})",
    )
    add("--out", type=Path, metavar="DIR", help="folder of runs, pictures and tables (default: results/<id>)")
    add("--quick", action="store_true", help="runs of a minute at most, in a folder of their own: a trial of the whole")
    add("--dry-run", action="store_true", help="check everything, print each run's command line, start nothing")


if __name__ == "__main__":
    sys.exit(main())
