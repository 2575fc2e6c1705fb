"""An environment as runners hold it, whoever wrote it: streams and a folder of its own, and every value checked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from shoal.envs.private_random import PrivateRandomness, seed_spaces
from shoal.envs.reading import NO_ACTION, numbers_in, read_flags, read_info, read_reward, returned, shown, takes
from shoal.utils.errors import UserError


def guarded(env_class: Callable[[Any], gymnasium.Env], settings: Any, seed: int = 0) -> GuardedEnv:
    """Build an environment of `env_class`.

    Args:
        env_class: called with `settings`.
        settings: what it is built from.
        seed: what its constructor draws from the global random streams follows from this; all copies draw the same.

    Raises:
        UserError: it is no team environment that a runner can play.
    """
    streams, folder = PrivateRandomness(), PrivateFolder()
    streams.seed(seed)
    with streams.entered(), folder.entered():
        env = env_class(settings)
    return GuardedEnv(env, streams, folder)


class PrivateFolder:
    """The working directory, as one environment sees it: one that changes it changes no one else's relative paths."""

    def __init__(self) -> None:
        self._own = _working_directory()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be in the environment's directory for a while."""
        outside = _working_directory()
        if self._own is not None and self._own != outside:
            with contextlib.suppress(FileNotFoundError):  # it was deleted in the meantime
                os.chdir(self._own)
        try:
            yield
        finally:
            self._own = _working_directory()
            if outside is not None and self._own != outside:
                os.chdir(outside)


def _working_directory() -> str | None:
    """None if it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


class GuardedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Plays `env` in random streams and a working directory of its own and holds it to the spaces that it declares.

    An environment that needs no streams says so by an attribute `own_randomness = True`: it draws from nothing global,
    or keeps that to itself, as the adapters do.

    Raises:
        UserError: it is no team environment; later, whatever does not fit its spaces or cannot be read.
    """

    def __init__(self, env: gymnasium.Env, streams: PrivateRandomness, folder: PrivateFolder) -> None:
        self._where = f"the environment {type(getattr(env, 'unwrapped', env)).__name__}"
        if not isinstance(env, gymnasium.Env):
            raise UserError(
                f"{self._where} is no gymnasium.Env: derive it from that, or enter it through the gymma, pettingzoo or "
                "pymarl adapter."
            )
        super().__init__(env)
        self._folder = folder
        self._streams = None if getattr(env.unwrapped, "own_randomness", False) else streams
        for name in ("observation_space", "action_space", "episode_limit"):
            if not env.has_wrapper_attr(name):
                raise UserError(f"{self._where} has no {name}: set it in its constructor.")
        self.episode_limit = env.get_wrapper_attr("episode_limit")
        if not isinstance(self.episode_limit, int | np.integer) or self.episode_limit < 1:
            raise UserError(
                f"{self._where} has episode_limit={self.episode_limit!r}: it must be a number of at least 1."
            )
        if not (takes(env.reset, "seed") and takes(env.reset, "options")):
            raise UserError(f"{self._where}: reset must be reset(self, *, seed=None, options=None).")
        space = env.observation_space
        self._parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {}

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """In the environment's streams and folder."""
        with self._folder.entered(), self._streams.entered() if self._streams else contextlib.nullcontext():
            yield

    def _checked(self, observation: Any, last: bool = False) -> Any:
        """The observation, if it fits. With `last`, of an ended task: no agent acts any more."""
        for key, space in self._parts.items():
            try:
                value = observation[key]
            except (TypeError, KeyError, IndexError):
                raise UserError(f"{self._where}: the observation {shown(observation)} has no {key!r}.") from None
            numbers = numbers_in(value)
            if numbers is None or numbers.shape != space.shape:
                raise UserError(f"{self._where}: {key} is {shown(value)}, but its space is {space}.")
            if isinstance(space, spaces.MultiBinary) and not ((numbers == 0) | (numbers == 1)).all():
                raise UserError(f"{self._where}: {key} is {shown(value)}, but it must hold 0 and 1 alone.")
            if key == "avail_actions" and not last:
                idle = np.flatnonzero(~numbers.any(-1))
                if len(idle):
                    raise UserError(f"{self._where}: agent {idle[0]} {NO_ACTION}")
        return observation

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the episode that `seed` determines -> observation, info."""
        if self._streams is not None and seed is not None:
            self._streams.seed(seed)
            seed_spaces(seed, self.env.observation_space, self.env.action_space)
        with self._inside():
            result = self.env.reset(seed=seed, options=options)
        observation, info = returned(result, ("observation", "info"), self._where, "reset")
        return self._checked(observation), read_info(info, self._where, "reset")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the team -> observation, team reward, terminated, truncated, info."""
        with self._inside():
            result = self.env.step(action)
        names = ("observation", "reward", "terminated", "truncated", "info")
        observation, reward, done, cut, info = returned(result, names, self._where, "step")
        terminated = bool(read_flags(done, 1, "terminated", self._where)[0])
        truncated = bool(read_flags(cut, 1, "truncated", self._where)[0])
        return (
            self._checked(observation, last=terminated),
            read_reward(reward, 1, "sum", self._where),
            terminated,
            truncated,
            read_info(info, self._where, "step"),
        )

    def ask(self, name: str) -> Any:
        """What a method of the environment returns, such as `render`."""
        with self._inside():
            return self.env.get_wrapper_attr(name)()

    def render(self) -> Any:
        """A picture of the state."""
        return self.ask("render")

    def close(self) -> None:
        """Close the environment."""
        with self._inside():
            self.env.close()
