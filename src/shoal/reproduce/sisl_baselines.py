"""What policies that learn nothing score in SISL: the numbers that a learnt one has to be compared with.

    python -m shoal.reproduce.sisl_baselines --env waterworld --episodes 40
    python -m shoal.reproduce.sisl_baselines --env multiwalker --max-cycles 200 --csv results/baselines.csv

Waterworld is the trap: pursuers move on without thrust, so that doing nothing earns more than acting at random, and
much more than any policy of full thrust can.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd

from shoal.analysis import tables
from shoal.config import files
from shoal.envs.sisl import SislEnv, SislSettings
from shoal.utils.ending import exit_status

Act = Callable[[int, np.ndarray], np.ndarray]
"""Actions [N, d] of step t from the observations [N, D]."""

Policy = Callable[[np.random.Generator, tuple[int, int]], Act]
"""What acts in one episode, from its random numbers and the actions' shape [N, d]."""


def idle(rng: np.random.Generator, shape: tuple[int, int]) -> Act:
    """Always zero."""
    return lambda t, obs: np.zeros(shape, np.float32)


def uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Act:
    """Uniform in the box at every step."""
    return lambda t, obs: rng.uniform(-1.0, 1.0, shape).astype(np.float32)


def bang_bang(rng: np.random.Generator, shape: tuple[int, int]) -> Act:
    """A random corner of the box at every step."""
    return lambda t, obs: rng.choice(np.array([-1.0, 1.0], np.float32), shape)


def kick(rng: np.random.Generator, shape: tuple[int, int]) -> Act:
    """One random action, then zero: where nothing brakes, a coast."""
    first = rng.uniform(-1.0, 1.0, shape).astype(np.float32)
    return lambda t, obs: first if t == 0 else np.zeros(shape, np.float32)


FORAGING_THRUST = 0.2


def forage(rng: np.random.Generator, shape: tuple[int, int]) -> Act:
    """Waterworld: a little thrust along the sensor with the least distance to food, else zero.

    Scripted, not tuned: thrusting towards the middle of the sensors that see the food earns less (it overshoots).
    """

    def act(t: int, obs: np.ndarray) -> np.ndarray:
        # Eight readings a sensor and two of contact; the third group is the distance to food, 1 where there is none.
        n = (obs.shape[1] - 2) // 8
        food = obs[:, 2 * n : 3 * n]
        angle = 2 * np.pi * food.argmin(1) / n
        towards = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return np.where(food.min(1, keepdims=True) < 1.0, FORAGING_THRUST * towards, 0.0).astype(np.float32)

    return act


IDLE, UNIFORM, FORAGE = "always zero", "uniform random", f"thrust {FORAGING_THRUST} towards sensed food"
POLICIES: dict[str, Policy] = {
    IDLE: idle,
    UNIFORM: uniform,
    "random corners (bang-bang)": bang_bang,
    "one random action, then zero": kick,
    FORAGE: forage,
}


@dataclasses.dataclass(frozen=True)
class Score:
    """One policy's episodes."""

    returns: np.ndarray
    lengths: np.ndarray

    @property
    def mean(self) -> float:
        """Mean team return."""
        return float(self.returns.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(self.returns.std(ddof=1) / np.sqrt(len(self.returns)))


def play(env: gymnasium.Env, policy: Policy, seeds: Sequence[int]) -> Score:
    """One episode for each seed, which determines the environment and the policy's own random numbers."""
    returns, lengths = [], []
    shape = env.action_space.shape
    assert shape is not None
    for seed in seeds:
        act = policy(np.random.default_rng([seed, 1]), (shape[0], shape[1]))
        observation, _ = env.reset(seed=seed)
        total, t, over = 0.0, 0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(act(t, observation["obs"]))
            total, t, over = total + float(reward), t + 1, terminated or truncated
        returns.append(total)
        lengths.append(t)
    return Score(np.array(returns), np.array(lengths))


def make_env(env_name: str, max_cycles: int, fix_double_thrust: bool = False) -> SislEnv:
    """The environment as `--env-config=sisl` makes it."""
    given = files.load("envs", "sisl", env_name)["env_args"]
    return SislEnv(
        SislSettings(**given | {"env_name": env_name, "time_limit": max_cycles, "fix_double_thrust": fix_double_thrust})
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m shoal.reproduce.sisl_baselines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--env", choices=["waterworld", "multiwalker"], default="waterworld")
    parser.add_argument("--episodes", type=int, default=40, help="episodes of each policy, with seeds 0, 1, ...")
    parser.add_argument("--max-cycles", type=int, default=500, help="steps per episode")
    parser.add_argument("--fix-double-thrust", action="store_true", help="as env_args.fix_double_thrust")
    parser.add_argument("--csv", type=Path, help="also write one row an episode there")
    args = parser.parse_args(argv)
    if args.episodes < 2:
        parser.error(f"--episodes {args.episodes}: an error of the mean needs at least 2.")
    return exit_status(lambda: _measure(args))


def _measure(args: argparse.Namespace) -> int:
    if args.csv:
        tables.make_folder(args.csv.parent)
    print(f"{args.env}, {args.max_cycles} steps at most, {args.episodes} episodes each")
    print(f"{'policy':32} {'return':>8} {'error':>6} {'spread':>7} {'length':>7}")

    def told(name: str, score: Score) -> None:
        spread, length = score.returns.std(ddof=1), score.lengths.mean()
        print(f"{name:32} {score.mean:8.1f} {score.error:6.1f} {spread:7.1f} {length:7.1f}", flush=True)

    scores = measure(args.env, args.max_cycles, args.episodes, args.fix_double_thrust, told)
    if args.csv:
        print(f"written: {tables.write_csv(episodes_of(scores, args.env, args.max_cycles), args.csv)}")
    return 0


def measure(
    env_name: str,
    max_cycles: int,
    episodes: int,
    fix_double_thrust: bool = False,
    told: Callable[[str, Score], None] = lambda name, score: None,
) -> dict[str, Score]:
    """Every policy's episodes, with seeds 0, 1, ...; ``told`` hears of each policy as it is done.

    Raises:
        UserError: a package that the environment needs is missing.
    """
    env = make_env(env_name, max_cycles, fix_double_thrust)
    scores = {}
    for name, policy in POLICIES.items():
        if policy is forage and env_name != "waterworld":
            continue
        scores[name] = play(env, policy, range(episodes))
        told(name, scores[name])
    return scores


COLUMNS = ["env", "max_cycles", "policy", "seed", "return", "length"]


def episodes_of(scores: Mapping[str, Score], env: str, max_cycles: int) -> pd.DataFrame:
    """A row an episode."""
    rows = [
        [env, max_cycles, policy, seed, *episode]
        for policy, score in scores.items()
        for seed, episode in enumerate(zip(score.returns.tolist(), score.lengths.tolist(), strict=True))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


if __name__ == "__main__":
    sys.exit(main())
