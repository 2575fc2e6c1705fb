"""Environments in worker processes that may crash, hang or die without taking the run with them."""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import (
    batch_space,
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

from shoal.envs.team import reset_mask
from shoal.utils.errors import EnvironmentCrashedError, UserError

log = logging.getLogger("shoal.runners")


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

    def __call__(self) -> gym.Env:
        return HoldAtEnd(self.env_class(self.settings))


def in_process(env_class: Callable[[Any], gym.Env], settings: Any) -> VectorEnv:
    """One environment in this process, as a vector environment of one copy."""
    return SyncVectorEnv([EnvFactory(env_class, settings)], autoreset_mode=AutoresetMode.DISABLED)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    episodes: int = 0
    ready: bool = False
    """Whether its environment stands: the next episode starts without building or launching anything."""

    def end(self, patience_s: float = 0.0) -> None:
        """End the process and all that it started, asking first where there is time."""
        if patience_s > 0:
            try:
                self.pipe.send(("close", None))
            except OSError:
                pass
            else:
                self.process.join(patience_s)
        self.pipe.close()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # its game outlives a worker that died
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.join()


class WorkerVectorEnv(VectorEnv):
    """Copies of an environment, each in a process group of its own, over shared memory.

    A copy that raises an exception, misses its deadline or whose process dies is ended with everything that it started,
    and replaced. What it was playing ends, truncated, with ``episode_failed`` = 1 in its info: the runner drops such
    an episode and plays another one, with another seed. A copy whose episode is over waits for its reset.

    Args:
        env_class: called with ``settings`` in each worker, and once here to learn the spaces.
        settings: picklable.
        n: copies.
        step_timeout_s: seconds that a step may take, and the start of an episode in a copy that stands.
        start_timeout_s: seconds that building a copy, or launching its game again, and starting an episode may take.
        restart_every: episodes after which a copy gets a new process; 0 keeps it.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 - gymnasium declares it so

    def __init__(
        self,
        env_class: Callable[[Any], gym.Env],
        settings: Any,
        n: int,
        step_timeout_s: float = 120.0,
        start_timeout_s: float = 600.0,
        restart_every: int = 0,
    ) -> None:
        self.num_envs = n
        self._build = (env_class, settings)
        self._step_timeout_s, self._start_timeout_s = step_timeout_s, start_timeout_s
        self._restart_every = restart_every
        example = env_class(settings)
        try:
            self.single_observation_space = example.observation_space
            self.single_action_space = example.action_space
            self.episode_limit = int(example.get_wrapper_attr("episode_limit"))
            self.action_classes = getattr(example, "action_classes", {})
        finally:
            example.close()
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        # Spawned, not forked: a fork of a process that runs torch or JAX threads may deadlock.
        self._context = multiprocessing.get_context("spawn")
        self._shared = create_shared_memory(self.single_observation_space, n, ctx=self._context)
        self._observations: Any = read_from_shared_memory(self.single_observation_space, self._shared, n)
        self._workers: list[_Worker] = []
        self._ends = np.ones((2, n), dtype=bool)  # terminated, truncated
        self._failed = np.zeros(n, dtype=bool)
        self.last_failure = ""
        """What went wrong the last time that a copy was replaced."""
        try:
            for i in range(n):
                self._workers.append(self._start(i))
        except BaseException:
            self.close_extras()
            raise

    def _start(self, index: int) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(index, self._build, there, self._shared, self.single_observation_space, os.getpid()),
            name=f"environment-{index}",
            daemon=True,
        )
        process.start()
        there.close()
        return _Worker(process, here)

    def _replace(self, index: int, why: str) -> None:
        log.warning(f"Environment {index} is restarted: {why}.")
        self.last_failure = why
        self._workers[index].end()
        self._workers[index] = self._start(index)

    def _ask(self, requests: dict[int, Any], patience_s: Mapping[int, float]) -> dict[int, Any]:
        """Send each copy its request; the answers of those that give one in time. The others are replaced.

        Raises:
            UserError: a copy says that it cannot be used at all; waiting or repeating would not help.
        """
        now = time.monotonic()
        deadlines = {i: now + patience_s[i] for i in requests}
        waiting: dict[Any, int] = {}
        answers: dict[int, Any] = {}
        for i, request in requests.items():
            waiting[self._workers[i].pipe] = i
            with contextlib.suppress(OSError):  # it died; what it had to say, or that it is gone, is read below
                self._workers[i].pipe.send(request)
        while waiting:
            now = time.monotonic()
            for pipe in wait(list(waiting), max(0.0, min(deadlines[i] for i in waiting.values()) - now)):
                i = waiting.pop(pipe)
                try:
                    kind, answer = self._workers[i].pipe.recv()
                except (EOFError, OSError):
                    self._replace(i, "its process died")
                    continue
                if kind == "unusable":
                    raise UserError(answer)
                if kind == "error":
                    why, details = answer
                    if details != why != self.last_failure:  # once is enough for one that fails again and again
                        log.warning(details)
                    self._replace(i, why)
                    continue
                answers[i] = answer
            now = time.monotonic()
            for pipe, i in list(waiting.items()):
                if deadlines[i] <= now:
                    del waiting[pipe]
                    self._replace(i, f"it did not answer within {patience_s[i]:g} seconds")
        return answers

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in the copies of ``options["reset_mask"]`` (all, without one) -> observations, no info.

        A copy that cannot start one is over at the next step, as failed.
        """
        options = dict(options or {})
        mask = reset_mask(options, self.num_envs)
        options.pop("reset_mask", None)
        seeds = list(seed) if isinstance(seed, Sequence) else [seed] * self.num_envs
        chosen = np.flatnonzero(mask).tolist()
        for i in chosen:
            worker = self._workers[i]
            if self._restart_every and worker.episodes >= self._restart_every:
                worker.end(patience_s=5.0)
                self._workers[i] = self._start(i)
            self._workers[i].episodes += 1
        patience = {i: self._step_timeout_s if self._workers[i].ready else self._start_timeout_s for i in chosen}
        answers = self._ask({i: ("reset", (seeds[i], options)) for i in chosen}, patience)
        for i in chosen:
            self._ends[:, i] = False
            self._failed[i] = i not in answers
            self._workers[i].ready = i in answers
        return self._look(), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the copies whose episode goes on; the others stay at their end, with reward 0."""
        reward = np.zeros(self.num_envs)
        ongoing = ~self._ends.any(0)
        playing = np.flatnonzero(ongoing & ~self._failed).tolist()
        answers = self._ask({i: ("step", actions[i]) for i in playing}, dict.fromkeys(playing, self._step_timeout_s))
        infos: dict[str, Any] = {}
        for i, (paid, terminated, truncated, info) in answers.items():
            reward[i] = paid
            self._ends[:, i] = terminated, truncated
            if terminated or truncated:
                if info.get("episode_failed"):
                    log.warning(f"Environment {i} could not finish its episode: another one takes its place.")
                    self._workers[i].ready = False  # it may have to launch its game again
                for key, value in info.items():
                    self._tell(infos, i, key, value)
        for i in np.flatnonzero(ongoing).tolist():
            if i not in answers:
                self._ends[1, i] = True
                self._tell(infos, i, "episode_failed", 1.0)
        self._failed[:] = False
        terminations, truncations = self._ends.copy()
        return self._look(), reward, terminations, truncations, infos

    def _tell(self, infos: dict[str, Any], index: int, key: str, value: float) -> None:
        infos.setdefault(key, np.zeros(self.num_envs))[index] = value
        infos.setdefault(f"_{key}", np.zeros(self.num_envs, dtype=bool))[index] = True

    def _look(self) -> Any:
        """What the copies see. Every action of one without an episode counts as available: it is not played."""
        observations = {key: values.copy() for key, values in self._observations.items()}
        if "avail_actions" in observations:
            observations["avail_actions"][self._failed] = 1
        return observations

    def call_one(self, index: int, name: str) -> Any:
        """Call a method of one copy's environment.

        Raises:
            UserError: the environment failed to answer.
        """
        answers = self._ask({index: ("call", name)}, {index: self._step_timeout_s})
        if index not in answers:
            raise UserError(f"The environment could not {name.replace('_', ' ')}: {self.last_failure}.")
        return answers[index]

    def close_extras(self, **kwargs: Any) -> None:
        """End all processes, without waiting long for a step under way."""
        for worker in self._workers:
            try:
                worker.pipe.send(("close", None))
            except OSError:
                continue
        deadline = time.monotonic() + 2.0
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.end()
        self._workers = []


def _serve(index: int, build: Any, pipe: Connection, shared: Any, space: gym.Space, trainer: int) -> None:
    """A worker's life: build the environment, do what it is asked, tell what went wrong."""
    _become_worker(trainer)
    env = None
    try:
        env_class, settings = build
        env = env_class(settings)
        while True:
            command, argument = pipe.recv()
            if command == "close":
                break
            answer: Any = None
            if command == "reset":
                seed, options = argument
                observation, _ = env.reset(seed=seed, options=options)
                write_to_shared_memory(space, index, observation, shared)
            elif command == "step":
                observation, reward, terminated, truncated, info = env.step(argument)
                write_to_shared_memory(space, index, observation, shared)
                numbers = {key: float(value) for key, value in info.items() if _is_number(value)}
                answer = (float(reward), bool(terminated), bool(truncated), numbers)
            else:
                answer = getattr(env, argument)()
            pipe.send(("done", answer))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        pass  # the trainer is gone, or has given this worker up
    except UserError as error:
        pipe.send(("unusable", str(error)))
    except EnvironmentCrashedError as error:
        pipe.send(("error", (str(error), str(error))))
    except Exception as error:
        pipe.send(("error", (f"{type(error).__name__}: {error}".strip(), traceback.format_exc())))
    finally:
        if env is not None:
            env.close()


def _become_worker(trainer: int) -> None:
    """Lead a process group of its own, which ends as one; leave Ctrl-C to the trainer, and do not outlive it."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != trainer:  # the trainer died before the request took effect
            os._exit(1)
