"""The adapters: gymnasium multi-agent ids, PettingZoo parallel environments, PyMARL objects."""

import random
import sys
import types

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from shoal.envs.gymma import GymmaEnv, GymmaSettings
from shoal.envs.pettingzoo import PettingZooEnv, PettingZooSettings
from shoal.envs.pymarl import PyMARLEnv, PyMARLSettings
from shoal.envs.team import ALL, LEFT, ActionSettings, Team, corners
from shoal.utils.errors import UserError
from support.episodes import assert_same_seed_same_episode, episode

# ----------------------------------------------------------------------------------------------------- Team


def test_team_pads_and_masks():
    views = [spaces.Box(-1, 1, (2,)), spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(0, 1, (1,)))]
    team = Team(views, [spaces.Discrete(2), spaces.Discrete(4, start=5)], "x")
    obs = team.pad([np.array([0.5, -0.5]), {"a": 2, "b": np.array([0.25])}])
    np.testing.assert_array_equal(obs, [[0.5, -0.5, 0, 0], [0, 0, 1, 0.25]])
    np.testing.assert_array_equal(team.pad([LEFT, LEFT]), np.zeros((2, 4)))
    np.testing.assert_array_equal(team.avail([ALL, [0, 1, 1, 0]]), [[1, 1, 0, 0], [0, 1, 1, 0]])
    assert team.decode(np.array([1, 3])) == [1, 8]
    assert team.decode(np.array([3, 0])) == [0, 5]  # padding is the first action


def test_team_rescales_each_agents_bounds():
    low = np.array([0.0, -4.0], dtype=np.float32)
    boxes = [spaces.Box(low, np.array([1.0, 4.0], dtype=np.float32)), spaces.Box(-10.0, 30.0, (1,))]
    team = Team([spaces.Box(0, 1, (1,))] * 2, boxes, "x")
    assert team.action_space.shape == (2, 2)
    for share, (a, b, c) in {-1: (0, -4, -10), 0: (0.5, 0, 10), 1: (1, 4, 30), 2: (1, 4, 30)}.items():
        first, second = team.decode(np.full((2, 2), share, dtype=np.float32))
        np.testing.assert_allclose(first, [a, b])
        np.testing.assert_allclose(second, [c])
        assert first in boxes[0]
        assert second in boxes[1]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([spaces.Discrete(2), spaces.Box(-1, 1, (1,))], "Box and Discrete"),
        ([spaces.MultiDiscrete([2, 2])], "MultiDiscrete"),
        ([spaces.Box(-np.inf, np.inf, (1,))], "unbounded"),
        ([], "no agents"),
    ],
)
def test_team_refuses(actions, message):
    with pytest.raises(UserError, match=message):
        Team([spaces.Box(0, 1, (1,))] * len(actions), actions, "x")


def test_corners():
    np.testing.assert_array_equal(corners(2), [[-1, -1], [-1, 1], [1, -1], [1, 1]])
    np.testing.assert_array_equal(corners(1, 3), [[-1], [0], [1]])
    assert corners(4).shape == (16, 4)
    assert corners(10).shape == (1024, 10)
    with pytest.raises(UserError, match=r"2\^11 actions of 11 dimensions"):
        corners(11)
    with pytest.raises(UserError, match="bang_bang_levels=1"):
        ActionSettings(bang_bang_levels=1)


