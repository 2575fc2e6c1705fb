"""Environments of users through every door: their mistakes are one sentence each, and their random draws are theirs."""

import os
import random
import re

import numpy as np
import pytest
import torch

from shoal.envs.gymma import GymmaEnv, GymmaSettings
from shoal.envs.pettingzoo import PettingZooEnv, PettingZooSettings
from shoal.envs.pymarl import PyMARLEnv, PyMARLSettings
from shoal.runners.workers import WorkerVectorEnv, in_process
from shoal.utils.errors import UserError
from support import foreign
from support.foreign import LIMIT, Native, NativeSettings

DOORS = {
    "pymarl": lambda **kwargs: (PyMARLEnv, PyMARLSettings(key="support.foreign:OldSchool", kwargs=kwargs)),
    "gymma": lambda name="Modern", **kwargs: (
        GymmaEnv,
        GymmaSettings(key=f"support.foreign:Shoal{name}-v0", kwargs=kwargs),
    ),
    "pettingzoo": lambda **kwargs: (PettingZooEnv, PettingZooSettings(key="support.foreign", kwargs=kwargs)),
    "native": lambda **kwargs: (Native, NativeSettings(**kwargs)),
}

SPACE = "its space is Box"
ADAPTERS = ["pymarl", "gymma", "pettingzoo"]
FAULTS = {
    # what is wrong -> the sentence at each door that it fits
    "short_obs": dict.fromkeys(ADAPTERS, rf"agent '?[ab01]'? has the shape \(3,\), but {SPACE}")
    | {"native": "obs is "},
    "long_obs": dict.fromkeys(ADAPTERS, rf"agent '?[ab01]'? has the shape \(5,\), but {SPACE}") | {"native": "obs is "},
    "none_obs": {"pymarl": "observation of agent 0 is None", "gymma": "observation of agent 0 is None"}
    | {"pettingzoo": "observation of agent 'a' is None", "native": "obs is "},
    "str_obs": dict.fromkeys(ADAPTERS, "is 'left', which is no array of numbers") | {"native": "obs is "},
    "number_words_obs": dict.fromkeys(ADAPTERS, "no array of numbers") | {"native": "obs is "},
    "ragged_obs": dict.fromkeys(ADAPTERS, "no array of numbers") | {"native": "obs is "},
    "complex_obs": dict.fromkeys(ADAPTERS, "no array of numbers") | {"native": "obs is "},
    "more_agents": dict.fromkeys(["pymarl", "gymma"], "for each of the 2 agents, not a list of 3")
    | {"native": "obs is"},
    "fewer_agents": dict.fromkeys(["pymarl", "gymma"], "for each of the 2 agents, not a list of 1")
    | {"pettingzoo": "the observations skip agent 'b'", "native": "obs is"},
    "no_views": dict.fromkeys(["pymarl", "gymma"], "for each of the 2 agents, not None")
    | {"pettingzoo": "the observations are None, but must be a dictionary", "native": "obs is None"},
    "shape_state": {"pymarl": r"the state has the shape \(4,\)", "native": "state is"},
    "none_state": {"pymarl": "the state is None", "native": "state is None"},
    "str_state": {"pymarl": "the state is 'here'", "native": "state is 'here'"},
    "mask_short": dict.fromkeys(["pymarl", "pettingzoo"], r"agent '?[1b]'? are \[1, 1\], but must be 3 times 0 or 1")
    | {"native": "avail_actions is"},
    "mask_long": dict.fromkeys(["pymarl", "pettingzoo"], "but must be 3 times 0 or 1") | {"native": "avail_actions is"},
    "mask_empty": dict.fromkeys(["pymarl", "pettingzoo", "native"], "agent '?[1b]'? has no available action"),
    "mask_nan": dict.fromkeys(["pymarl", "pettingzoo"], "3 times 0 or 1") | {"native": "must hold 0 and 1 alone"},
    "mask_negative": dict.fromkeys(["pymarl", "pettingzoo"], "3 times 0 or 1") | {"native": "must hold 0 and 1 alone"},
    "mask_none": dict.fromkeys(["pymarl", "pettingzoo"], "are None, but must be") | {"native": "avail_actions is"},
    "mask_str": dict.fromkeys(["pymarl", "pettingzoo"], "are 'yes', but must be") | {"native": "avail_actions is"},
    "mask_list_short": {
        "pymarl": "the available actions must be a list .* not a list of 1",
        "native": "avail_actions is",
    },
    "none_reward": dict.fromkeys(DOORS, "the reward is None, but it must be one number"),
    "str_reward": dict.fromkeys(DOORS, "the reward is '3'"),
    "complex_reward": dict.fromkeys(DOORS, "the reward is 1j"),
    "three_rewards": dict.fromkeys(DOORS, r"the reward is \[1.0, 1.0, 0.0\]"),
    "nested_reward": {"pymarl": "the reward is dict", "gymma": "the reward is dict", "native": "the reward is dict"}
    | {"pettingzoo": "the rewards skip agent 'b'"},
    "none_done": dict.fromkeys(DOORS, "terminat(ed|ions) is None, but it must be True or False"),
    "str_done": dict.fromkeys(DOORS, "terminat(ed|ions) is 'no'"),
    "nan_done": dict.fromkeys(DOORS, "terminat(ed|ions) is nan"),
    "count_done": dict.fromkeys(DOORS, "terminat(ed|ions) is 3"),
    "three_dones": dict.fromkeys(DOORS, r"terminat(ed|ions) is \[False, False, False\]"),
    "empty_done": dict.fromkeys(DOORS, r"terminat(ed|ions) is \[\]"),
    "str_info": dict.fromkeys(["pymarl", "gymma", "native"], "info that step returned is 'won'")
    | {"pettingzoo": "the infos are 'won'"},
    "number_info": dict.fromkeys(["pymarl", "gymma", "native"], "info that step returned is 3"),
    "step_none": dict.fromkeys(DOORS, r"step returned None, but it must return \("),
    "step_two": {"pymarl": r"step returned 2 values, but it must return \(reward, terminated, info\)"},
    "old_step": dict.fromkeys(["gymma", "pettingzoo", "native"], "step returned 4 values"),
    "old_reset": {"gymma": "info that reset returned is", "pettingzoo": "reset returned one dict"}
    | {"native": "reset returned one dict"},
    "facts_none": {"pymarl": "get_env_info returned None"},
    "facts_missing": {"pymarl": "get_env_info does not say state_shape"},
    "agents_zero": {"pymarl": "n_agents=0, but it must be at least 1"},
    "limit_zero": {"pymarl": "episode_limit=0, but it must be at least 1", "native": "episode_limit=0: it must be"},
    "limit_none": {"pymarl": "episode_limit=None, but it must be"},
    "actions_half": {"pymarl": "n_actions=2.5, but it must be"},
    "agents_str": {"pymarl": "n_agents='2', but it must be"},
    "no_limit": {"native": "has no episode_limit"},
    "text_space": dict.fromkeys(["gymma", "pettingzoo"], "observations of the space Text, which is no vector"),
    "text_in_dict": {"gymma": "the space Text"},
    "sequence_space": {"gymma": "the space Sequence"},
    "graph_space": {"gymma": "the space Graph"},
    "space_of_another_library": {"gymma": "the space support.foreign.OtherBox"},
    "unequal_spaces": {"gymma": "has 2 observations for 3 actions"},
    "space_missing": {"pettingzoo": r"observation_space\('b'\) gives no space"},
    "nobody_plays": {"pettingzoo": "no agent is left after reset"},
    "stranger": {"pettingzoo": "agent 'z' plays, but is not among its possible_agents"},
    "skip_in_observations": {"pettingzoo": "the observations skip agent 'b'"},
    "skip_in_rewards": {"pettingzoo": "the rewards skip agent 'b'"},
    "skip_in_terminations": {"pettingzoo": "the terminations skip agent 'b'"},
    "skip_in_truncations": {"pettingzoo": "the truncations skip agent 'b'"},
    "key_missing": {"native": "has no 'state'"},
    "no_dict": {"native": "has no 'obs'"},
}

