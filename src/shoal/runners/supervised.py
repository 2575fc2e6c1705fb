"""What vector environments whose copies live elsewhere share: asking, waiting, replacing, and whose episode is on."""

import abc
import logging
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from shoal.envs.reading import number_in
from shoal.envs.team import EPISODE_FAILED, reset_mask
from shoal.utils.errors import EnvironmentCrashedError, UserError
from shoal.utils.signals import Interrupted, StopNow, time_limit

log = logging.getLogger("shoal.runners")

Outcome: TypeAlias = tuple[float, bool, bool, dict[str, float]]
"""What a step brought to one copy: reward, terminated, truncated, and the numbers of its info."""


STOP_PATIENCE_S = 2.0
"""How long an answer may take once the run was asked to stop: what kills it next waits half a minute or so."""
CLOSE_PATIENCE_S = 30.0
"""How long an environment in this process may take to close."""
_LOOK_S = 0.25  # how soon a request to stop is seen
_MOST_WORDS, _MOST_DETAILS = 300, 20_000  # characters of an exception's message, and of its traceback


class WorkerLostError(Exception):
    """A worker will not answer any more; the message says what became of it."""


class EnvironmentsFailedError(UserError):
    """An environment that fails again and again, or in this process; the run saves a checkpoint before it ends."""


class RolloutAbandonedError(BaseException):
    """The run was asked to stop, and an environment did not answer soon or failed: the rollout is not waited for.

    Not an ``Exception``: it may come up inside an environment, which must not catch it.
    """


def in_words(error: BaseException) -> str:
    """An exception of an environment in one line of bounded length, without a full stop.

    Those of Shoal are sentences already.
    """
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else error.code!r})"
    try:
        message = " ".join(str(error).split()).rstrip(".")
    except Exception:  # it cannot even be printed
        message = ""
    if len(message) > _MOST_WORDS:
        message = f"{message[:_MOST_WORDS]}..."
    if isinstance(error, UserError | EnvironmentCrashedError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def details_of(error: BaseException) -> str:
    """The traceback, for whoever wrote the environment; what is too long is left out of the middle."""
    if isinstance(error, EnvironmentCrashedError):
        return in_words(error)
    text = "".join(traceback.format_exception(error))
    if len(text) > _MOST_DETAILS:
        half = _MOST_DETAILS // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    return text.rstrip()


@contextmanager
def environment_code(failed: str) -> Iterator[None]:
    """For calls of an environment in this process: whatever it raises, ``sys.exit`` too, is said in a sentence that
    begins with ``failed``. ``sys.stdout`` and ``sys.stderr`` are afterwards what they were.

    Raises:
        EnvironmentsFailedError: it raised something.
        UserError: it said itself what is wrong.
    """
    global _entered
    out, err = sys.stdout, sys.stderr
    _entered = time.monotonic()
    try:
        yield
    except (UserError, Interrupted, StopNow, RolloutAbandonedError):
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            raise  # Ctrl-C
        log.warning(details_of(error))
        raise EnvironmentsFailedError(f"{failed}: {in_words(error)}.") from error
    finally:
        _entered = None
        sys.stdout, sys.stderr = out, err


def close_here(env: gym.Env | VectorEnv) -> None:
    """Close an environment in this process. One that cannot be closed costs a warning: what it was for is done."""
    try:
        with environment_code("Being closed, the environment failed"), time_limit(CLOSE_PATIENCE_S):
            env.close()
    except UserError as error:
        log.warning(str(error))


_entered: float | None = None
"""Since when an environment is at work in this process."""


def abandon_what_hangs() -> None:
    """For a run that was asked to stop: leave an environment in this process that has been at work for too long.

    Raises:
        RolloutAbandonedError: it has.
    """
    if _entered is not None and time.monotonic() - _entered > STOP_PATIENCE_S:
        raise RolloutAbandonedError("it did not answer")


class SupervisedVectorEnv(VectorEnv, abc.ABC):
    """Copies of an environment in workers that may crash, hang or die without taking the run with them.

    A worker that reports an exception, misses its deadline or dies is replaced. What its copies were playing ends,
    truncated, with ``EPISODE_FAILED`` = 1 in their info: the runner drops such an episode and plays another one, with
    another seed. A copy whose episode is over waits for its reset.

    A subclass sets the spaces (``_describe``) and ``_observations``: what the copies see, name -> [n, ...].
    It says how a worker is asked and replaced, and how its copies start and step.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 - gymnasium declares it so
    _observations: Mapping[str, np.ndarray]

    def _describe(
        self,
        n: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        episode_limit: int,
        action_classes: Mapping[str, Sequence[int]],
        entry_names: Mapping[str, Sequence[str]],
    ) -> None:
        """Take over what one copy's environment says of itself."""
        self.num_envs = n
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, n)
        self.action_space = batch_space(action_space, n)
        self.episode_limit = episode_limit
        self.action_classes = action_classes
        self.entry_names = entry_names
        self._ends = np.ones((2, n), dtype=bool)  # terminated, truncated
        self._failed = np.zeros(n, dtype=bool)

    _worker_name = "Environment"
    last_failure = ""
    """What went wrong the last time that a worker was replaced."""
    stopping: Callable[[], object] = staticmethod(bool)
    """Whether the run was asked to stop: then no answer is waited for longer than ``STOP_PATIENCE_S``."""

    @abc.abstractmethod
    def _send(self, worker: int, request: Any) -> Hashable:
        """Ask a worker, dead or alive, for something. Returns what ``_ready`` and ``_receive`` know the answer by."""

    @abc.abstractmethod
    def _ready(self, handles: list[Any], timeout_s: float) -> Iterable[Any]:
        """Those of the answers that are there, after waiting for the first."""

    @abc.abstractmethod
    def _receive(self, worker: int, handle: Any) -> tuple[str, Any]:
        """An answer that is there: ("done", result), ("unusable", sentence) or ("error", (why, details)).

        Raises:
            WorkerLostError: there will be none.
        """

    @abc.abstractmethod
    def _restart(self, worker: int) -> None:
        """End a worker with all that it started, and put a new one in its place."""

    @abc.abstractmethod
    def _start_episodes(self, seeds: dict[int, int | None], options: dict[str, Any]) -> Collection[int]:
        """Start an episode in the copies that ``seeds`` names. Returns those that could."""

    @abc.abstractmethod
    def _play(self, copies: Sequence[int], actions: Any) -> dict[int, Outcome]:
        """Step ``copies`` (``actions`` has a row for all). A copy without an outcome has failed."""

    def _replace(self, worker: int, why: str) -> None:
        if self.stopping():
            raise RolloutAbandonedError(why)
        log.warning(f"{self._worker_name} {worker} is restarted: {why}.")
        self.last_failure = why
        self._restart(worker)

    def _ask(self, requests: Mapping[int, Any], patience_s: Mapping[int, float]) -> dict[int, Any]:
        """Send each worker its request; the answers of those that give one in time. The others are replaced.

        Raises:
            UserError: a worker says that its environment cannot be used at all; repeating would not help.
            RolloutAbandonedError: the run was asked to stop, and one of them does not answer soon.
        """
        now = time.monotonic()
        deadlines = {i: now + patience_s[i] for i in requests}
        waiting = {self._send(i, request): i for i, request in requests.items()}
        answers: dict[int, Any] = {}
        in_a_hurry = False
        while waiting:
            now = time.monotonic()
            if self.stopping() and not in_a_hurry:
                in_a_hurry = True
                deadlines = {i: min(deadline, now + STOP_PATIENCE_S) for i, deadline in deadlines.items()}
            left = min(deadlines[i] for i in waiting.values()) - now
            for handle in self._ready(list(waiting), min(max(0.0, left), _LOOK_S)):
                i = waiting.pop(handle)
                try:
                    kind, answer = self._receive(i, handle)
                except WorkerLostError as error:
                    self._replace(i, str(error))
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
            for handle, i in list(waiting.items()):
                if deadlines[i] <= now:
                    del waiting[handle]
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
        started = self._start_episodes({i: seeds[i] for i in chosen}, options)
        for i in chosen:
            self._ends[:, i] = False
            self._failed[i] = i not in started
        return self._look(), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the copies whose episode continues; the others stay at their end, with reward 0."""
        reward = np.zeros(self.num_envs)
        ongoing = ~self._ends.any(0)
        outcomes = self._play(np.flatnonzero(ongoing & ~self._failed).tolist(), actions)
        infos: dict[str, Any] = {}
        for i, (paid, terminated, truncated, info) in outcomes.items():
            reward[i] = paid
            self._ends[:, i] = terminated, truncated
            if terminated or truncated:
                for key, value in info.items():
                    self._tell(infos, i, key, value)
        for i in np.flatnonzero(ongoing).tolist():
            if i not in outcomes:
                self._ends[1, i] = True
                self._tell(infos, i, EPISODE_FAILED, 1.0)
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
        answer = self._call(index, name)
        if answer is None:
            raise UserError(f"The environment could not {name.replace('_', ' ')}: {self.last_failure}.")
        return answer[0]

    @abc.abstractmethod
    def _call(self, index: int, name: str) -> tuple[Any] | None:
        """What a method of one copy's environment returns; None if it failed."""