def test_bang_bang_team():
    boxes = [spaces.Box(np.float32([0, -4]), np.float32([1, 4])), spaces.Box(-10.0, 30.0, (1,))]
    team = Team([spaces.Box(0, 1, (1,))] * 2, boxes, "x", ActionSettings(action_mode="bang_bang"))
    assert list(team.action_space.nvec) == [4, 4]
    np.testing.assert_array_equal(team.avail(), [[1, 1, 1, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(np.concatenate(team.decode(np.array([2, 1]))), [1, -4, 30])
    three = Team([spaces.Box(0, 1, (1,))] * 2, boxes, "x", ActionSettings("bang_bang", 3))
    np.testing.assert_array_equal(np.concatenate(three.decode(np.array([4, 1]))), [0.5, 0, 10])


@pytest.mark.parametrize(
    ("own", "mode"),
    [
        (spaces.Discrete(2), "bang_bang"),
        (spaces.Discrete(2), "continuous"),
        (spaces.Box(-1.0, 1.0, (1,)), "discrete"),
    ],
)
def test_action_mode_must_fit(own, mode):
    with pytest.raises(UserError, match=f"action_mode={mode} does not fit x"):
        Team([spaces.Box(0, 1, (1,))], [own], "x", ActionSettings(mode))


# ---------------------------------------------------------------------------------------------------- gymma


class Hunt(gymnasium.Env):
    """Two agents draw numbers; ends by the task when the first chooses action 1. Counts steps as LBF."""

    def __init__(self, max_episode_steps=5, listed=False):
        self.limit, self.listed = max_episode_steps, listed
        self.episodes = 0
        self.observation_space = spaces.Tuple([spaces.Box(0, 1, (1,)), spaces.Box(0, 1, (2,))])
        self.action_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)])

    def _look(self):
        return tuple(self.np_random.random(i + 1).astype(np.float32) for i in range(2))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.episodes += 1
        return self._look(), {"episodes": self.episodes}

    def step(self, actions):
        assert actions in self.action_space
        self.t += 1
        done = actions[0] == 1 or self.t >= self.limit
        return (
            self._look(),
            [1.0, 3.0],
            [done, done] if self.listed else done,
            False,
            {"score": self.t, "x": "y"},
        )


gymnasium.register("ShoalHunt-v0", Hunt, kwargs={"max_episode_steps": 5})
gymnasium.register("ShoalHuntLoose-v0", Hunt, kwargs={"max_episode_steps": None})
gymnasium.register("ShoalHuntOuter-v0", Hunt, kwargs={"max_episode_steps": 1000}, max_episode_steps=4)


