"""Google Research Football: steps a second of one engine and of several, and what the adapter adds to a step.

    python benchmarks/football.py --steps 3000 --engines 8

The same actions go to the engine's own environment, and through Shoal's adapter, in turn; the adapter's share is the
median of the rounds' ratios minus one.
"""

import argparse
import importlib
import statistics
import time

import numpy as np

from shoal.envs.grf import N_ACTIONS, GRFEnv, GRFSettings
from shoal.runners.workers import WorkerVectorEnv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--map", default="academy_3_vs_2")
    args = parser.parse_args()
    settings = GRFSettings(map_name=args.map, end_behind_line="ball", line_x=0.0)
    env = GRFEnv(settings)
    n_agents = len(env.action_space.nvec)
    football = importlib.import_module("gfootball.env")
    bare = football.create_environment(
        env_name=env._scenario.level, representation="raw", number_of_left_players_agent_controls=n_agents
    )
    actions = np.random.default_rng(0).integers(N_ACTIONS, size=(args.steps, n_agents))
    ratios, rates = [], []
    for _ in range(args.rounds):
        theirs = engine_alone(bare, actions, env.episode_limit)
        ours = through_adapter(env, actions)
        ratios.append(ours / theirs)
        rates.append(args.steps / ours)
    env.close()
    print(f"one engine through the adapter: median {statistics.median(rates):,.0f} steps/s")
    added = 100 * (statistics.median(ratios) - 1)
    print(f"the adapter adds {added:.1f} % to the engine's step (rounds: {min(ratios):.3f} to {max(ratios):.3f})")
    rate = in_workers(settings, args.engines, actions)
    print(f"{args.engines} engines in worker processes: {rate:,.0f} steps/s together")


def engine_alone(bare: object, actions: np.ndarray, limit: int) -> float:
    """Seconds of the engine's own environment: episodes end as its own and at the same limit."""
    bare.unwrapped._config["game_engine_random_seed"] = 1  # type: ignore[attr-defined]
    bare.reset()  # type: ignore[attr-defined]
    started, length, resets = time.perf_counter(), 0, 0.0
    for action in actions:
        raw, _, over, _ = bare.step(list(action))  # type: ignore[attr-defined]
        length += 1
        if over or raw[0]["ball"][0] < 0 or length >= limit:
            before = time.perf_counter()
            bare.reset()  # type: ignore[attr-defined]
            resets += time.perf_counter() - before
            length = 0
    return time.perf_counter() - started - resets


def through_adapter(env: GRFEnv, actions: np.ndarray) -> float:
    """Seconds of the same steps through the adapter, resets left out as well."""
    env.reset(seed=1)
    started, resets = time.perf_counter(), 0.0
    for action in actions:
        *_, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            before = time.perf_counter()
            env.reset(seed=1)
            resets += time.perf_counter() - before
    return time.perf_counter() - started - resets


def in_workers(settings: GRFSettings, n: int, actions: np.ndarray) -> float:
    """Steps a second of all copies together, resets included."""
    env = WorkerVectorEnv(GRFEnv, settings, n)
    try:
        env.reset(seed=list(range(n)))
        started, played, over = time.perf_counter(), 0, np.zeros(n, dtype=bool)
        for t, action in enumerate(actions[: len(actions) // 2]):
            played += int((~over).sum())
            _, _, terminated, truncated, _ = env.step(np.tile(action, (n, 1)))
            over = terminated | truncated
            if over.all():
                env.reset(seed=[t] * n)
                over[:] = False
        return played / (time.perf_counter() - started)
    finally:
        env.close()


if __name__ == "__main__":
    main()
