"""Memory of one process over a long run: 200,000 environment steps of the payoff game, played 100 times an episode.

    python benchmarks/memory.py --out docs/images/memory.png

Records the resident set while the algorithm trains, prints it at the start and the end, and draws it.
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib as mpl
import psutil

from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.recording.console import Console
from shoal.recording.logger import Logger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--config", default="s2q")
    parser.add_argument("--out", type=Path, default=None, help="PNG to draw")
    args = parser.parse_args()
    process = psutil.Process()
    seen: list[tuple[int, float]] = []

    class Watch(Logger):
        def log(self, metrics, t_env):  # type: ignore[no-untyped-def]
            super().log(metrics, t_env)
            seen.append((t_env, process.memory_info().rss / 1e6))

    raw = files.merge(files.load("envs", "matrix_game"), files.load("algs", args.config))
    raw |= {"seed": 0, "t_max": args.steps, "batch_size": 32, "runner": "episode", "test_nepisode": 1}
    raw |= {"test_interval": 4000, "runner_log_interval": 2000, "learner_log_interval": 4000}
    raw["env_args"] = {**raw["env_args"], "episode_limit": 100}
    with tempfile.TemporaryDirectory() as folder, Console(args.steps) as console:
        experiment = Experiment(RunSettings(raw, ExperimentSettings), Watch(None, console), console, Path(folder))
        experiment.run()
        experiment.close()
    start = next(mb for t, mb in seen if t >= args.steps // 20)
    print(f"resident set: {start:.0f} MB after {args.steps // 20:,} environment steps, {seen[-1][1]:.0f} MB at the end")
    if args.out:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
        axes.plot(*zip(*seen, strict=True))
        axes.set(xlabel="environment steps", ylabel="resident set (MB)", ylim=(0, None))
        axes.grid(alpha=0.3)
        figure.savefig(args.out, dpi=150)


if __name__ == "__main__":
    main()
