"""Environments in worker processes that may crash, hang or die without taking the run with them."""

import atexit
import contextlib
import errno
import multiprocessing
import os
import resource
import signal
import sys
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

from shoal.envs.guarded import GuardedEnv, guarded
from shoal.envs.private_random import PrivateRandomness
from shoal.envs.reading import number_in
from shoal.envs.team import EPISODE_FAILED
from shoal.runners.supervised import (
    Outcome,
    SupervisedVectorEnv,
    WorkerLostError,
    close_here,
    details_of,
    environment_code,
    in_words,
    log,
)
from shoal.utils.errors import UserError
from shoal.utils.guardian import Guardian
from shoal.utils.signals import STOP_SIGNALS, end_with, signal_name
from shoal.utils.streams import lasting_output

_SPARE_FILES = 32
"""What a run opens besides its environments' pipes: records, checkpoints, libraries."""


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
            info = _numbers(info)
            self._last = (observation, 0.0, terminated, truncated, {})
        return observation, float(reward), terminated, truncated, info


def _numbers(info: Mapping[Any, Any]) -> dict[str, float]:
    """The numbers of an info. A key that begins with ``_`` is private: gymnasium keeps its masks under such names."""
    numbers = {str(key): number_in(value) for key, value in info.items()}
    return {key: float(number) for key, number in numbers.items() if number is not None and key[:1] != "_"}


class EnvFactory:
    """Builds one environment, in this process or in a worker (picklable, so that workers can be spawned)."""

    def __init__(self, env_class: Callable[[Any], gym.Env], settings: Any, seed: int = 0) -> None:
        self.env_class, self.settings, self.seed = env_class, settings, seed

    def __call__(self) -> gym.Env:
        return HoldAtEnd(guarded(self.env_class, self.settings, self.seed))


def in_process(env_class: Callable[[Any], gym.Env], settings: Any, seed: int = 0) -> VectorEnv:
    """One environment in this process, as a vector environment of one copy."""
    with environment_code(_NOT_BUILT):
        return SyncVectorEnv([EnvFactory(env_class, settings, seed)], autoreset_mode=AutoresetMode.DISABLED)


_NOT_BUILT = "The environment could not be built"


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    episodes: int = 0
    ready: bool = False
    """Whether its environment stands: the next episode starts without building or launching anything."""

    def end(self, patience_s: float = 0.0) -> None:
        """End the process and its group, asking first where there is time."""
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


