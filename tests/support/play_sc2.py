"""What test_sc2.py has the real packages play, in a process of its own: smac and smacv2 cannot share one.

usage: play_sc2.py sc2|sc2v2 EPISODES MAX_STEPS SEED MAP ...     prints one JSON object a map
"""

import hashlib
import json
import sys

import numpy as np

from shoal import registry


def main() -> None:
    suite, episodes, max_steps, seed, *maps = sys.argv[1:]
    env_class = registry.find("env", suite)
    for name in maps:
        env = env_class(env_class.Settings(map_name=name))
        facts = {
            "map": name,
            "agents": len(env.action_space.nvec),
            "actions": int(env.action_space.nvec[0]),
            "obs": env.observation_space["obs"].shape[1],
            "state": env.observation_space["state"].shape[0],
            "limit": env.episode_limit,
            "first_attack": env.action_classes["attack"][0],
            "episodes": [],
        }
        try:
            for episode in range(int(episodes)):
                facts["episodes"].append(play(env, int(seed) + episode, int(max_steps)))
        finally:
            env.close()
        print(json.dumps(facts))


def play(env, seed: int, max_steps: int) -> dict:
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    start = hashlib.sha256(observation["state"].tobytes()).hexdigest()
    total, info, step, over = 0.0, {}, 0, False
    types = observation["obs"][:, -2:].tolist()
    while not over and step < max_steps:
        assert env.observation_space.contains(observation)
        assert (observation["alive"] == (observation["avail_actions"][:, 0] == 0)).all()
        action = np.array([rng.choice(np.flatnonzero(mask)) for mask in observation["avail_actions"]])
        observation, reward, terminated, truncated, info = env.step(action)
        total, step, over = total + reward, step + 1, terminated or truncated
    return {"steps": step, "over": over, "return": total, "info": info, "start": start, "last_of_own": types}


if __name__ == "__main__":
    main()