def test_gymma_check_env_and_padding():
    env = GymmaEnv(GymmaSettings(key="ShoalHunt-v0"))
    check_env(env, skip_render_check=True)
    observation, _ = env.reset(seed=0)
    assert observation["obs"].shape == (2, 2)
    assert observation["obs"][0, 1] == 0
    np.testing.assert_array_equal(observation["state"], observation["obs"].reshape(-1))
    np.testing.assert_array_equal(observation["avail_actions"], [[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(("key", "time_limit", "limit"), [("", None, 5), ("", 3, 3), ("", 9, 9), ("Outer", None, 4)])
def test_gymma_tells_time_limit_from_end(key, time_limit, limit, listed):
    env = GymmaEnv(GymmaSettings(key=f"ShoalHunt{key}-v0", time_limit=time_limit, kwargs={"listed": listed}))
    assert env.episode_limit == limit
    env.reset(seed=0)
    steps = [env.step(np.array([0, 2])) for _ in range(limit)]
    assert [s[2:4] for s in steps] == [(False, False)] * (limit - 1) + [(False, True)]
    assert steps[-1][4] == {"score": limit}
    assert steps[0][4] == {}
    env.reset(seed=0)
    assert env.step(np.array([1, 0]))[2:4] == (True, False)
    env.reset(seed=0)  # the task may also end on the very last step
    last = [env.step(np.array([int(t == limit - 1), 0])) for t in range(limit)][-1]
    assert last[2:4] == (True, False)


@pytest.mark.parametrize("rebuild", [True, False])
def test_gymma_rebuilds(rebuild):
    env = GymmaEnv(GymmaSettings(key="ShoalHunt-v0", rebuild=rebuild))
    for _ in range(3):
        env.reset(seed=0)
    assert env._env.unwrapped.episodes == (1 if rebuild else 3)
    a, b = env.reset()[0], env.reset()[0]
    assert not np.array_equal(a["obs"], b["obs"])
    env.reset(seed=1)
    c = env.reset()[0]
    env.reset(seed=1)
    np.testing.assert_array_equal(env.reset()[0]["obs"], c["obs"])


def test_gymma_reward_aggregation():
    for how, value in (("sum", 4.0), ("mean", 2.0)):
        env = GymmaEnv(GymmaSettings(key="ShoalHunt-v0", reward_aggregation=how))
        env.reset(seed=0)
        assert env.step(np.array([0, 0]))[1] == value


def test_gymma_bang_bang():
    env = GymmaEnv(GymmaSettings(key="Pendulum-v1", action_mode="bang_bang", bang_bang_levels=3))
    check_env(env, skip_render_check=True)
    free = GymmaEnv(GymmaSettings(key="Pendulum-v1"))
    for game, action in ((env, np.array([2])), (free, np.ones((1, 1), np.float32))):
        game.reset(seed=4)
        after = game.step(action)
        assert after[1] == pytest.approx(-8.06, abs=2)
    assert env.step(np.array([0]))[1] == free.step(-np.ones((1, 1), np.float32))[1]


def test_gymma_one_agent_is_a_team_of_one():
    env = GymmaEnv(GymmaSettings(key="CartPole-v1"))
    assert env.episode_limit == 500
    check_env(env, skip_render_check=True)
    observations, rewards, flags, _ = assert_same_seed_same_episode(env)
    assert observations[0]["obs"].shape == (1, 4)
    assert sum(rewards) == len(rewards)
    assert flags == (True, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key": "no_such_suite_at_all:X-v0"}, "'no_such_suite_at_all'"),
        ({"key": "gymnasium.nothing:X-v0"}, "has no module 'gymnasium.nothing'"),
        ({"key": "CartPole-v999"}, "did you mean 'CartPole-v"),
        ({"key": "ShoalHunt-v0", "kwargs": {"colour": "red"}}, "colour"),
        ({"key": "ShoalHuntLoose-v0"}, "time_limit"),
        ({"time_limit": 0}, "time_limit"),
        ({"reward_aggregation": "max"}, "sum, mean"),
    ],
)
def test_gymma_refuses(settings, message):
    with pytest.raises(UserError, match=message):
        GymmaEnv(GymmaSettings(**settings))


@pytest.mark.parametrize(
    ("package", "key", "n_agents", "n_actions", "limit"),
    [
        ("lbforaging", "lbforaging:Foraging-8x8-2p-3f-v3", 2, 6, 50),
        ("rware", "rware:rware-tiny-2ag-v2", 2, 5, 500),
    ],
)
def test_gymma_real_suites(package, key, n_agents, n_actions, limit):
    pytest.importorskip(package, reason=f"pip install {package} to play it")
    env = GymmaEnv(GymmaSettings(key=key))
    check_env(env, skip_render_check=True)
    assert env.episode_limit == limit
    assert list(env.action_space.nvec) == [n_actions] * n_agents
    observations, rewards, flags, _ = assert_same_seed_same_episode(env)
    assert len(rewards) == limit
    assert flags == (False, True)  # their own step count would call this a true end
    assert len(observations) == limit + 1
    env.close()


def test_gymma_lbf_true_end_and_reward():
    pytest.importorskip("lbforaging", reason="pip install lbforaging to play it")
    env = GymmaEnv(GymmaSettings(key="lbforaging:Foraging-5x5-2p-1f-v3", time_limit=5000))
    _, rewards, flags, _ = episode(env, 0)
    assert flags == (True, False)
    assert sum(rewards) == pytest.approx(1.0)  # all the food there is, normalised


# ----------------------------------------------------------------------------------------------- PettingZoo


class Leavers:
    """A parallel environment: agent "b" leaves at step 2, the others at `end` (by the task or the clock)."""

    def __init__(self, end=4, by="task", masks=None, state=False):
        self.possible_agents = ["a", "b", "c"]
        self.agents = []
        self.end, self.by, self.masks, self.max_cycles = end, by, masks, 50
        self.acted = []
        if state:
            self.state_space = spaces.Box(0, 100, (2,))

    unwrapped = property(lambda self: self)

    def observation_space(self, agent):
        view = spaces.Box(0, 100, (2 if agent == "c" else 1,))
        if self.masks == "dict":
            return spaces.Dict(observation=view, action_mask=spaces.MultiBinary(3))
        return view

    def action_space(self, agent):
        return spaces.Discrete(3)

    def state(self):
        return np.array([self.t, 7.0], dtype=np.float32)

    def _views(self, agents):
        views = {a: np.full(2 if a == "c" else 1, 1.0 + self.t, dtype=np.float32) for a in agents}
        if self.masks == "dict":
            return {a: {"observation": v, "action_mask": np.array([0, 1, 1])} for a, v in views.items()}
        return views

    def _infos(self, agents):
        return {a: {"action_mask": [0, 0, 1]} if self.masks == "info" else {} for a in agents}

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.possible_agents), 0
        return self._views(self.agents), self._infos(self.agents)

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.t += 1
        self.acted.append(actions)
        playing = self.agents
        over = self.t == self.end
        ends = {a: (over and self.by == "task") or (a == "b" and self.t == 2) for a in playing}
        cuts = dict.fromkeys(playing, over and self.by == "clock")
        self.agents = [a for a in playing if not (ends[a] or cuts[a])]
        return self._views(playing), dict.fromkeys(playing, 1.0), ends, cuts, self._infos(playing)

    def close(self):
        self.agents = []


def test_pettingzoo_check_env():
    check_env(PettingZooEnv(PettingZooSettings(key="leavers"), Leavers()), skip_render_check=True)


@pytest.mark.parametrize(("by", "flags"), [("task", (True, False)), ("clock", (False, True))])
def test_pettingzoo_agents_leave(by, flags):
    inner = Leavers(by=by)
    env = PettingZooEnv(PettingZooSettings(), inner)
    assert env.episode_limit == 50
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation["obs"], [[1, 0], [1, 0], [1, 1]])
    np.testing.assert_array_equal(observation["state"], [1, 0, 1, 0, 1, 1])
    steps = [env.step(np.array([1, 0, 2])) for _ in range(4)]
    assert [s[1] for s in steps] == [3, 3, 2, 2]
    assert [s[2:4] for s in steps] == [(False, False)] * 3 + [flags]
    np.testing.assert_array_equal(steps[1][0]["alive"], [1, 0, 1])
    np.testing.assert_array_equal(steps[1][0]["obs"], [[3, 0], [0, 0], [3, 3]])
    np.testing.assert_array_equal(steps[1][0]["avail_actions"], [[1, 1, 1], [1, 0, 0], [1, 1, 1]])
    assert inner.acted[2] == {"a": 1, "c": 2}
    # The clock leaves a last view to bootstrap from; the task's end does not.
    np.testing.assert_array_equal(steps[3][0]["alive"], [1, 0, 1] if by == "clock" else [0, 0, 0])
    assert steps[3][0]["obs"].any() == (by == "clock")
    assert steps[3][4] == {"agents_left": 2 if by == "clock" else 0}


