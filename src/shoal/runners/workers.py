"""Environments in worker processes, over gymnasium's shared-memory vector environment."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv


class HoldAtEnd(gym.Wrapper[Any, Any, Any, Any]):
    """Stays at the end of a finished episode until it is reset, so that copies can wait for one another."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._last: tuple[Any, float, bool, bool, dict[str, Any]] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._last = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._last is not None:
            return self._last
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            # gymnasium gathers a key's values of all copies in an array of the first one's type: floats alone are safe.
            info = {key: float(value) if _is_number(value) else value for key, value in info.items()}
            self._last = (observation, 0.0, terminated, truncated, {})
        return observation, float(reward), terminated, truncated, info


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.generic) and np.asarray(value).dtype.kind in "biuf"


class EnvFactory:
    """Builds one environment, in this process or in a worker (picklable, so that workers can be spawned)."""

    def __init__(self, env_class: Callable[[Any], gym.Env], settings: Any) -> None:
        self.env_class, self.settings = env_class, settings
        self.trainer = os.getpid()

    def __call__(self) -> gym.Env:
        if os.getpid() != self.trainer:
            _become_worker(self.trainer)
        return HoldAtEnd(self.env_class(self.settings))


def _become_worker(trainer: int) -> None:
    """Leave Ctrl-C to the parent, which ends the run in order, and do not outlive it even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != trainer:  # the parent died before the request took effect
            os._exit(1)


def in_process(env_class: Callable[[Any], gym.Env], settings: Any) -> VectorEnv:
    """One environment in this process, as a vector environment of one copy."""
    return SyncVectorEnv([EnvFactory(env_class, settings)], autoreset_mode=AutoresetMode.DISABLED)


def in_workers(env_class: Callable[[Any], gym.Env], settings: Any, n: int) -> VectorEnv:
    """``n`` environments, each in a process of its own.

    Spawned, not forked: a fork of a process that runs torch or JAX threads may deadlock.
    """
    return AsyncVectorEnv(
        [EnvFactory(env_class, settings)] * n,
        shared_memory=True,
        context="spawn",
        autoreset_mode=AutoresetMode.DISABLED,
    )