READ = {
    "": DOORS,
    "column_obs": ADAPTERS,
    "list_obs": DOORS,
    "mask_bool": ["pymarl", "pettingzoo", "native"],
    "mask_empty_at_end": ["pymarl", "pettingzoo", "native"],
    "dict_reward": ADAPTERS,
    "list_reward": ADAPTERS,
    "column_reward": ADAPTERS,
    "numpy_reward": DOORS,
    "dict_done": ADAPTERS,
    "all_done": DOORS,
    "list_done": ADAPTERS,
    "array_done": ADAPTERS,
    "numpy_done": DOORS,
    "cut_dict": ["gymma"],
    "none_info": DOORS,
    "listed_info": ["pymarl", "gymma", "native"],
}
"""What may be said in more than one way -> where."""


def play(env, seed=0):
    """One episode of the first available actions, in the first copy: observations, rewards, terminated, truncated."""
    observation, _ = env.reset(seed=[seed])
    observations, rewards = [{key: value[0].copy() for key, value in observation.items()}], []
    for _ in range(2 * LIMIT):
        observation, reward, terminated, truncated, infos = env.step(observation["avail_actions"].argmax(-1))
        assert not infos.get("episode_failed", [False])[0], env.last_failure
        observations.append({key: value[0].copy() for key, value in observation.items()})
        rewards.append(float(reward[0]))
        if terminated[0] or truncated[0]:
            return observations, rewards, bool(terminated[0]), bool(truncated[0])
    raise AssertionError("the episode did not end")