@pytest.mark.parametrize(("by", "end"), [("task", 2), ("clock", 2), ("task", 1), ("clock", 1)])
def test_pettingzoo_ends_with_the_first_to_leave(by, end):
    env = PettingZooEnv(PettingZooSettings(end_on="any"), Leavers(end=end, by=by, state=True))
    env.reset(seed=0)
    steps = [env.step(np.array([1, 0, 2])) for _ in range(end)]
    cut = (by, end) == ("clock", 1)  # at step 2 agent "b" leaves by the task, whatever the clock says
    assert [s[2:4] for s in steps] == [(False, False)] * (end - 1) + [(not cut, cut)]
    assert steps[-1][0]["alive"].all() == cut
    assert steps[-1][0]["state"].any() == cut


def test_pettingzoo_time_limit_masks_and_state():
    env = PettingZooEnv(PettingZooSettings(time_limit=3, reward_aggregation="mean"), Leavers(masks="dict", state=True))
    assert env.episode_limit == 3
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation["avail_actions"], [[0, 1, 1]] * 3)
    np.testing.assert_array_equal(observation["state"], [0, 7])
    steps = [env.step(np.array([1, 1, 1])) for _ in range(3)]
    assert [s[2:4] for s in steps] == [(False, False)] * 2 + [(False, True)]
    assert [s[1] for s in steps] == [1, 1, 1]
    observations = PettingZooEnv(PettingZooSettings(own_state=False), Leavers(state=True)).reset(seed=0)[0]
    np.testing.assert_array_equal(observations["state"], observations["obs"].reshape(-1))
    ended = PettingZooEnv(PettingZooSettings(), Leavers(end=1, state=True))
    ended.reset(seed=0)
    np.testing.assert_array_equal(ended.step(np.zeros(3, int))[0]["state"], [0, 0])
    env = PettingZooEnv(PettingZooSettings(), Leavers(masks="info"))
    np.testing.assert_array_equal(env.reset(seed=0)[0]["avail_actions"], [[0, 0, 1]] * 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key": "no_such_suite_at_all.walk_v1"}, "'no_such_suite_at_all'"),
        ({"key": "math"}, "parallel_env"),
        ({"key": "shoal_fake_zoo", "kwargs": {"colour": "red"}}, "colour"),
        ({"key": "shoal_endless_zoo"}, "time_limit"),
        ({"time_limit": 0}, "time_limit"),
        ({"reward_aggregation": "max"}, "sum, mean"),
    ],
)
def test_pettingzoo_refuses(settings, message, monkeypatch):
    class Endless(Leavers):
        def __init__(self):
            super().__init__()
            del self.max_cycles

    for name, maker in (("shoal_fake_zoo", Leavers), ("shoal_endless_zoo", Endless)):
        module = types.ModuleType(name)
        module.parallel_env = maker
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(UserError, match=message):
        PettingZooEnv(PettingZooSettings(**settings))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("needs", "key", "kwargs", "limit", "continuous"),
    [
        ("pygame", "pettingzoo.mpe.simple_spread_v3", {"max_cycles": 25}, 25, False),
        ("pygame", "pettingzoo.mpe.simple_speaker_listener_v4", {"continuous_actions": True}, 25, True),
        ("Box2D", "pettingzoo.sisl.multiwalker_v9", {"max_cycles": 100}, 100, True),
    ],
)
def test_pettingzoo_real_suites(needs, key, kwargs, limit, continuous):
    pytest.importorskip("pettingzoo", reason="pip install pettingzoo to play it")
    pytest.importorskip(needs, reason=f"pip install {needs} to play it")
    env = PettingZooEnv(PettingZooSettings(key=key, kwargs=kwargs))
    assert env.episode_limit == limit
    assert isinstance(env.action_space, spaces.Box) == continuous
    assert ("avail_actions" in env.observation_space.spaces) != continuous
    check_env(env, skip_render_check=True)
    _, rewards, (terminated, truncated), _ = assert_same_seed_same_episode(env)
    assert terminated != truncated
    assert len(rewards) == limit or terminated
    env.close()


