"""SISL: steps a second of PettingZoo's environments alone and through Shoal's adapter, on random actions.

    python benchmarks/sisl.py --steps 1500 --rounds 5

In seconds of CPU time, which other processes disturb less than the clock; resets are counted apart. The two play the
same actions from the same seeds in turn, and the adapter's share is the median of the rounds' ratios minus one.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from shoal.config import files
from shoal.envs.sisl import NEEDS, SislEnv, SislSettings, find_module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name in NEEDS:
        env_args = files.load("envs", "sisl", name)["env_args"] | {"env_name": name}
        ours = SislEnv(SislSettings(**env_args))
        bare = importlib.import_module(find_module(name)).parallel_env(**env_args["kwargs"], max_cycles=501)
        ours.action_space.seed(0)
        actions = [ours.action_space.sample() for _ in range(args.steps)]
        steps, alone, resets = [], [], []
        for _ in range(args.rounds):
            seconds, reset = timed(ours.reset, ours.step, actions)
            steps.append(args.steps / seconds)
            resets.append(reset)
            agents = bare.possible_agents
            seconds, _ = timed(bare.reset, lambda a: bare.step(dict(zip(agents, a, strict=True))), actions)  # noqa: B023
            alone.append(args.steps / seconds)
        ratios = [b / a for a, b in zip(steps, alone, strict=True)]
        print(
            f"{name}: {statistics.median(steps):,.0f} steps/s through the adapter, alone "
            f"{statistics.median(alone):,.0f} (the adapter adds {100 * (statistics.median(ratios) - 1):.0f} %); "
            f"a reset takes {1e3 * statistics.median(resets):.1f} ms"
        )


def timed(reset: Callable[..., Any], step: Callable[[Any], Any], actions: list[np.ndarray]) -> tuple[float, float]:
    """CPU seconds of all steps together, and of one reset."""
    seed, resets, over = 0, 0.0, True
    started = time.process_time()
    for t, action in enumerate(actions):
        if over or t % 500 == 0:
            before = time.process_time()
            reset(seed=seed)
            seed, resets = seed + 1, resets + time.process_time() - before
        _, _, ended, cut, *_ = step(action)
        over = any(ended.values()) or any(cut.values()) if isinstance(ended, dict) else ended or cut
    return time.process_time() - started - resets, resets / seed


if __name__ == "__main__":
    main()
