"""Seconds of CPU time (user and system) that it takes to start: help, list, the shortest run, SMAX twice.

    python benchmarks/startup.py [OTHER_CHECKOUT ...] [--rounds 3]

Other checkouts, such as git worktrees of earlier versions, take turns with this one.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SHORTEST = ["--config=qmix", "--env-config=matrix_game", "with", "t_max=1"]
SMAX = ["--config=qmix", "--env-config=smax", "with", "t_max=1", "batch_size_run=4", "test_nepisode=4"]
STARTS = {
    "--help": (["--help"], 1),
    "--list": (["--list"], 1),
    "t_max=1 on matrix_game": (SHORTEST, 1),
    "t_max=1 on SMAX, nothing compiled before": (SMAX, 1),
    "t_max=1 on SMAX, once more": (SMAX, 2),
}
"""What is started, and which of how many starts in a row counts: the last one."""


def cpu_seconds(checkout: Path, words: list[str], starts: int) -> float:
    """Of the last of so many starts, with an empty cache before the first."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": folder}
        spent = 0.0
        for _ in range(starts):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, str(checkout / "src" / "main.py"), *words]
            subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent


def main() -> None:
    """Measure and print a row for each start, a column for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("others", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="starts whose name holds this")
    args = parser.parse_args()
    checkouts = [HERE, *(path.resolve() for path in args.others)]
    print(f"{'':<44}{''.join(f'{path.name:>16}' for path in checkouts)}")
    for name, (words, starts) in STARTS.items():
        if args.only not in name:
            continue
        rounds = [[cpu_seconds(checkout, words, starts) for checkout in checkouts] for _ in range(args.rounds)]
        medians = map(statistics.median, zip(*rounds, strict=True))
        print(f"{name:<44}{''.join(f'{seconds:>14.2f} s' for seconds in medians)}", flush=True)


if __name__ == "__main__":
    main()
