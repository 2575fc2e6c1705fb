"""A game in JAX of one's own: what it need not say, and what it gets for that."""

from dataclasses import dataclass

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from shoal.envs.jax_game import JaxGame
from shoal.envs.jax_vector import JaxEnv

jax = pytest.importorskip("jax", reason="a game in JAX needs jax")
jnp = jax.numpy


@dataclass(frozen=True)
class Settings:
    time_limit: int = 5
    goal: int = 3


class Walk(JaxGame):
    """Two agents on a line from 0 to 9: a step pays how far they came, and the task ends with both at the goal."""

    def __init__(self, settings):
        self.time_limit, self._goal = settings.time_limit, settings.goal
        self.action_space = spaces.MultiDiscrete([3, 3])

    def reset(self, key):
        return jax.random.randint(key, (2,), 0, 2)

    def step(self, key, state, actions):
        places = jnp.clip(state + actions - 1, 0, 9)
        return places, jnp.sum(places - state), jnp.all(places == self._goal)

    def observe(self, state):
        return {"obs": jax.nn.one_hot(state, 10)}

    def judged(self, state):
        return {"at_goal": jnp.all(state == self._goal), "mean_place": jnp.mean(state)}


class WalkEnv(JaxEnv):
    Settings = Settings
    Game = Walk


class Drift(JaxGame):
    """Vectors as actions, some of it seen, one agent that has left."""

    time_limit = 4
    action_space = spaces.Box(-1.0, 1.0, (2, 3), np.float32)

    def __init__(self, settings):
        pass

    def reset(self, key):
        return jax.random.uniform(key, (2, 3))

    def step(self, key, state, actions):
        return state + actions + jax.random.normal(key, (2, 3)), jnp.sum(actions), jnp.array(False)

    def observe(self, state):
        return {"obs": state, "state": state[0, :1], "alive": jnp.array([True, False])}


class DriftEnv(JaxEnv):
    Settings = Settings
    Game = Drift


FORWARD = np.array([[2, 2]])


def test_gymnasium_finds_nothing_amiss():
    check_env(WalkEnv(Settings()), skip_render_check=True)


def test_what_a_game_does_not_say_follows_from_what_it_says():
    env = WalkEnv(Settings())
    observation, info = env.reset(seed=1)
    assert info == {}
    assert observation.keys() == {"obs", "state", "avail_actions"}
    np.testing.assert_array_equal(observation["state"], observation["obs"].reshape(-1))
    assert observation["avail_actions"].tolist() == [[1] * 3] * 2
    assert {key: value.dtype.name for key, value in observation.items()} == {
        "obs": "float32",
        "state": "float32",
        "avail_actions": "int8",
    }


def test_vectors_as_actions_and_a_state_of_its_own():
    env = DriftEnv.make_vector(Settings(), 2)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation.keys() == {"obs", "state", "alive"}
    assert observation["state"].shape == (2, 1)
    assert observation["alive"].tolist() == [[1, 0]] * 2
    after, reward, *_ = env.step(np.full((2, 2, 3), 0.5))
    assert reward.tolist() == [3.0, 3.0]
    assert not np.array_equal(after["obs"][0], after["obs"][1])  # each copy has random numbers of its own


def test_the_task_ends_what_the_time_limit_truncates_and_ended_copies_stay():
    env = WalkEnv.make_vector(Settings(time_limit=3), 8)
    start, _ = env.reset(seed=range(8))
    places = start["obs"].argmax(-1)  # [8, N]
    history = [env.step(np.repeat(FORWARD, 8, axis=0)) for _ in range(4)]
    both = (places == 1).all(1)  # two steps to the goal; the others pass each other by
    assert both.any()
    assert not both.all()
    for copy in range(8):
        ends = [bool(infos.get("_at_goal", np.zeros(8, bool))[copy]) for *_, infos in history]
        at = 1 if both[copy] else 2
        level = len(set(places[copy].tolist())) == 1
        assert ends == [t == at for t in range(4)]
        _, _, terminated, truncated, infos = history[at]
        assert (terminated[copy], truncated[copy]) == (level, not level)
        assert infos["at_goal"][copy] == level
        assert history[-1][1][copy] == 0
        np.testing.assert_array_equal(history[-1][0]["obs"][copy], history[at][0]["obs"][copy])
    infos = history[2][4]
    assert infos["at_goal"].dtype == np.int64
    assert infos["mean_place"].dtype == np.float64


def test_a_reset_by_mask_leaves_the_others_and_an_episode_is_its_seeds():
    env = WalkEnv.make_vector(Settings(), 3)
    first, _ = env.reset(seed=[1, 2, 3])
    moved = env.step(np.repeat(FORWARD, 3, axis=0))[0]
    mask = np.array([True, False, False])
    again, _ = env.reset(seed=[1, None, None], options={"reset_mask": mask})
    np.testing.assert_array_equal(again["obs"][0], first["obs"][0])
    np.testing.assert_array_equal(again["obs"][1:], moved["obs"][1:])


def test_copies_of_one_game_are_compiled_once():
    one, other = (WalkEnv.make_vector(Settings(), 3) for _ in range(2))
    assert one.compiled is other.compiled
    with pytest.raises(ValueError, match="num_envs=0"):
        WalkEnv.make_vector(Settings(), 0)


def test_what_does_not_fit_is_refused():
    env = WalkEnv.make_vector(Settings(), 2)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros((2, 2)))
    with pytest.raises(RuntimeError, match="reset"):
        _ = env.states
    env.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros((2, 3)))