def numbers_of(infos: Mapping[str, Any], index: int) -> dict[str, float]:
    """One copy's numbers in gymnasium's vector infos."""
    numbers = {
        key: number_in(values[index])
        for key, values in infos.items()
        if not key.startswith("_")
        and np.ndim(values) == 1
        and bool(infos.get(f"_{key}", np.ones(len(values), bool))[index])
    }
    return {key: float(number) for key, number in numbers.items() if number is not None}


def episode_limit_of(env: VectorEnv) -> int:
    """Most steps of an episode."""
    if isinstance(env, SyncVectorEnv):
        return int(env.get_attr("episode_limit")[0])
    return int(env.episode_limit)  # type: ignore[attr-defined]


def action_classes_of(env: VectorEnv) -> Mapping[str, Sequence[int]]:
    """The kinds of action that the environment declares; nothing where it declares none."""
    declared: Mapping[str, Sequence[int]] = _declared(env, "action_classes")
    return declared


def entry_names_of(env: VectorEnv) -> Mapping[str, Sequence[str]]:
    """What the environment calls the entries of ``obs`` and ``state``; nothing where it has no names for them.

    An attribute of that name that is not made so, lists of text for ``obs`` or ``state``, is another thing: many an
    environment is written without knowing of this one.

    Raises:
        UserError: there are more or fewer names than entries.
    """
    declared = _declared(env, "entry_names")
    if not isinstance(declared, Mapping) or not all(
        key in ("obs", "state") and isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        for key, names in declared.items()
    ):
        return {}
    for key, names in declared.items():
        space = env.single_observation_space
        known = isinstance(space, gym.spaces.Dict) and key in space.spaces and space[key].shape
        if not known or len(names) != known[-1]:
            raise UserError(
                f"The environment's entry_names must hold a name for every entry of obs or state, but {key!r} has "
                f"{known[-1] if known else 'no'} entries and {len(names)} names: correct the list."
            )
    return declared


def _declared(env: VectorEnv, name: str) -> Any:
    if isinstance(env, SyncVectorEnv):
        return env.get_attr(name)[0] if all(env.call("has_wrapper_attr", name)) else {}
    return getattr(env, name, {})