def in_this_process(door, **kwargs):
    return in_process(*DOORS[door](**kwargs), seed=7)


@pytest.mark.parametrize(
    ("door", "fault", "sentence"),
    [(door, fault, sentence) for fault, doors in FAULTS.items() for door, sentence in doors.items()],
)
def test_a_mistake_is_one_sentence(door, fault, sentence):
    with pytest.raises(UserError, match=sentence) as end:
        play(in_this_process(door, fault=fault))
    assert "\n" not in str(end.value)
    assert re.match(r"env_args\.key='.*'|the environment Native", str(end.value))


@pytest.mark.parametrize(("door", "how"), [(door, how) for how, doors in READ.items() for door in doors])
def test_what_can_be_read_is_read(door, how):
    env = in_this_process(door, fault=how)
    observations, rewards, terminated, truncated = play(env)
    assert (rewards, terminated, truncated) == ([2.0] * LIMIT, how != "cut_dict", how == "cut_dict")
    # Agents that have left at the task's end observe nothing.
    last = 0 if door == "pettingzoo" else LIMIT
    assert [list(o["obs"][:, 0]) for o in observations] == [[t, t] for t in [*range(LIMIT), last]]
    env.close()


@pytest.mark.parametrize(
    ("door", "fault"),
    [("pymarl", "mask_empty"), ("gymma", "short_obs"), ("pettingzoo", "skip_in_rewards"), ("native", "none_reward")],
)
def test_a_mistake_in_a_worker_is_said_at_once_and_not_tried_again(door, fault):
    env = WorkerVectorEnv(*DOORS[door](fault=fault), 1)
    try:
        with pytest.raises(UserError, match=FAULTS[fault][door]):
            play(env)
        assert env.last_failure == ""
    finally:
        env.close()


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: GymmaEnv(GymmaSettings(key="support.foreign:ShoalUnseeded-v0")), "its reset takes no seed"),
        (lambda: PettingZooEnv(PettingZooSettings(), foreign.UnseededParallel()), "its reset takes no seed"),
        (lambda: PettingZooEnv(PettingZooSettings(), foreign.Nameless()), "has no agents: possible_agents must"),
        (lambda: in_process(foreign.UnseededNative, NativeSettings()), "reset must be reset"),
        (lambda: in_process(foreign.NoEnvironment, NativeSettings()), "NoEnvironment is no gymnasium.Env"),
    ],
)
def test_what_cannot_be_played_is_said_before_it_starts(build, sentence):
    with pytest.raises(UserError, match=sentence):
        build()


def test_an_environment_without_close_is_closed():
    PettingZooEnv(PettingZooSettings(), foreign.Parallel()).close()
    PyMARLEnv(PyMARLSettings(key="support.foreign:OldSchool")).close()


