"""What a Ray worker holds for runner=ray: some copies of an environment on its machine. Imports no torch."""

import logging
import pickle
import platform
import sys
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from shoal.runners.supervised import (
    EnvironmentsFailedError,
    SupervisedVectorEnv,
    action_classes_of,
    details_of,
    entry_names_of,
    episode_limit_of,
    in_words,
    log,
    numbers_of,
)
from shoal.runners.workers import side_by_side
from shoal.utils.errors import UserError


class Group:
    """Some copies on one machine, as the parallel runner would hold them there. Lives in a Ray worker.

    Args:
        build: what ``side_by_side`` is called with, pickled: only here is the environment's class looked up.
        places: where the trainer finds its modules.
    """

    def __init__(self, build: bytes, places: list[str]) -> None:
        self._build = build
        sys.path += [place for place in places if place not in sys.path]
        self._env: VectorEnv | None = None
        self._started = False
        self._warnings: list[str] = []
        log.addHandler(_Keeper(self._warnings))
        log.propagate = False
        # Environment processes would import the script of Ray's that they are spawned from.
        sys.modules["__main__"].__dict__.pop("__file__", None)

    def ask(self, command: str, *arguments: Any) -> tuple[str, Any, list[str], str]:
        """Carry out a request: kind and content of the answer, warnings to pass on, and what failed last."""
        self._warnings.clear()
        try:
            kind, answer = "done", getattr(self, f"_{command}")(*arguments)
        except EnvironmentsFailedError as error:  # elsewhere it may do better
            kind, answer = "error", (str(error).rstrip("."), details_of(error))
        except UserError as error:
            kind, answer = "unusable", str(error)
        except BaseException as error:
            kind, answer = "error", (in_words(error), details_of(error))
        return kind, answer, list(self._warnings), getattr(self._env, "last_failure", "")

    @property
    def env(self) -> VectorEnv:
        """The copies, built when first asked for."""
        if self._env is None:
            try:
                build = pickle.loads(self._build)
            except ImportError as error:
                raise UserError(
                    f"{error} on {platform.node()}: install what the run needs on every machine of the cluster."
                ) from error
            self._env = side_by_side(*build)
        return self._env

    def _describe(self) -> tuple[Any, ...]:
        env = self.env
        spaces = env.single_observation_space, env.single_action_space
        return *spaces, episode_limit_of(env), action_classes_of(env), entry_names_of(env)

    def _reset(self, seeds: dict[int, int | None], options: dict[str, Any]) -> Any:
        n = self.env.num_envs
        mask = np.zeros(n, dtype=bool)
        mask[list(seeds)] = True
        if not self._started:  # in the place of a worker that was lost: the other copies wait at their end for nothing
            mask[:] = True
        spare = next(iter(seeds.values()))
        # The first reset must be of all.
        seed: Any = [seeds.get(i, spare) if mask[i] else None for i in range(n)]
        observations, _ = self.env.reset(seed=seed, options={**options, "reset_mask": mask})
        self._started = True
        return observations

    def _step(self, actions: np.ndarray) -> Any:
        observations, reward, terminated, truncated, infos = self.env.step(actions)
        outcomes = [
            (float(reward[i]), bool(terminated[i]), bool(truncated[i]), numbers_of(infos, i))
            for i in range(self.env.num_envs)
        ]
        return observations, outcomes

    def _call(self, index: int, name: str) -> Any:
        if not isinstance(self.env, SupervisedVectorEnv):
            raise UserError(f"runner=ray cannot {name.replace('_', ' ')} here: use runner=episode.")
        return self.env.call_one(index, name)

    def close(self) -> None:
        """End the environments."""
        if self._env is not None:
            self._env.close()


class _Keeper(logging.Handler):
    """Keeps warnings for the process that can show them."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(record.getMessage())
