"""Environments on other machines: groups of copies in Ray's workers, supervised as worker processes here are."""

from __future__ import annotations

import contextlib
import math
import pickle
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import create_empty_array

from shoal.declare import Range, Role
from shoal.runners.ray_group import Group
from shoal.runners.runner import ParallelRunnerSettings, Runner
from shoal.runners.supervised import Outcome, SupervisedVectorEnv, WorkerLostError, log
from shoal.utils import cluster
from shoal.utils.errors import UserError

_MARGIN_S = 60.0  # over an environment's own deadline, which the worker watches, for the way there and back
_STARTS = 2


@dataclass(frozen=True)
class RayRunnerSettings(ParallelRunnerSettings):
    ray_address: Annotated[
        str,
        "Ray cluster that runs the environments: HOST:PORT, or auto on one of its machines; empty: start Ray here",
        Role.HARDWARE,
    ] = ""
    ray_envs_per_worker: Annotated[
        int, "environments per Ray worker (each worker is on one machine)", Range(1), Role.HARDWARE
    ] = 4
    ray_cpus_per_env: Annotated[float, "CPUs that Ray reserves for each environment", Range(above=0), Role.HARDWARE] = (
        1.0
    )


class RayVectorEnv(SupervisedVectorEnv):
    """Copies of an environment in groups, each in a Ray worker on some machine of a cluster.

    A group's own machine watches over its copies (`WorkerVectorEnv`). From here, its Ray worker is watched: one that
    is lost with its machine, killed or silent is replaced, wherever there is room, and the episodes of its copies fail.

    Args:
        ray: the module, connected.
        env_class: class of the environment, picklable; it is imported on the other machines.
        settings: of the environment, picklable.
        n: copies.
        s: timeouts, and how many copies and CPUs a group has.
    """

    _worker_name = "Ray worker"

    def __init__(self, ray: Any, env_class: Any, settings: Any, n: int, s: RayRunnerSettings, seed: int = 0) -> None:
        self._ray = ray
        size = s.ray_envs_per_worker
        self._groups = [list(range(first, min(first + size, n))) for first in range(0, n, size)]
        self._group_of = {i: g for g, copies in enumerate(self._groups) for i in copies}
        self._build = (env_class, settings)
        self._seed = seed
        self._settings = s
        self._actor_class = ray.remote(Group)
        self._actors: dict[int, Any] = {}
        self._failed = np.zeros(n, dtype=bool)
        try:
            for g in range(len(self._groups)):
                self._start(g)
            for _ in range(_STARTS):
                described = self._ask_groups(dict.fromkeys(self._actors, ("describe",)), s.env_start_timeout_s)
                if described:
                    break
            else:
                raise UserError(f"No environment could be built through Ray: {self.last_failure}.")
            observation_space, *rest = next(iter(described.values()))
            self._describe(n, observation_space, *rest)
            self._observations = create_empty_array(observation_space, n)  # type: ignore[assignment]
        except BaseException:
            self.close_extras()
            raise

    def _start(self, group: int) -> None:
        s, k = self._settings, len(self._groups[group])
        build = pickle.dumps((*self._build, k, s.env_timeout_s, s.env_start_timeout_s, s.env_restart_every, self._seed))
        self._actors[group] = self._actor_class.options(
            num_cpus=_whole(k * s.ray_cpus_per_env), scheduling_strategy="SPREAD", max_restarts=0
        ).remote(build, sys.path)

    def _restart(self, worker: int) -> None:
        self._ray.kill(self._actors[worker])
        self._failed[self._groups[worker]] = True
        self._start(worker)

    def _send(self, worker: int, request: Any) -> Any:
        return self._actors[worker].ask.remote(*request)

    def _ready(self, handles: list[Any], timeout_s: float) -> Iterable[Any]:
        return self._ray.wait(handles, num_returns=1, timeout=timeout_s)[0]

    def _receive(self, worker: int, handle: Any) -> tuple[str, Any]:
        try:
            kind, answer, warnings, failure = self._ray.get(handle)
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise WorkerLostError(f"it was lost ({(lines or [type(error).__name__])[-1].rstrip('.')})") from None
        for warning in warnings:
            log.warning(f"{self._worker_name} {worker}: {warning}")
        self.last_failure = failure or self.last_failure
        return kind, answer

    def _ask_groups(self, requests: dict[int, Any], patience_s: float) -> dict[int, Any]:
        return self._ask(requests, dict.fromkeys(requests, patience_s + _MARGIN_S))

    def _in_groups(self, copies: Iterable[int]) -> dict[int, list[int]]:
        grouped: dict[int, list[int]] = {}
        for i in copies:
            grouped.setdefault(self._group_of[i], []).append(i)
        return grouped

    def _see(self, group: int, observations: dict[str, np.ndarray]) -> None:
        for key, values in observations.items():
            self._observations[key][self._groups[group]] = values

    def _start_episodes(self, seeds: dict[int, int | None], options: dict[str, Any]) -> Collection[int]:
        grouped = self._in_groups(seeds)
        requests = {
            g: ("reset", {i - self._groups[g][0]: seeds[i] for i in copies}, options) for g, copies in grouped.items()
        }
        answers = self._ask_groups(requests, self._settings.env_start_timeout_s)
        for g, observations in answers.items():
            self._see(g, observations)
        return {i for g in answers for i in grouped[g]}

    def _play(self, copies: Sequence[int], actions: Any) -> dict[int, Outcome]:
        grouped = self._in_groups(copies)
        answers = self._ask_groups(
            {g: ("step", actions[self._groups[g]]) for g in grouped}, self._settings.env_timeout_s
        )
        outcomes: dict[int, Outcome] = {}
        for g, (observations, happened) in answers.items():
            self._see(g, observations)
            outcomes |= {i: happened[i - self._groups[g][0]] for i in grouped[g]}
        return outcomes

    def _call(self, index: int, name: str) -> tuple[Any] | None:
        g = self._group_of[index]
        answers = self._ask_groups({g: ("call", index - self._groups[g][0], name)}, self._settings.env_timeout_s)
        return (answers[g],) if g in answers else None

    def close_extras(self, **kwargs: Any) -> None:
        """End all workers, without waiting long for a step under way."""
        closing = [actor.close.remote() for actor in self._actors.values()]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=5.0)
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors = {}


