"""Random episodes that the tests of several environments play."""

import numpy as np
from gymnasium import spaces


def episode(env, seed, limit=10_000):
    """One random episode from `seed` alone: observations, rewards, final flags and info."""
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    assert info == {}
    observations, rewards = [observation], []
    terminated = truncated = False
    while not (terminated or truncated) and len(rewards) < limit:
        if isinstance(env.action_space, spaces.Box):
            action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        else:
            available = observation["avail_actions"]
            assert available.any(-1).all()
            action = np.argmax(available * rng.uniform(0.1, 1, available.shape), -1)
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation in env.observation_space
        assert isinstance(reward, float)
        assert not (terminated and truncated)
        observations.append(observation)
        rewards.append(reward)
        assert info == {} or terminated or truncated
    return observations, rewards, (terminated, truncated), info


def assert_same_seed_same_episode(env, seed=3, limit=10_000):
    first, between, again = (episode(env, s, limit) for s in (seed, seed + 1, seed))
    assert first[1:] == again[1:]
    for a, b in zip(first[0], again[0], strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    differs = any(not np.array_equal(a["obs"], b["obs"]) for a, b in zip(first[0], between[0], strict=False))
    assert differs
    return first
