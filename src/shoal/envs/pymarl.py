"""Any environment written for PyMARL: an object with its `MultiAgentEnv` methods."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from gymnasium import spaces

from shoal.declare import Role
from shoal.envs.adapted import AdaptedEnv
from shoal.envs.reading import numbers_in, read_flags, read_info, read_reward, read_view, returned, takes
from shoal.envs.team import Team, import_named, plain_numbers
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class PyMARLSettings:
    """Settings of a PyMARL environment."""

    key: Annotated[str, "import path of the environment's class: 'package.module:Class'", Role.TASK] = ""
    kwargs: Annotated[dict[str, Any], "keyword arguments of the environment's constructor"] = field(
        default_factory=dict
    )


def _class(settings: PyMARLSettings) -> Any:
    module_name, _, class_name = settings.key.partition(":")
    if not module_name or not class_name:
        raise UserError(
            f"env_args.key={settings.key!r} must be the import path 'package.module:Class' of an environment."
        )
    module = import_named(module_name, settings.key)
    if not hasattr(module, class_name):
        raise UserError(f"env_args.key={settings.key!r}: module {module_name!r} has no {class_name!r}.")
    return getattr(module, class_name)


FACTS = ("n_agents", "n_actions", "obs_shape", "state_shape", "episode_limit")


def _facts(env: Any, where: str) -> list[tuple[int, ...]]:
    """The shapes and counts (as shapes of no dimension) of `get_env_info`, in the order of `FACTS`."""
    try:
        told = env.get_env_info()
    except AttributeError as error:
        raise UserError(f"{where} is no PyMARL environment: {error}.") from error
    if not isinstance(told, Mapping):
        raise UserError(
            f"{where}: get_env_info returned {told!r}, but it must return a dictionary of {', '.join(FACTS)}."
        )
    facts = []
    for name in FACTS:
        if name not in told:
            raise UserError(f"{where}: get_env_info does not say {name}; it must have {', '.join(FACTS)}.")
        shape = numbers_in(told[name])
        if shape is None or shape.dtype == bool or (shape % 1 != 0).any() or (shape < 1).any():
            raise UserError(f"{where}: get_env_info says {name}={told[name]!r}, but it must be at least 1.")
        if shape.ndim and not name.endswith("_shape"):
            raise UserError(f"{where}: get_env_info says {name}={told[name]!r}, but it must be a number.")
        facts.append(tuple(int(size) for size in shape.reshape(-1)))
    return facts


class PyMARLEnv(AdaptedEnv):
    """Any environment written for PyMARL (`MultiAgentEnv`), by its import path.

    It needs `reset`, `step(actions) -> (reward, terminated, info)` (or EPyMARL's five values), `get_obs`,
    `get_state`, `get_avail_actions` and `get_env_info` (`n_agents`, `n_actions`, `obs_shape`,
    `state_shape`, `episode_limit`). Its end is `truncated` where its info says `episode_limit`, else
    `terminated`; an environment that does not raise that flag (SMAC without continuing_episode) passes its
    time limit off as a true end, and it cannot be told from outside. The seed goes to `seed(seed)` or
    `reset(seed=...)` where it takes one, and to the global random streams as this environment sees them.
    The last info holds its info's numbers.

    Args:
        settings: which environment.
        env: an environment already built, played instead of `settings.key`.

    Raises:
        UserError: no such class, refused arguments, or no `get_env_info` that says the sizes; later, observations,
            states, masks, rewards and ends that do not fit them or cannot be read.
    """

    Settings: type[Any] = PyMARLSettings

    @staticmethod
    def outside_code(env_args: Mapping[str, Any]) -> dict[str, str]:
        """Settings that name code to import."""
        return {"key": str(env_args["key"])} if env_args.get("key") else {}

    def __init__(self, settings: PyMARLSettings, env: Any = None) -> None:
        super().__init__()
        self._key, self._kwargs, self._given = settings.key, settings.kwargs, env is not None
        self._where = f"env_args.key={settings.key!r}"
        self._class = None if self._given else _class(settings)
        with self._random.entered():
            self._env = env if self._given else self._build()
            (N,), (A,), obs_shape, state_shape, (limit,) = _facts(self._env, self._where)
        view = spaces.Box(-np.inf, np.inf, obs_shape, np.float32)
        self._state_space = spaces.Box(-np.inf, np.inf, state_shape, np.float32)
        self._state_dim = int(np.prod(state_shape))
        self._team = Team([view] * N, [spaces.Discrete(A)] * N, self._where)
        self.episode_limit = limit
        self.observation_space = self._team.observation_space(self._state_dim)
        self.action_space = self._team.action_space

    def _build(self, draw: bool = False) -> Any:
        assert self._class is not None
        # Only who names it in its signature: a **kwargs may hand it on to somebody who refuses it.
        named = draw and "render_mode" in inspect.signature(self._class).parameters
        drawing = {"render_mode": "rgb_array"} if named and "render_mode" not in self._kwargs else {}
        try:
            return self._class(**self._kwargs, **drawing)
        except TypeError as error:
            raise UserError(f"{self._where} refused env_args.kwargs: {error}.") from error

    def _observation(self, last: bool = False) -> dict[str, np.ndarray]:
        """What the team sees. With `last`, of an ended task: no agent acts any more, so that masks may be empty."""
        return {
            "obs": self._team.pad(self._env.get_obs()),
            "state": read_view(self._state_space, self._env.get_state(), f"{self._where}: the state"),
            "avail_actions": self._team.avail(self._env.get_avail_actions(), needed=not last),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` determines -> observation, empty info. Of `options` only `draw` is read."""
        super().reset(seed=seed)
        if seed is not None:
            self._random.seed(seed)
        with self._random.entered():
            if not self._given:
                self._renew(False, options)
            if seed is not None and takes(getattr(self._env, "seed", None), "seed"):
                self._env.seed(seed)
            self._env.reset(**({"seed": seed} if takes(self._env.reset, "seed") else {}))
            return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Step under `action` [N] -> observation, team reward, terminated, truncated, info at the end."""
        with self._random.entered():
            result = self._env.step([int(a) for a in action])
            if isinstance(result, tuple | list) and len(result) == 5:
                _, reward, done, cut, info = result
            else:
                reward, done, info = returned(result, ("reward", "terminated", "info"), self._where, "step")
                cut = False
            N, info = self._team.n_agents, read_info(info, self._where, "step")
            cut = bool(read_flags(cut, N, "truncated", self._where).all()) or bool(info.pop("episode_limit", False))
            over = bool(read_flags(done, N, "terminated", self._where).all()) or cut
            observation = self._observation(last=over and not cut)
        reward = read_reward(reward, N, "sum", self._where)
        return observation, reward, over and not cut, cut, plain_numbers(info) if over else {}

    def render(self) -> Any:
        """A picture of the state, uint8 [height, width, 3]; None if the environment gives none."""
        with self._random.entered():
            return self._env.render(**({"mode": "rgb_array"} if takes(self._env.render, "mode") else {}))