# ------------------------------------------------------------------------------------------------ random streams


def stir(seed):
    """Put the global random streams somewhere else."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def outside():
    return random.random(), np.random.rand(), float(torch.rand(()))


def same(one, other):
    return all(np.array_equal(a[key], b[key]) for a, b in zip(one[0], other[0], strict=True) for key in a)


@pytest.mark.parametrize("door", DOORS)
def test_the_same_seed_is_the_same_episode_whatever_else_is_drawn(door):
    stir(1)
    first, expected = in_this_process(door, noise=True), outside()
    stir(1)
    in_this_process(door, noise=True)
    episodes = [play(first, seed) for seed in (3, 4)]
    assert outside() == expected  # and nothing was taken from anybody else
    stir(2)
    second = in_this_process(door, noise=True)
    play(second, 9)
    assert same(play(second, 3), episodes[0])
    assert not same(*episodes)


@pytest.mark.parametrize("door", DOORS)
def test_a_worker_draws_what_this_process_draws(door):
    ours = in_this_process(door, noise=True)
    workers = WorkerVectorEnv(*DOORS[door](noise=True), 1, seed=7)
    try:
        for seed in (3, 4):
            assert same(play(ours, seed), play(workers, seed))
    finally:
        workers.close()


def test_adapters_need_no_runner_for_it():
    for cls, settings in (DOORS[door](noise=True) for door in ("pymarl", "gymma", "pettingzoo")):
        stir(1)
        first = cls(settings).reset(seed=5)[0]["obs"][:, :3]
        stir(2)
        np.testing.assert_array_equal(cls(settings).reset(seed=5)[0]["obs"][:, :3], first)


class Sampler(Native):
    """Observes what its space samples, and what torch draws."""

    def look(self):
        self.game.t += 0
        obs = np.stack([self.observation_space["state"].sample()[: foreign.D] for _ in range(foreign.N)])
        return super().look() | {"obs": (obs + torch.rand(()).item()).astype(np.float32)}


def test_samples_of_spaces_and_of_torch_follow_from_the_seed_too():
    episodes = []
    for outer in (1, 2):
        stir(outer)
        env = in_process(Sampler, NativeSettings())
        episodes.append(play(env, 3))
    assert same(*episodes)
    assert not same(episodes[0], play(env, 4))


# ------------------------------------------------------------------------------------------------------- folder


class Wanderer(Native):
    """Goes to another folder, and looks for it there."""

    def reset(self, *, seed=None, options=None):
        os.chdir(self.elsewhere)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        assert os.getcwd() == self.elsewhere
        return super().step(action)


def test_an_environment_that_changes_its_folder_changes_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(Wanderer, "elsewhere", str(tmp_path / "elsewhere"), raising=False)
    env = in_process(Wanderer, NativeSettings())
    play(env)
    assert os.getcwd() == str(tmp_path)
    play(env)
    (tmp_path / "elsewhere").rmdir()  # one that is gone is no reason to stop
    env.close()
    assert os.getcwd() == str(tmp_path)


# ----------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("door", DOORS)
def test_an_episode_is_drawn_if_wanted(door):
    env = in_this_process(door)
    env.reset(seed=[0], options={"draw": True})
    first = env.render()[0]
    env.step(np.array([[0, 1]]))
    assert first.shape == (8, 8, 3)
    assert (env.render()[0] == 1).all()


def test_nothing_is_built_for_drawing_unless_it_is_wanted():
    env = GymmaEnv(GymmaSettings(key="support.foreign:ShoalModern-v0"))
    env.reset(seed=0)
    assert env._env.unwrapped.render_mode is None
    env.reset(seed=0, options={"draw": True})
    assert env._env.unwrapped.render_mode == "rgb_array"
    env.reset(seed=0)
    assert env._env.unwrapped.render_mode is None


def test_one_that_takes_no_render_mode_is_played_undrawn():
    env = GymmaEnv(GymmaSettings(key="support.foreign:ShoalUnbuilt-v0"))
    env.reset(seed=0, options={"draw": True})
    assert env.render() is None