def _placed(needs: Sequence[float], machines: Sequence[float]) -> int:
    """How many workers find room, the largest first, each on the machine that has most CPUs left."""
    left, placed = list(machines), 0
    for need in sorted(needs, reverse=True):
        roomiest = max(range(len(left)), key=left.__getitem__, default=None)
        if roomiest is not None and left[roomiest] >= need - 1e-9:
            left[roomiest] -= need
            placed += 1
    return placed


def _whole(cpus: float) -> float:
    """Ray takes fractions below 1 and whole numbers above."""
    return cpus if cpus <= 1 else float(math.ceil(cpus - 1e-9))


class RayRunner(Runner):
    """batch_size_run environments side by side, on the machines of a Ray cluster."""

    Settings = RayRunnerSettings
    settings: RayRunnerSettings

    def make_env(self, env_class: Any, env_settings: Any) -> VectorEnv:
        s = self.settings
        self._stack = contextlib.ExitStack()
        cpus = [
            _whole(min(s.ray_envs_per_worker, s.batch_size_run - first) * s.ray_cpus_per_env)
            for first in range(0, s.batch_size_run, s.ray_envs_per_worker)
        ]
        # Ray that is started here for this run alone counts with as many CPUs as it needs.
        ray = self._stack.enter_context(cluster.joined(s.ray_address or cluster.HERE, sum(cpus)))
        try:
            room = _placed(cpus, [machine.cpus for machine in cluster.machines(ray)])
            if room < len(cpus):
                raise UserError(
                    f"runner=ray wants {len(cpus)} workers of up to {cpus[0]:g} CPUs, and the machines of the Ray "
                    f"cluster hold {room}: lower batch_size_run, ray_envs_per_worker or ray_cpus_per_env."
                )
            return RayVectorEnv(ray, env_class, env_settings, s.batch_size_run, s, self.seed)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """End the environments and leave the cluster."""
        try:
            super().close()
        finally:
            self._stack.close()