class WorkerVectorEnv(SupervisedVectorEnv):
    """Copies of an environment, each in a process group of its own, over shared memory: a worker is one copy.

    Args:
        env_class: called with ``settings`` in each worker, and once here to learn the spaces.
        settings: picklable.
        n: copies.
        step_timeout_s: seconds that a step may take, and the start of an episode in a copy that stands.
        start_timeout_s: seconds that building a copy, or launching its game again, and starting an episode may take.
        restart_every: episodes after which a copy gets a new process; 0 keeps it.
        seed: of what building a copy draws from global random streams.
    """

    def __init__(
        self,
        env_class: Callable[[Any], gym.Env],
        settings: Any,
        n: int,
        step_timeout_s: float = 120.0,
        start_timeout_s: float = 600.0,
        restart_every: int = 0,
        seed: int = 0,
    ) -> None:
        self._build = (env_class, settings, seed)
        self._step_timeout_s, self._start_timeout_s = step_timeout_s, start_timeout_s
        self._restart_every = restart_every
        with environment_code(_NOT_BUILT):
            example = guarded(env_class, settings, seed)
            try:
                self._describe(
                    n,
                    example.observation_space,
                    example.action_space,
                    int(example.episode_limit),
                    *(
                        example.get_wrapper_attr(name) if example.has_wrapper_attr(name) else {}
                        for name in ("action_classes", "entry_names")
                    ),
                )
            finally:
                close_here(example)
        self._workers: list[_Worker] = []
        self._guardian: Guardian | None = None
        self.process_id = os.getpid()
        _open.add(self)
        # Spawned, not forked: a fork of a process that runs torch or JAX threads may deadlock.
        self._context = multiprocessing.get_context("spawn")
        try:
            self._guardian = Guardian()
            self._shared = create_shared_memory(self.single_observation_space, n, ctx=self._context)
            self._observations = read_from_shared_memory(self.single_observation_space, self._shared, n)  # type: ignore[assignment]
            for i in range(n):
                self._workers.append(self._start(i))
            _check_spare_files()
        except OSError as error:
            self.close_extras()
            raise UserError(_cannot_start(n, error)) from error
        except BaseException:
            self.close_extras()
            raise

    def _start(self, index: int) -> _Worker:
        assert self._guardian is not None
        with self._guardian.marking(str(index)):
            return self._start_process(index)

    def _start_process(self, index: int) -> _Worker:
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

    def _restart(self, worker: int, patience_s: float = 0.0) -> None:
        assert self._guardian is not None
        self._workers[worker].end(patience_s)
        self._guardian.end(str(worker))
        try:
            self._workers[worker] = self._start(worker)
        except OSError as error:
            raise UserError(_cannot_start(self.num_envs, error)) from error

    def _send(self, worker: int, request: Any) -> Connection:
        pipe = self._workers[worker].pipe
        with contextlib.suppress(OSError):  # it died; what it had to say, or that it is gone, is read later
            pipe.send(request)
        return pipe

    def _ready(self, handles: list[Any], timeout_s: float) -> Iterable[Any]:
        return wait(handles, timeout_s)

    def _receive(self, worker: int, handle: Any) -> tuple[str, Any]:
        try:
            kind, answer = handle.recv()
        except (EOFError, OSError):
            raise WorkerLostError(f"its process died{self._how_it_ended(worker)}") from None
        return kind, answer

    def _how_it_ended(self, worker: int) -> str:
        process = self._workers[worker].process
        process.join(1.0)
        status = process.exitcode
        if status is None:
            return ""
        return f" ({signal_name(-status)})" if status < 0 else f" (exit status {status})"

    def _start_episodes(self, seeds: dict[int, int | None], options: dict[str, Any]) -> Collection[int]:
        for i in seeds:
            worker = self._workers[i]
            if self._restart_every and worker.episodes >= self._restart_every:
                self._restart(i, patience_s=5.0)
            self._workers[i].episodes += 1
        patience = {i: self._step_timeout_s if self._workers[i].ready else self._start_timeout_s for i in seeds}
        started = self._ask({i: ("reset", (seed, options)) for i, seed in seeds.items()}, patience)
        for i in seeds:
            self._workers[i].ready = i in started
        return started

    def _play(self, copies: Sequence[int], actions: Any) -> dict[int, Outcome]:
        outcomes: dict[int, Outcome] = self._ask(
            {i: ("step", actions[i]) for i in copies}, dict.fromkeys(copies, self._step_timeout_s)
        )
        for i, (_, terminated, truncated, info) in outcomes.items():
            if (terminated or truncated) and info.get(EPISODE_FAILED):
                log.warning(f"Environment {i} could not finish its episode: it is replaced by another one.")
                self._workers[i].ready = False  # it may have to launch its game again
        return outcomes

    def _call(self, index: int, name: str) -> tuple[Any] | None:
        answers = self._ask({index: ("call", name)}, {index: self._step_timeout_s})
        if index not in answers:
            return None
        answer, why = answers[index]
        if why:
            raise UserError(f"The environment could not {name.replace('_', ' ')}: {why}.")
        return (answer,)

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
        if self._guardian is not None:
            self._guardian.close()
            self._guardian = None


_open: weakref.WeakSet[WorkerVectorEnv] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """For a program that forgets it: multiprocessing would wait for ever for workers that leave SIGTERM to us."""
    for env in list(_open):
        if env.process_id == os.getpid():  # not in a fork
            env.close_extras()


def _check_spare_files() -> None:
    """Open as many files as a run needs besides its workers, and close them again.

    Raises:
        OSError: there are too few.
    """
    opened: list[int] = []
    try:
        while len(opened) < _SPARE_FILES:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for file in opened:
            os.close(file)


