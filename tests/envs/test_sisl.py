"""SISL with PettingZoo's real environments: time limits, falls, thrust paid twice, corners as actions."""

import importlib
import pkgutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from shoal.config import files
from shoal.envs import sisl
from shoal.envs.sisl import SislEnv, SislSettings
from shoal.utils.errors import UserError
from support.episodes import assert_same_seed_same_episode, episode

SIZES = {"multiwalker": (2, 31, 4), "waterworld": (2, 242, 2), "pursuit": (8, 147, 5)}
"""Agents, observation, action dimensions (actions in pursuit), with the paper's arguments."""


def settings(name, **changes):
    """The settings of `--env-config=sisl with env_args.env_name=name`, and some changes."""
    for package in sisl.NEEDS[name]:
        pytest.importorskip(package, reason=sisl.INSTALL)
    return replace(SislSettings(**files.load("envs", "sisl", name)["env_args"] | {"env_name": name}), **changes)


@pytest.mark.parametrize("name", SIZES)
def test_check_env_and_sizes(name):
    env = SislEnv(settings(name, time_limit=12))
    check_env(env, skip_render_check=True)
    n_agents, obs_dim, n_actions = SIZES[name]
    assert env.observation_space["obs"].shape == (n_agents, obs_dim)
    assert env.observation_space["state"].shape == (n_agents * obs_dim,)
    assert env.episode_limit == 12
    if name == "pursuit":
        assert env.action_space == spaces.MultiDiscrete([n_actions] * n_agents)
    else:
        assert env.action_space == spaces.Box(-1, 1, (n_agents, n_actions), np.float32)
    assert env.render().ndim == 3


@pytest.mark.parametrize("name", SIZES)
def test_an_episode_is_its_seed_and_its_actions(name):
    observations, rewards, flags, info = assert_same_seed_same_episode(SislEnv(settings(name, time_limit=15)))
    assert len(rewards) == 15
    assert flags == (False, True)
    assert info["hit_limit"] == 1.0
    for seen in observations:  # the last one too: a learner bootstraps from it
        np.testing.assert_array_equal(seen["state"], seen["obs"].reshape(-1))
        assert seen["obs"].any(-1).all()
        assert seen["alive"].all()


def test_the_papers_arguments_reach_the_games():
    walkers = SislEnv(settings("multiwalker"))._game
    assert (walkers.n_walkers, walkers.terminate_on_fall, walkers.remove_on_fall) == (2, False, True)
    water = SislEnv(settings("waterworld"))._game
    assert (water.n_pursuers, water.n_evaders, water.n_poisons, water.n_coop) == (2, 1, 10, 1)
    assert SislEnv(settings("pursuit"))._game.n_evaders == 30


def test_multiwalkers_own_time_limit_is_called_the_tasks_end():
    """The library's fault that the wrapper is there for; without it, `max_cycles` could simply be passed on."""
    args = settings("multiwalker")
    env = importlib.import_module(sisl.find_module("multiwalker")).parallel_env(**args.kwargs, max_cycles=20)
    env.reset(seed=0)
    still = {agent: np.zeros(4, np.float32) for agent in env.agents}
    ends = [env.step(still)[2:4] for _ in range(20)]
    assert not any(any(terminations.values()) for terminations, _ in ends[:-1])
    assert all(ends[-1][0].values())
    assert not any(ends[-1][1].values())


def test_multiwalkers_time_limit_is_no_end():
    env = SislEnv(settings("multiwalker", time_limit=20))
    env.reset(seed=0)
    steps = [env.step(np.zeros((2, 4), np.float32)) for _ in range(20)]
    assert [s[2:4] for s in steps] == [(False, False)] * 19 + [(False, True)]
    assert steps[-1][4] == {
        "hit_limit": 1.0,
        "falls": 0.0,
        "thrust_norm_0": 0.0,
        "thrust_norm_1": 0.0,
        "idle_frac": 1.0,
    }
    assert steps[-1][0]["obs"].any(-1).all()


def test_multiwalkers_fall_ends_the_episode_and_is_charged_once():
    env = SislEnv(settings("multiwalker"))
    _, rewards, flags, info = episode(env, 1)
    assert flags == (True, False)
    assert (info["hit_limit"], info["falls"]) == (0.0, 1.0)
    assert rewards[-1] < -100  # 10 and 100 for the fallen walker, shared by both: 110 for the team
    assert min(rewards[:-1]) > -20
    assert len(rewards) < 500
    # The step of the fall may be the last one that the clock allows: then the fall counts.
    again = episode(SislEnv(settings("multiwalker", time_limit=len(rewards))), 1)
    assert again[1:3] == (rewards, (True, False))
    assert again[3]["hit_limit"] == 0.0
    # One step earlier it is the clock.
    assert episode(SislEnv(settings("multiwalker", time_limit=len(rewards) - 1)), 1)[2] == (False, True)


