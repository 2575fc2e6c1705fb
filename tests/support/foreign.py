"""One small game in the four forms in which environments enter, with the mistakes that their authors make.

Two agents, three actions, episodes of four steps that pay 2 a step. `fault` chooses what is wrong; it shows from the
second step on where it is about an episode. `NOISE` draws from every global random stream.
"""

import random
from dataclasses import dataclass
from typing import Annotated

import gymnasium
import numpy as np
from gymnasium import spaces

N, A, D, S, LIMIT = 2, 3, 4, 5, 4
NAMES = ["a", "b"]


class Game:
    """What happens, before it takes one of the forms."""

    def __init__(self, fault="", noise=False):
        self.fault, self.noise, self.t = fault, noise, 0
        self.born = np.random.rand() if noise else 0.0

    def start(self):
        self.t = 0

    @property
    def shows(self):
        return self.t >= 2

    def view(self, i):
        draws = [random.gauss(0, 1), np.random.randn(), self.born] if self.noise else [0.5, 0.5, 0.5]
        view = np.array([self.t, *draws], dtype=np.float32)
        if not self.shows:
            return view
        return {
            "short_obs": view[:-1],
            "long_obs": np.append(view, 1),
            "none_obs": None,
            "str_obs": "left",
            "number_words_obs": ["1", "2", "3", "4"],
            "ragged_obs": [[1.0], [1.0, 2.0, 3.0]],
            "complex_obs": view * 1j,
            "column_obs": view.reshape(-1, 1),
            "list_obs": view.tolist(),
        }.get(self.fault, view)

    def views(self):
        views = [self.view(i) for i in range(N)]
        if self.shows and self.fault == "more_agents":
            views.append(views[0])
        if self.shows and self.fault == "fewer_agents":
            views.pop()
        if self.shows and self.fault == "no_views":
            return None
        return views

    def state(self):
        state = np.full(S, self.t, dtype=np.float32)
        wrong = {"shape_state": state[:-1], "none_state": None, "str_state": "here"}
        return wrong.get(self.fault, state) if self.shows else state

    def masks(self):
        masks = [[1, 1, 0], [0, 1, 1]]
        if self.fault == "mask_empty_at_end" and self.t >= LIMIT:
            return [[0] * A] * N
        if self.shows and self.fault == "mask_list_short":
            return masks[:1]
        if self.shows:
            wrong = {
                "mask_short": [1, 1],
                "mask_long": [1, 1, 1, 1],
                "mask_empty": [0, 0, 0],
                "mask_nan": [float("nan")] * A,
                "mask_negative": [1, -1, 1],
                "mask_none": None,
                "mask_str": "yes",
                "mask_bool": [False, True, True],
            }
            masks[1] = wrong.get(self.fault, masks[1])
        return masks

    def pay(self):
        wrong = {
            "none_reward": None,
            "str_reward": "3",
            "complex_reward": 1j,
            "three_rewards": [1.0, 1.0, 0.0],
            "nested_reward": {"a": {"b": 1}, "c": 1},
            "dict_reward": {"a": 1.5, "b": 0.5},
            "list_reward": [1.5, 0.5],
            "column_reward": np.array([[1.5], [0.5]]),
            "numpy_reward": np.float32(2),
        }
        return wrong.get(self.fault, 2.0)

    def over(self):
        over = self.t >= LIMIT and self.fault != "endless"
        if not self.shows:
            return over
        wrong = {
            "none_done": None,
            "str_done": "no",
            "nan_done": float("nan"),
            "count_done": 3,
            "three_dones": [over] * 3,
            "empty_done": [],
            "dict_done": {"a": over, "b": over},
            "all_done": {"a": False, "b": False, "__all__": over},
            "list_done": [over, over],
            "array_done": np.array([over, over]),
            "numpy_done": np.bool_(over),
        }
        return wrong.get(self.fault, over)

    def info(self):
        wrong = {"none_info": None, "str_info": "won", "number_info": 3, "listed_info": [{}, {}]}
        return wrong.get(self.fault, {"score": self.t})