# --------------------------------------------------------------------------------------------------- PyMARL


class OldSchool:
    """An environment as PyMARL's users write them: global random streams, no spaces, no seed."""

    def __init__(self, n_agents=2, flag=True, five=False):
        self.n_agents, self.flag, self.five, self.episode_limit = n_agents, flag, five, 4

    def get_env_info(self):
        return {
            "n_agents": self.n_agents,
            "n_actions": 3,
            "obs_shape": (2, 2),
            "state_shape": 5,
            "episode_limit": self.episode_limit,
        }

    def reset(self):
        self.t, self.noise = 0, np.random.rand(self.n_agents, 2, 2)
        self.coin = random.random()

    def get_obs(self):
        return [self.noise[i] + self.t for i in range(self.n_agents)]

    def get_state(self):
        return [self.t, self.coin, 0, 0, 1]

    def get_avail_actions(self):
        return [[1, 1, 0], [0, 1, 1]]

    def step(self, actions):
        assert all(type(a) is int for a in actions)
        self.t += 1
        self.noise = np.random.rand(self.n_agents, 2, 2)
        info = {"battle_won": actions[0] == 1, "words": "none"}
        over = self.t >= self.episode_limit or actions[0] == 1
        if self.t >= self.episode_limit and self.flag:
            info["episode_limit"] = actions[0] != 1
        reward = float(actions[1])
        return (self.get_obs(), reward, over, False, info) if self.five else (reward, over, info)