@pytest.mark.parametrize(
    ("actions", "paid"),
    [
        ([(0, 0), (0, 0)], (0, 0)),
        ([(1, 0), (0, 0)], (0.25, 0)),
        ([(0, 0), (1, 0)], (0, 0.5)),
        ([(1, 1), (1, 1)], (0.25, 0.5)),
        ([(0.5, 0), (0.5, 0)], (0.125, 0.25)),
    ],
)
def test_waterworlds_last_pursuer_pays_twice(actions, paid):
    actions = np.array(actions, dtype=np.float32)
    for fixed, expected in ((False, sum(paid)), (True, paid[0] + paid[1] / 2)):
        env = SislEnv(settings("waterworld", fix_double_thrust=fixed))
        env.reset(seed=0)
        assert env.step(actions)[1] == pytest.approx(-expected, abs=1e-6)
        mean = SislEnv(settings("waterworld", fix_double_thrust=fixed, reward_aggregation="mean", reward_scale=3.0))
        mean.reset(seed=0)
        assert mean.step(actions)[1] == pytest.approx(-1.5 * expected, abs=1e-6)


def test_the_thrust_that_is_given_back_follows_the_arguments():
    changed = {"thrust_penalty": -0.2, "pursuer_max_accel": 0.3}
    base = settings("waterworld", fix_double_thrust=True)
    env = SislEnv(replace(base, kwargs=base.kwargs | changed))
    env.reset(seed=0)
    assert env.step(np.ones((2, 2), np.float32))[1] == pytest.approx(-2 * 0.2 * 0.3, abs=1e-6)


@pytest.mark.parametrize(("name", "n_actions", "cost"), [("waterworld", 4, 0.75), ("multiwalker", 16, None)])
def test_corners_as_actions(name, n_actions, cost):
    env = SislEnv(settings(name, action_mode="bang_bang", time_limit=10))
    check_env(env, skip_render_check=True)
    assert env.action_space == spaces.MultiDiscrete([n_actions] * 2)
    free = SislEnv(settings(name, time_limit=10))
    seen, _ = env.reset(seed=5)
    assert seen["avail_actions"].all()
    np.testing.assert_array_equal(seen["obs"], free.reset(seed=5)[0]["obs"])
    table = np.array(list(np.ndindex(*[2] * (n_actions.bit_length() - 1))), dtype=np.float32) * 2 - 1
    for action in np.random.default_rng(0).integers(n_actions, size=(10, 2)):
        ours, theirs = env.step(action), free.step(table[action])
        np.testing.assert_array_equal(ours[0]["obs"], theirs[0]["obs"])
        assert ours[1:] == theirs[1:]
        # Full thrust whatever the corner: what makes Waterworld hopeless for bang-bang.
        assert cost is None or ours[1] == pytest.approx(-cost, abs=1e-6) or ours[1] < -cost or ours[1] > 5


def test_own_state_of_multiwalker():
    env = SislEnv(settings("multiwalker", own_state=True))
    assert env.observation_space["state"].shape == (2 * 24 + 3,)
    observations, _, flags, _ = episode(env, 1)
    assert flags == (True, False)  # a fallen walker has no state any more
    assert not observations[-1]["state"].any()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("multiwalker", {"env_name": "walker"}, "must be one of multiwalker, waterworld, pursuit"),
        ("multiwalker", {"time_limit": 0}, "time_limit=0"),
        ("multiwalker", {"reward_scale": 0.0}, "reward_scale"),
        ("multiwalker", {"fix_double_thrust": True}, "leave it out for multiwalker"),
        ("waterworld", {"fix_double_thrust": True, "kwargs": {"local_ratio": 0.5}}, "requires local_ratio=1.0"),
        ("waterworld", {"own_state": True}, "no state of its own"),
        ("waterworld", {"kwargs": {"colour": 1}}, "colour is no argument of waterworld: it has encounter_reward"),
        ("multiwalker", {"kwargs": {"max_cycles": 9}}, "it is env_args.time_limit"),
        ("waterworld", {"kwargs": {"n_evaders": -1}}, "n_evaders=-1 must be a whole number of at least 1"),
        ("multiwalker", {"kwargs": {"n_walkers": 0}}, "n_walkers=0 must be"),
        ("pursuit", {"action_mode": "continuous"}, "set env_args.action_mode=discrete"),
        ("pursuit", {"action_mode": "bang_bang"}, "does not fit"),
    ],
)
def test_refuses(name, changes, message):
    with pytest.raises(UserError, match=message):
        SislEnv(settings(name, **changes))


def test_missing_and_unfit_packages_are_named(monkeypatch):
    args = settings("waterworld")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pymunk", None)
        with pytest.raises(UserError, match=r"needs the Python package 'pymunk': run pip install .*\[sisl\]"):
            SislEnv(args)
    with monkeypatch.context() as patch:
        patch.delattr("pymunk.Space.add_collision_handler")
        with pytest.raises(UserError, match=r"does not run with pymunk \d"):
            SislEnv(args)
    monkeypatch.setattr(pkgutil, "iter_modules", lambda path: [])
    with pytest.raises(UserError, match=r"waterworld is not in pettingzoo \d.*\[sisl\]"):
        SislEnv(args)
