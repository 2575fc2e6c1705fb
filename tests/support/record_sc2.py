"""Records one battle of the real `smac` (over the stand-in, or the game) for `fake_smac.py`.

usage: SC2PATH=FOLDER python tests/support/record_sc2.py [FILE]
"""

import sys
from pathlib import Path

import numpy as np
from smac.env import StarCraft2Env

FILE = Path(__file__).parent / "data" / "sc2_3m.npz"


def main() -> None:
    """Plays 3m with random legal actions and writes everything that the adapter asks for."""
    env = StarCraft2Env(map_name="3m", seed=1)
    rng = np.random.default_rng(2)
    rows: dict[str, list] = {key: [] for key in ("obs", "state", "avail_actions", "actions", "reward")}
    try:
        env.reset()
        over = False
        while not over:
            _look(env, rows)
            actions = [int(rng.choice(np.flatnonzero(mask))) for mask in env.get_avail_actions()]
            reward, over, info = env.step(actions)
            rows["actions"].append(actions)
            rows["reward"].append(reward)
        _look(env, rows)
        last = {f"info_{key}": float(value) for key, value in info.items()}
        facts = {f"fact_{key}": env.get_env_info()[key] for key in _FACTS}
        file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
        np.savez_compressed(file, **{key: np.array(values) for key, values in rows.items()}, **last, **facts)
    finally:
        env.close()


_FACTS = ("n_agents", "n_actions", "obs_shape", "state_shape", "episode_limit")


def _look(env: StarCraft2Env, rows: dict[str, list]) -> None:
    rows["obs"].append(env.get_obs())
    rows["state"].append(env.get_state())
    rows["avail_actions"].append(env.get_avail_actions())


if __name__ == "__main__":
    main()
