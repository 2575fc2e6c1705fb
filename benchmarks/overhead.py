"""What K sub-values cost: S2Q with K = 1, 2, 3 against QMIX, time and memory (S2Q paper, tables H.1 and H.2).

    python benchmarks/overhead.py                 SMAX 10m_vs_11m, 8 copies, batches of 128, one update a rollout

Each variant is a process of its own that collects and learns as a run does, without tests and records. Variants take
turns, round after round; ratios are medians of the rounds' ratios. Memory is the process's largest resident set (on a
CPU) or what torch held at most (on a GPU).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIANTS = {"QMIX": ["qmix", 0], "S2Q K=1": ["s2q", 1], "S2Q K=2": ["s2q", 2], "S2Q K=3": ["s2q", 3]}


def measure(alg: str, K: int, map_name: str, batch_size: int, rollouts: int) -> dict[str, float]:
    """Seconds for each 1,000 environment steps of the loop, and of its updates alone; peak memory in MB."""
    import torch

    from shoal.config import files
    from shoal.config.settings import RunSettings
    from shoal.experiment import Experiment, ExperimentSettings
    from shoal.recording.console import Console
    from shoal.recording.logger import Logger

    raw = files.merge(files.load("envs", "smax"), files.load("algs", alg))
    raw = files.merge(
        raw, {"seed": 1, "env_args": {"map_name": map_name}, "batch_size": batch_size, "buffer_size": 256}
    )
    raw = raw | ({"K": K} if alg == "s2q" else {})
    with Console(1, live=False) as console, tempfile.TemporaryDirectory() as folder:
        run = Experiment(RunSettings(raw, ExperimentSettings), Logger(None, console), console, Path(folder))
        try:
            while run.memory.n_episodes < batch_size:
                run.step()
            run.step()  # the first update allocates
            steps, updates, start = run.progress.t_env, 0.0, time.perf_counter()
            for _ in range(rollouts):
                run.step()
            seconds, steps = time.perf_counter() - start, run.progress.t_env - steps
            start = time.perf_counter()
            for _ in range(rollouts):
                run.learner.train_on(run.memory.sample(batch_size), 0, 0)
            updates = time.perf_counter() - start
        finally:
            run.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"loop": 1000 * seconds / steps, "update": updates / rollouts, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", default="10m_vs_11m")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rollouts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        alg, K = VARIANTS[args.only]
        print(json.dumps(measure(str(alg), int(K), args.map, args.batch_size, args.rollouts)))
        return
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(args.rounds):
        for name in VARIANTS:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows[name].append(json.loads(out.splitlines()[-1]))
    print(f"{'':<10}{'min per 1M steps':>18}{'/ QMIX':>8}{'update, s':>11}{'/ QMIX':>8}{'peak MB':>9}")
    for name, measured in rows.items():
        median = {key: statistics.median(row[key] for row in measured) for key in measured[0]}
        ratio = {
            key: statistics.median(a[key] / b[key] for a, b in zip(measured, rows["QMIX"], strict=True))
            for key in median
        }
        print(
            f"{name:<10}{median['loop'] * 1000 / 60:>18.1f}{ratio['loop']:>8.2f}{median['update']:>11.3f}"
            f"{ratio['update']:>8.2f}{median['peak']:>9.0f}"
        )


if __name__ == "__main__":
    main()