class OldSchool(Game):
    """As for PyMARL."""

    def get_env_info(self):
        facts = {"n_agents": N, "n_actions": A, "obs_shape": D, "state_shape": S, "episode_limit": LIMIT}
        if self.fault == "facts_missing":
            del facts["state_shape"]
        wrong = {
            "facts_none": None,
            "agents_zero": facts | {"n_agents": 0},
            "limit_zero": facts | {"episode_limit": 0},
            "limit_none": facts | {"episode_limit": None},
            "actions_half": facts | {"n_actions": 2.5},
            "agents_str": facts | {"n_agents": "2"},
        }
        return wrong.get(self.fault, facts)

    def reset(self):
        self.start()

    def get_obs(self):
        return self.views()

    def get_state(self):
        return self.state()

    def get_avail_actions(self):
        return self.masks()

    def step(self, actions):
        self.t += 1
        if self.shows and self.fault == "step_none":
            return None
        if self.shows and self.fault == "step_two":
            return self.pay(), self.over()
        if self.fault == "numpy_done":  # EPyMARL's five values
            return self.views(), self.pay(), self.over(), False, self.info()
        return self.pay(), self.over(), self.info()

    def render(self):
        return np.full((8, 8, 3), self.t, dtype=np.uint8)


VIEW = spaces.Box(-np.inf, np.inf, (D,), np.float32)


class Modern(gymnasium.Env):
    """As for gymnasium, with a tuple of spaces."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium's attribute

    def __init__(self, fault="", noise=False, render_mode=None):
        self.game, self.render_mode = Game(fault, noise), render_mode
        odd = {
            "text_space": spaces.Text(4),
            "sequence_space": spaces.Sequence(VIEW),
            "graph_space": spaces.Graph(VIEW, None),
            "text_in_dict": spaces.Dict(x=VIEW, y=spaces.Text(4)),
        }
        self.observation_space = spaces.Tuple([odd.get(fault, VIEW)] * N)
        self.action_space = spaces.Tuple([spaces.Discrete(A)] * N)
        if fault == "unequal_spaces":
            self.action_space = spaces.Tuple([spaces.Discrete(A)] * (N + 1))
        if fault == "space_of_another_library":
            self.observation_space = spaces.Tuple([VIEW] * N)
            self.observation_space.spaces = (OtherBox(), OtherBox())

    def views(self):
        views = self.game.views()
        return tuple(views) if isinstance(views, list) else views

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.game.start()
        return self.views() if self.game.fault == "old_reset" else (self.views(), {})

    def step(self, actions):
        self.game.t += 1
        game, values = self.game, (self.views(), self.game.pay(), self.game.over())
        if game.shows and game.fault == "step_none":
            return None
        if game.fault == "old_step":
            return *values, game.info()
        if game.fault == "cut_dict":
            done = values[2]
            return *values[:2], {"a": False, "b": done}, {"a": done, "b": False}, game.info()
        return *values, False, game.info()

    def render(self):
        if self.render_mode == "rgb_array":
            return np.full((8, 8, 3), self.game.t, dtype=np.uint8)
        return None


class OtherBox:
    """A space that is not gymnasium's."""

    shape = (D,)


class Unseeded(Modern):
    """Takes no seed."""

    def reset(self):
        return super().reset()


class Undrawn(Modern):
    """Fails when it is drawn."""

    def render(self):
        raise RuntimeError("no screen")


class Unbuilt(Modern):
    """Has no render_mode."""

    def __init__(self, fault="", noise=False):
        super().__init__(fault, noise)


for entry in (Modern, Unseeded, Undrawn, Unbuilt):
    gymnasium.register(f"Shoal{entry.__name__}-v0", entry, max_episode_steps=LIMIT + 2)


