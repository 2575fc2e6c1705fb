"""The command line of modules that draw one picture of recorded runs."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from shoal.analysis.records import RecordedRun
from shoal.analysis.starts import read_runs
from shoal.utils.ending import exit_status


def picture_of_runs(
    draw: Callable[[list[RecordedRun], Path], Path], description: str | None, out: str, argv: Sequence[str] | None
) -> int:
    """``RUN ... [--out PICTURE]``: read the runs, ``draw`` them, say where. Returns the exit status.

    Args:
        draw: writes the picture of runs to a path, and returns where it is.
        description: of the help page.
        out: the picture's default name.
        argv: the words of the command line; None for those of this process.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of recorded runs")
    parser.add_argument("--out", type=Path, default=Path(out), help="picture to write (default: %(default)s)")
    args = parser.parse_args(argv)

    def command() -> int:
        print(draw(read_runs(args.runs), args.out))
        return 0

    return exit_status(command)
