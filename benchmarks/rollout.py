"""Environment steps per second of whole rollouts on SMAX, policy included.

    python benchmarks/rollout.py                    S2Q on 3m, 32 copies
    python benchmarks/rollout.py --config qmix --map 2s3z --copies 8

Also times the environment alone under random available actions: what is left is the policy's and the runner's.
"""

import argparse
import statistics
import time

import numpy as np

from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.experiment import ExperimentSettings
from shoal.utils.seeding import seed_everything


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="s2q")
    parser.add_argument("--map", default="3m")
    parser.add_argument("--copies", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rollouts", type=int, default=5, help="rollouts in a round")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)  # as every run does by default
    seed_everything(0)
    raw = files.merge(files.load("envs", "smax"), files.load("algs", args.config))
    raw = files.merge(raw, {"env_args": {"map_name": args.map}, "batch_size_run": args.copies, "runner": "parallel"})
    settings = RunSettings(raw, ExperimentSettings)
    env_class = settings.components["env"]
    runner = settings.make("runner", env_class=env_class, env_settings=settings.of(env_class.Settings), seed=0)
    controller = settings.make("mac", spec=runner.spec, make=settings.make)
    runner.run(controller, 0)

    speeds, lengths = [], []
    for _ in range(args.rounds):
        start, steps = time.perf_counter(), 0
        for _ in range(args.rollouts):
            rollout = runner.run(controller, 0)
            steps += rollout.env_steps
            lengths += rollout.stats["ep_length"]
        speeds.append(steps / (time.perf_counter() - start))
    print(
        f"{args.config} on SMAX {args.map}, {args.copies} copies, epsilon 1, mean episode {np.mean(lengths):.1f} steps"
    )
    print(f"rollout: median {statistics.median(speeds):,.0f} environment steps/s, "
          f"from {min(speeds):,.0f} to {max(speeds):,.0f}")  # fmt: skip

    rng = np.random.default_rng(0)
    alone = []
    for _ in range(args.rounds):
        observation, _ = runner.env.reset(seed=0)
        start, steps = time.perf_counter(), 0
        live = np.ones(args.copies, dtype=bool)
        while live.any():
            actions = (rng.random(observation["avail_actions"].shape) * observation["avail_actions"]).argmax(-1)
            observation, _, terminated, truncated, _ = runner.env.step(actions)
            steps += int(live.sum())
            live &= ~(terminated | truncated)
        alone.append(steps / (time.perf_counter() - start))
    print(f"environment alone: median {statistics.median(alone):,.0f} environment steps/s")
    runner.close()


if __name__ == "__main__":
    main()
