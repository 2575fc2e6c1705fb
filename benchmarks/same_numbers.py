"""Compares the metrics of two versions of Shoal, number by number: what a restructuring must not change.

    python benchmarks/same_numbers.py OLD_CHECKOUT [NEW_CHECKOUT] [--only s2q] [--jobs 2]

Every algorithm below is trained a little with one seed by both checkouts (the new one is this, by default), each with
its own ``src``. All series that sacred recorded must be the same, bit for bit, but for those that measure time. Exit
status 1 where one differs. With the old checkout at a git worktree:

    git worktree add ../before v0.1.0 && python benchmarks/same_numbers.py ../before
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SMALL = [
    "seed=3",
    "batch_size=4",
    "buffer_size=64",
    "test_interval=300",
    "test_nepisode=4",
    "save_model=False",
    "runner=parallel",
]
LOGS = ["runner=parallel", "runner_log_interval=60", "learner_log_interval=60", "use_cuda=False"]
SMAX = ["env_args.map_name=3m", "batch_size_run=4", "t_max=1200"]
MATRIX = ["t_max=300", "batch_size_run=2"]
WATERWORLD = ["env_args.env_name=waterworld", "env_args.max_cycles=20", "batch_size_run=2", "t_max=800"]
RUNS: dict[str, list[str]] = {
    f"{alg} on {env}": [f"--config={alg}", f"--env-config={env}", "with", *SMALL, *LOGS, *sizes]
    for env, sizes, algs in (
        ("matrix_game", MATRIX, ("qmix", "vdn", "qplex", "ow_qmix", "s2q", "s2q_vdn", "s2q_oracle", "lan")),
        ("smax", SMAX, ("qmix", "qplex", "ow_qmix", "s2q", "s2q_comm", "qmix_cadp", "lan")),
        ("sisl", WATERWORLD, ("mq_lan", "qf_lan", "mq_lan_stable")),
        ("toy_modes", MATRIX, ("mq_lan", "qf_lan")),
    )
    for alg in algs
}
"""What is run, by name. The values are Shoal's command line."""
OF_TIME = ("time", "_per_s", "_s", "speed")


def play(checkout: Path, arguments: list[str]) -> dict[str, list]:
    """The series of one run, by metric."""
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, PYTHONPATH=str(checkout / "src"), OMP_NUM_THREADS="1")
        command = [sys.executable, str(checkout / "src" / "main.py"), *arguments]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        series = json.loads((Path(folder) / "results" / "sacred" / "1" / "metrics.json").read_text())
    return {
        name: list(zip(one["steps"], one["values"], strict=True))
        for name, one in series.items()
        if not name.endswith(OF_TIME)
    }


def differences(old: dict[str, list], new: dict[str, list]) -> list[str]:
    """A line for every series that is not the same."""
    lines = [f"{name} is gone" for name in old.keys() - new.keys()]
    lines += [f"{name} is new" for name in new.keys() - old.keys()]
    for name in sorted(old.keys() & new.keys()):
        if repr(old[name]) != repr(new[name]):  # repr: NaN equals NaN
            pairs = zip(old[name], new[name], strict=False)
            first = next((f"{a} before, {b} now" for a, b in pairs if repr(a) != repr(b)), "its length")
            lines.append(f"{name} differs: {first}")
    return lines


def main() -> int:
    """Compare; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=HERE)
    parser.add_argument("--only", default="", help="runs whose name holds this")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    names = [name for name in RUNS if args.only in name]

    def compare(name: str) -> list[str]:
        lines = differences(*(play(checkout.resolve(), RUNS[name]) for checkout in (args.old, args.new)))
        print(f"{name:<30}{'the same' if not lines else 'DIFFERS'}", *lines, sep="\n    ", flush=True)
        return lines

    with ThreadPoolExecutor(args.jobs) as pool:
        found = list(pool.map(compare, names))
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