def _cannot_start(n: int, error: OSError) -> str:
    """What to do about it, in a sentence."""
    fewer = "run fewer side by side (batch_size_run)"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            f"{n} environment processes need more open files than the {soft} that are allowed here: {fewer}, or raise "
            f"the limit (ulimit -n, up to {hard if hard != resource.RLIM_INFINITY else 'any number'})."
        )
    if error.errno == errno.EAGAIN:
        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        return (
            f"{n} environment processes are more than can be started here ({error.strerror}; ulimit -u is {soft}): "
            f"{fewer}, or raise the limit."
        )
    return f"{n} environment processes could not be started ({error.strerror or error}): {fewer}, or free some room."


def side_by_side(
    env_class: Any,
    settings: Any,
    n: int,
    step_timeout_s: float,
    start_timeout_s: float,
    restart_every: int,
    seed: int = 0,
) -> VectorEnv:
    """``n`` copies on this machine: the suite's own vectorised step where it has one, else worker processes."""
    if hasattr(env_class, "make_vector"):
        vector: VectorEnv = env_class.make_vector(settings, n)
        return vector
    return WorkerVectorEnv(env_class, settings, n, step_timeout_s, start_timeout_s, restart_every, seed)


def _answer(env: GuardedEnv, name: str) -> tuple[Any, str]:
    """What a method returns, and what went wrong: whoever cannot be drawn still plays."""
    try:
        return env.ask(name), ""
    except Exception as error:
        return None, in_words(error)


def _serve(index: int, build: Any, pipe: Connection, shared: Any, space: gym.Space, trainer: int) -> None:
    """A worker's life: build the environment, do what it is asked, tell what went wrong."""
    _become_worker(trainer)
    with lasting_output():
        env = None
        try:
            PrivateRandomness.alone = True
            env = guarded(*build)
            while (request := _hear(pipe)) is not None:
                _say(pipe, ("done", _carry_out(env, *request, index, shared, space)))
        except UserError as error:
            _say(pipe, ("unusable", str(error)))
        except BaseException as error:  # sys.exit, too, was called in the environment
            _say(pipe, ("error", (in_words(error), details_of(error))))
        finally:
            if env is not None:
                _close(env, index)


def _hear(pipe: Connection) -> tuple[str, Any] | None:
    """What the trainer asks for; None where it wants nothing more, or is gone."""
    try:
        command, argument = pipe.recv()
    except (EOFError, OSError):
        return None
    return None if command == "close" else (command, argument)


def _say(pipe: Connection, answer: tuple[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the trainer is gone, or has given this worker up
        pipe.send(answer)


def _carry_out(env: GuardedEnv, command: str, argument: Any, index: int, shared: Any, space: gym.Space) -> Any:
    if command == "reset":
        seed, options = argument
        observation, _ = env.reset(seed=seed, options=options)
        write_to_shared_memory(space, index, observation, shared)
        return None
    if command == "step":
        observation, reward, terminated, truncated, info = env.step(argument)
        write_to_shared_memory(space, index, observation, shared)
        return float(reward), bool(terminated), bool(truncated), _numbers(info)
    return _answer(env, argument)


def _close(env: gym.Env, index: int) -> None:
    try:
        env.close()
    except BaseException as error:  # nothing waits for this worker any more
        print(f"warning: environment {index} failed when it was closed: {in_words(error)}", file=sys.stderr)


def _become_worker(trainer: int) -> None:
    """Lead a process group of its own, which ends as one; leave stop signals to the trainer, and do not outlive it.

    Stop signals are not ignored, which a game would inherit, but handled in vain; what the environment forks takes them
    as ever.
    """
    os.setpgid(0, 0)

    def leave_to_trainer(signum: int, frame: FrameType | None) -> None:
        pass

    def as_ever() -> None:
        for signum in STOP_SIGNALS:
            if signal.getsignal(signum) is leave_to_trainer:
                signal.signal(signum, signal.SIG_DFL)
        hear()

    def hear() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    for signum in STOP_SIGNALS:
        signal.signal(signum, leave_to_trainer)
    # Held back meanwhile: Python forgets what comes in before a forked process is itself.
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS),
        after_in_parent=hear,
        after_in_child=as_ever,
    )
    end_with(trainer, signal.SIGKILL)  # an environment that is stuck hears of nothing else
