"""Environment steps per second of whole runs of the LAN family on SISL: acting, learning and replay memory.

    python benchmarks/lan_run.py --env waterworld          episodes of 200 steps, batches of 16, two updates an episode

Each method is a process of its own that collects and learns as a run does, without tests and records. Methods take
turns, round after round; the figures are medians. Steps per second of the processor come first, those of the clock
after them: they differ where other processes run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = {"Bang-Bang LAN": "bang_bang_lan", "QF-LAN": "qf_lan", "MQ-LAN": "mq_lan", "MQ-LAN stable": "mq_lan_stable"}


def measure(alg: str, env_name: str, horizon: int, batch_size: int, episodes: int) -> dict[str, float]:
    """Steps per second of processor and clock, and the processor's seconds in one update."""
    from shoal.config import files
    from shoal.config.settings import RunSettings
    from shoal.experiment import Experiment, ExperimentSettings
    from shoal.recording.console import Console
    from shoal.recording.logger import Logger

    raw = files.merge(files.load("envs", "sisl", env_name), files.load("algs", alg))
    small = {"seed": 1, "batch_size": batch_size, "buffer_size": 64, "epsilon_start": 0.05, "epsilon_finish": 0.05}
    raw = files.merge(raw, small | {"env_args": {"env_name": env_name, "time_limit": horizon}})
    with Console(1, live=False) as console, tempfile.TemporaryDirectory() as folder:
        run = Experiment(RunSettings(raw, ExperimentSettings), Logger(None, console), console, Path(folder))
        try:
            while run.memory.n_episodes < batch_size:
                run.step()
            steps, start, clock = run.progress.t_env, time.process_time(), time.perf_counter()
            for _ in range(episodes):
                run.step()
            seconds, waited, steps = (
                time.process_time() - start,
                time.perf_counter() - clock,
                run.progress.t_env - steps,
            )
            batch, start = run.memory.sample(batch_size), time.process_time()
            run.learner.train_on(batch, 0, 0)
            update = time.process_time() - start
        finally:
            run.close()
    return {"processor": steps / seconds, "clock": steps / waited, "update": update}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="multiwalker", choices=["multiwalker", "waterworld"])
    parser.add_argument("--horizon", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(METHODS[args.only], args.env, args.horizon, args.batch_size, args.episodes)))
        return
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    for _ in range(args.rounds):
        for name in METHODS:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows[name].append(json.loads(out.splitlines()[-1]))
    print(f"{args.env:<16}{'steps/s (processor)':>20}{'(clock)':>10}{'update, s':>11}")
    for name, measured in rows.items():
        processor, clock, update = (statistics.median(row[key] for row in measured) for key in measured[0])
        print(f"{name:<16}{processor:>20.0f}{clock:>10.0f}{update:>11.3f}")


if __name__ == "__main__":
    main()
