"""Any environment written for PyMARL: an object with its `MultiAgentEnv` methods."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from shoal.envs.team import Team, aggregate, import_named, plain_numbers
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class PyMARLSettings:
    """Settings of a PyMARL environment."""

    key: Annotated[str, "import path of the environment's class: 'package.module:Class'"] = ""
    kwargs: Annotated[dict[str, Any], "arguments for the class"] = field(default_factory=dict)


def _make(settings: PyMARLSettings) -> Any:
    module_name, _, class_name = settings.key.partition(":")
    if not module_name or not class_name:
        raise UserError(
            f"env_args.key={settings.key!r} must be the import path 'package.module:Class' of an environment."
        )
    module = import_named(module_name, settings.key)
    if not hasattr(module, class_name):
        raise UserError(f"env_args.key={settings.key!r}: module {module_name!r} has no {class_name!r}.")
    try:
        return getattr(module, class_name)(**settings.kwargs)
    except TypeError as error:
        raise UserError(f"env_args.key={settings.key!r} refused env_args.kwargs: {error}.") from error


class PrivateRandomness:
    """The global random streams of `random` and `numpy`, as one environment sees them.

    Environments of this kind draw from the global streams. While `entered`, those are this environment's
    own, so that an episode follows from its seed and leaves everybody else's numbers alone.
    """

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy: Any = np.random.get_state()

    def seed(self, seed: int) -> None:
        self._python = random.Random(seed).getstate()
        self._numpy = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed))).get_state()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        outside = random.getstate(), np.random.get_state()
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        try:
            yield
        finally:
            self._python, self._numpy = random.getstate(), np.random.get_state()
            random.setstate(outside[0])
            np.random.set_state(outside[1])


def _takes(function: Any, name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


class PyMARLEnv(gymnasium.Env):
    """Any environment written for PyMARL (`MultiAgentEnv`), by its import path.

    It needs `reset`, `step(actions) -> (reward, terminated, info)` (or EPyMARL's five values), `get_obs`,
    `get_state`, `get_avail_actions` and `get_env_info` (`n_agents`, `n_actions`, `obs_shape`,
    `state_shape`, `episode_limit`). Its end is `truncated` where its info says `episode_limit`, else
    `terminated`; an environment that does not raise that flag (SMAC without continuing_episode) passes its
    time limit off as a true end, and nobody can tell from outside. The seed goes to `seed(seed)` or
    `reset(seed=...)` where it takes one, and to the global random streams as this environment sees them.
    The last info holds its info's numbers.

    Args:
        settings: which environment.
        env: an environment already built, played instead of `settings.key`.

    Raises:
        UserError: no such class, refused arguments, or no `get_env_info`.
    """

    Settings: type[Any] = PyMARLSettings

    @staticmethod
    def outside_code(env_args: Mapping[str, Any]) -> dict[str, str]:
        """Settings that name code to import."""
        return {"key": str(env_args["key"])} if env_args.get("key") else {}

    def __init__(self, settings: PyMARLSettings, env: Any = None) -> None:
        self._random = PrivateRandomness()
        with self._random.entered():
            self._env = _make(settings) if env is None else env
            try:
                facts = self._env.get_env_info()
            except AttributeError as error:
                raise UserError(f"env_args.key={settings.key!r} is no PyMARL environment: {error}.") from error
        N, A = int(facts["n_agents"]), int(facts["n_actions"])
        obs_dim, state_dim = int(np.prod(facts["obs_shape"])), int(np.prod(facts["state_shape"]))
        box = spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self._team = Team([box] * N, [spaces.Discrete(A)] * N, settings.key)
        self._state_dim = state_dim
        self.episode_limit = int(facts["episode_limit"])
        self.observation_space = self._team.observation_space(state_dim)
        self.action_space = self._team.action_space

    def _observation(self) -> dict[str, np.ndarray]:
        obs = np.zeros((self._team.n_agents, self._team.obs_dim), dtype=np.float32)
        for row, view in zip(obs, self._env.get_obs(), strict=True):
            flat = np.asarray(view, dtype=np.float32).reshape(-1)
            row[: flat.size] = flat
        return {
            "obs": obs,
            "state": np.array(self._env.get_state(), dtype=np.float32).reshape(self._state_dim),
            "avail_actions": self._avail(),
        }

    def _avail(self) -> np.ndarray:
        available = np.zeros((self._team.n_agents, self._team.n_actions), dtype=np.int8)
        for row, mask in zip(available, self._env.get_avail_actions(), strict=True):
            row[: len(mask)] = np.asarray(mask) > 0
        return available

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` determines (`options` are ignored) -> observation, empty info."""
        super().reset(seed=seed)
        if seed is not None:
            self._random.seed(seed)
        with self._random.entered():
            if seed is not None and _takes(getattr(self._env, "seed", None), "seed"):
                self._env.seed(seed)
            self._env.reset(**({"seed": seed} if _takes(self._env.reset, "seed") else {}))
            return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Step under `action` [N] -> observation, team reward, terminated, truncated, info at the end."""
        with self._random.entered():
            result = self._env.step([int(a) for a in action])
            observation = self._observation()
        reward, done, cut, info = (*result[:2], False, result[2]) if len(result) == 3 else result[1:]
        info = dict(info or {})
        cut = bool(np.all(cut)) or bool(info.pop("episode_limit", False))
        over = bool(np.all(done)) or cut
        return (
            observation,
            aggregate(reward, "sum"),
            over and not cut,
            cut,
            plain_numbers(info) if over else {},
        )

    def close(self) -> None:
        """Close the environment underneath, where it can be closed."""
        if hasattr(self._env, "close"):
            self._env.close()