class SeededOldSchool(OldSchool):
    rng = np.random.default_rng(99)

    def seed(self, seed):
        self.rng = np.random.default_rng(seed)

    def reset(self):
        super().reset()
        self.coin = self.rng.random()


class SmacLike(OldSchool):
    def seed(self):
        return 17


def from_path(name, **kwargs):
    return PyMARLEnv(PyMARLSettings(key=f"{__name__}:{name}", kwargs=kwargs))


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


@pytest.mark.parametrize("name", ["OldSchool", "SeededOldSchool", "SmacLike"])
def test_pymarl_check_env_and_seeds(name):
    env = from_path(name)
    check_env(env, skip_render_check=True)
    first = assert_same_seed_same_episode(env)
    assert first[0][0]["obs"].shape == (2, 4)
    np.testing.assert_array_equal(first[0][0]["avail_actions"], [[1, 1, 0], [0, 1, 1]])
    assert env.reset(seed=1)[0]["state"][1] != env.reset(seed=2)[0]["state"][1]


def test_pymarl_leaves_global_randomness_alone():
    np.random.seed(0)
    random.seed(0)
    expected = np.random.rand(), random.random()
    np.random.seed(0)
    random.seed(0)
    episode(PyMARLEnv(PyMARLSettings(), OldSchool()), 5)
    assert (np.random.rand(), random.random()) == expected


@pytest.mark.parametrize("five", [False, True])
def test_pymarl_flags_and_info(five):
    env = PyMARLEnv(PyMARLSettings(), OldSchool(five=five))
    assert env.episode_limit == 4
    env.reset(seed=0)
    steps = [env.step(np.array([0, 2])) for _ in range(4)]
    assert [s[1:4] for s in steps] == [(2.0, False, False)] * 3 + [(2.0, False, True)]
    assert steps[0][4] == {}
    assert steps[3][4] == {"battle_won": 0}
    env.reset(seed=0)
    assert env.step(np.array([1, 1]))[1:] == (1.0, True, False, {"battle_won": 1})
    env.reset(seed=0)  # episode_limit: False in the info is no time limit
    assert [env.step(np.array([int(t == 3), 1])) for t in range(4)][-1][2:4] == (True, False)
    unflagged = PyMARLEnv(PyMARLSettings(), OldSchool(flag=False, five=five))
    unflagged.reset(seed=0)
    assert [unflagged.step(np.array([0, 1])) for _ in range(4)][-1][2:4] == (True, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "package.module:Class"),
        ({"key": "no_such_suite_at_all.envs:X"}, "'no_such_suite_at_all'"),
        ({"key": f"{__name__}:Nobody"}, "'Nobody'"),
        ({"key": f"{__name__}:OldSchool", "kwargs": {"colour": 1}}, "colour"),
        ({"key": "collections:OrderedDict"}, "get_env_info"),
    ],
)
def test_pymarl_refuses(settings, message):
    with pytest.raises(UserError, match=message):
        PyMARLEnv(PyMARLSettings(**settings))