class Parallel:
    """As for PettingZoo."""

    metadata = {"name": "parallel"}  # noqa: RUF012 - PettingZoo's attribute
    max_cycles = LIMIT + 2
    possible_agents = NAMES
    agents: list[str] = []  # noqa: RUF012 - PettingZoo's attribute

    def __init__(self, fault="", noise=False, render_mode=None):
        self.game, self.render_mode = Game(fault, noise), render_mode

    def observation_space(self, agent):
        if self.game.fault == "text_space":
            return spaces.Text(4)
        if self.game.fault == "space_missing":
            return {"a": VIEW}[agent]
        return VIEW

    def action_space(self, agent):
        return spaces.Discrete(A)

    def by_name(self, values, what):
        named = dict(zip(NAMES, values, strict=False))
        if self.game.shows and self.game.fault == f"skip_in_{what}":
            del named["b"]
        return named

    def told(self):
        views = self.game.views()
        masks = self.game.masks()
        infos = {"listed_info": [], "none_info": None, "str_info": "won"}.get(
            self.game.fault, {a: {"action_mask": m} for a, m in zip(NAMES, masks, strict=False)}
        )
        return (views if views is None else self.by_name(views, "observations")), infos

    def reset(self, seed=None, options=None):
        self.game.start()
        self.agents = [] if self.game.fault == "nobody_plays" else list(NAMES)
        observations, infos = self.told()
        return observations if self.game.fault == "old_reset" else (observations, infos)

    def step(self, actions):
        self.game.t += 1
        observations, infos = self.told()
        pay, over = self.game.pay(), self.game.over()
        if self.game.shows and self.game.fault == "step_none":
            return None
        if isinstance(pay, float):
            pay = self.by_name([1.5, 0.5], "rewards")
        ends = self.by_name([over, over], "terminations") if isinstance(over, bool) else over
        if self.game.fault == "old_step":
            return observations, pay, ends, infos
        if self.game.t >= LIMIT and self.game.fault != "endless":
            self.agents = []
        if self.game.shows and self.game.fault == "stranger":
            self.agents = ["a", "z"]
        cuts = self.by_name([False, False], "truncations")
        return observations, pay, ends, cuts, infos

    def render(self):
        return np.full((8, 8, 3), self.game.t, dtype=np.uint8) if self.render_mode == "rgb_array" else None


class Nameless(Parallel):
    """Does not say who may play."""

    possible_agents = None


class UnseededParallel(Parallel):
    """Takes no seed."""

    def reset(self):
        return super().reset()


parallel_env = Parallel


@dataclass(frozen=True)
class NativeSettings:
    fault: Annotated[str, "what is wrong"] = ""
    noise: Annotated[bool, "draw from the global random streams"] = False


class Native(gymnasium.Env):
    """As Shoal itself wants it: a gymnasium.Env for the team, named by its import path."""

    Settings = NativeSettings
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium's attribute
    render_mode = "rgb_array"

    def __init__(self, settings):
        self.game, self.episode_limit = Game(settings.fault, settings.noise), LIMIT
        if settings.fault == "no_limit":
            del self.episode_limit
        if settings.fault == "limit_zero":
            self.episode_limit = 0
        self.action_space = spaces.MultiDiscrete([A] * N)
        self.observation_space = spaces.Dict(
            obs=spaces.Box(-np.inf, np.inf, (N, D), np.float32),
            state=spaces.Box(-np.inf, np.inf, (S,), np.float32),
            avail_actions=spaces.MultiBinary([N, A]),
        )

    def look(self):
        observation = {"obs": self.game.views(), "state": self.game.state(), "avail_actions": self.game.masks()}
        if self.game.shows and self.game.fault == "key_missing":
            del observation["state"]
        if self.game.shows and self.game.fault == "no_dict":
            return observation["obs"]
        return observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.game.start()
        return self.look() if self.game.fault == "old_reset" else (self.look(), {})

    def step(self, action):
        self.game.t += 1
        values = (self.look(), self.game.pay(), self.game.over())
        if self.game.shows and self.game.fault == "step_none":
            return None
        return (*values, self.game.info()) if self.game.fault == "old_step" else (*values, False, self.game.info())

    def render(self):
        return np.full((8, 8, 3), self.game.t, dtype=np.uint8)


class UnseededNative(Native):
    """Takes no seed."""

    def reset(self):
        return super().reset()


class NoEnvironment:
    """Is none."""

    Settings = NativeSettings
    render_mode = None

    def __init__(self, settings):
        self.observation_space = self.action_space = None
