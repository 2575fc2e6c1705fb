"""Collects whole episodes from a vector environment."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from tensordict import TensorDict

from shoal.components.batch import EpisodeBatch, Scheme, make_scheme
from shoal.components.diagnostics import executed_shares
from shoal.components.spec import TeamSpec
from shoal.controllers.controller import Controller
from shoal.declare import Checked, Range, Role
from shoal.envs.reading import NO_ACTION
from shoal.envs.team import EPISODE_FAILED
from shoal.recording import metric_names
from shoal.runners.supervised import (
    EnvironmentsFailedError,
    SupervisedVectorEnv,
    abandon_what_hangs,
    action_classes_of,
    close_here,
    entry_names_of,
    environment_code,
    episode_limit_of,
    log,
    numbers_of,
)
from shoal.runners.workers import WorkerVectorEnv, in_process, side_by_side
from shoal.utils.errors import NonFiniteError, UserError
from shoal.utils.program import typed
from shoal.utils.signals import StopRequest

TRAIN, TEST = 0, 1
"""Streams of episode seeds."""

_FIRST_TRIES = 2
"""Of an environment that has never begun an episode: what does not even start is broken for good."""


@dataclass(frozen=True)
class RunnerSettings(Checked):
    time_limit_is_terminal: Annotated[
        bool, "treat the time limit as a true end (no bootstrapping), as SMAC's learners do"
    ] = False
    max_env_restarts: Annotated[
        int, "failures in a row after which the run gives up on an environment", Range(1), Role.HARDWARE
    ] = 10
    drop_nonfinite_episodes: Annotated[
        bool,
        "replace an episode that contains NaN or infinity instead of stopping the run (counted in "
        "episodes_dropped; max_env_restarts in a row still stop it)",
    ] = False
    env_timeout_s: Annotated[
        float,
        "seconds that one environment step may take before the environment is restarted",
        Range(above=0),
        Role.HARDWARE,
    ] = 120.0
    env_start_timeout_s: Annotated[
        float,
        "seconds that the start of an episode may take, launching the game included, before the environment "
        "is restarted",
        Range(above=0),
        Role.HARDWARE,
    ] = 600.0
    env_restart_every: Annotated[
        int,
        "episodes after which a worker process is replaced, against games that leak memory; 0: never",
        Range(0),
        Role.HARDWARE,
    ] = 0


@dataclass(frozen=True)
class ParallelRunnerSettings(RunnerSettings):
    batch_size_run: Annotated[int, "environments that run in parallel; a rollout has one episode of each", Range(1)] = 8


@dataclass
class Rollout:
    """Whole episodes, one a copy of the environment.

    ``stats`` holds one number an episode: ``return``, ``ep_length``, those of the environment's last info (fewer where
    episodes lack one), and ``action_<class>`` for every kind of action that it declares (fewer where episodes are
    without a single choice).
    """

    batch: EpisodeBatch
    env_steps: int
    stats: dict[str, list[float]] = field(default_factory=dict)
    env_restarts: int = 0
    episodes_dropped: int = 0
    """Episodes with a number that is not finite (drop_nonfinite_episodes), besides those in ``batch``."""


class NonFiniteEpisodeError(NonFiniteError):
    """The environment gave a NaN or infinity; nothing has been learnt from it."""


class Runner:
    """Runs every copy of a vector environment to the end of its episode, feeding the network the live ones only.

    Each episode has a seed of its own, drawn from the run's seed and the episode's number, so that what happens
    in it does not depend on what ran before: a resumed run sees the same episodes as the run that was never stopped.
    """

    Settings: type[RunnerSettings] = RunnerSettings

    def __init__(self, settings: RunnerSettings, env_class: Any, env_settings: Any, seed: int) -> None:
        self.settings = settings
        self.seed = seed
        self.env = self.make_env(env_class, env_settings)
        self._saves_replays = hasattr(env_class, "save_replay")
        try:
            self.n = self.env.num_envs
            self.spec = TeamSpec.from_spaces(
                self.env.single_observation_space,
                self.env.single_action_space,
                episode_limit_of(self.env),
                action_classes_of(self.env),
            )
            self.entry_names = entry_names_of(self.env)
        except BaseException:
            self.close()
            raise
        self.episodes_started = {TRAIN: 0, TEST: 0}
        self._infos_said: set[str] = set()
        self._has_begun = False  # whether any episode ever came behind its first step
        self._said_renamed: set[str] = set()

    def watch(self, stop: StopRequest) -> None:
        """Wait for no environment long once ``stop`` is set."""
        if isinstance(self.env, SupervisedVectorEnv):
            self.env.stopping = stop.__bool__
        else:
            stop.look = abandon_what_hangs

    def _environment(self, where: str) -> AbstractContextManager[None]:
        """Around every call of the environments: those that live elsewhere are watched over there."""
        if isinstance(self.env, SupervisedVectorEnv):
            return nullcontext()
        return environment_code(f"{where} the environment failed")

    def make_env(self, env_class: Any, env_settings: Any) -> VectorEnv:
        """The vector environment that this runner collects from."""
        raise NotImplementedError

    def scheme(self, controller: Controller) -> Scheme:
        """Fields of the batches that ``run`` returns."""
        return make_scheme(self.spec, controller.extra_fields)

    def run(
        self, controller: Controller, t_env: int, test_mode: bool = False, frames: list[np.ndarray] | None = None
    ) -> Rollout:
        """Collect one episode from every copy.

        Args:
            controller: acts for the team.
            t_env: environment steps done so far, for schedules.
            test_mode: greedy episodes, from a seed stream of their own.
            frames: takes a picture of copy 0 (uint8 ``[height, width, 3]``) for every state; it stays empty, and that
                is said, if the environment cannot be drawn.

        Raises:
            EnvironmentsFailedError: the environment failed ``max_env_restarts`` times in a row, or in this process, or
                gave, after its first steps, something that cannot be played on with.
            RolloutAbandonedError: the run was asked to stop (``watch``), and an environment did not answer soon.
            NonFiniteEpisodeError: an observation, a state or a reward is NaN or infinite.
            UserError: it cannot be used at all.
        """
        memory = _EpisodeMemory(self.scheme(controller), self.n, self.spec.episode_limit)
        final_infos: list[dict[str, float]] = [{} for _ in range(self.n)]
        failures = np.zeros(self.n, dtype=np.int64)  # in a row, of each copy
        drops = np.zeros(self.n, dtype=np.int64)
        pending = np.ones(self.n, dtype=bool)
        most = self.settings.max_env_restarts
        while pending.any():
            try:
                failed = self._run_pending(controller, t_env, test_mode, pending, memory, final_infos, frames)
            except (NonFiniteError, EnvironmentsFailedError):
                raise
            except UserError as error:  # what the environment gave fits nothing: repeating would not help
                if not self._has_begun:
                    raise
                raise EnvironmentsFailedError(str(error)) from error
            failures += failed
            if failures.max() >= min(most, most if self._has_begun else _FIRST_TRIES):
                why = getattr(self.env, "last_failure", "")
                raise EnvironmentsFailedError(
                    f"The environment {'failed' if self._has_begun else 'could not begin an episode,'} "
                    f"{failures.max()} times in a row{f' (last: {why})' if why else ''}: "
                    f"see its own messages above, and '{typed('doctor')}' for what may be missing."
                )
            drops[list(memory.nonfinite)] += 1
            if drops.max() >= most:
                (what, *_) = memory.nonfinite.values()
                raise NonFiniteEpisodeError(
                    f"{drops.max()} episodes in a row were dropped, the last because {what}: correct the environment."
                )
            pending = failed
            pending[list(memory.nonfinite)] = True
        stats: dict[str, list[float]] = {
            "return": memory.returns().tolist(),
            "ep_length": memory.lengths.astype(float).tolist(),
        }
        for info in final_infos:
            for key, value in info.items():
                if not math.isfinite(value):
                    self._say_once(key, value)
                stats.setdefault(key, []).append(value)
        batch = memory.batch()
        for name, shares in executed_shares(self.spec, batch).items():
            stats[f"action_{name}"] = [share for share in shares.tolist() if not math.isnan(share)]
        return Rollout(batch, int(memory.lengths.sum()), stats, int(failures.sum()), int(drops.sum()))

    def _run_pending(
        self,
        controller: Controller,
        t_env: int,
        test_mode: bool,
        pending: np.ndarray,
        memory: "_EpisodeMemory",
        final_infos: list[dict[str, float]],
        frames: list[np.ndarray] | None,
    ) -> np.ndarray:
        """One episode in every pending copy. Returns which of them their environment could not finish."""
        device = next(controller.parameters()).device
        stream = TEST if test_mode else TRAIN
        seeds: list[int | None] = [None] * self.n
        names: dict[int, str] = {}
        for i in np.flatnonzero(pending).tolist():
            seeds[i] = self._next_seed(stream)
            kind = "test" if test_mode else "training"
            names[i] = f"{kind} episode {self.episodes_started[stream]} (copy {i}, seed {seeds[i]})"
        options: dict[str, Any] = {"t_env": t_env, "draw": frames is not None}
        if not pending.all():
            options["reset_mask"] = pending.copy()
        live = np.flatnonzero(pending)
        with self._environment(f"At the start of {names[int(live[0])]}"):
            observation, _ = self.env.reset(seed=seeds, options=options)  # type: ignore[arg-type]  # one seed a copy
        memory.forget(live)
        memory.observe(live, 0, observation)
        self._refuse_nonfinite(memory, names)
        if frames is not None and pending[0]:
            frames.clear()  # of an episode that failed
        frames = self._draw(frames, live)
        state = controller.initial_state(len(live))
        failed = np.zeros(self.n, dtype=bool)
        actions = np.zeros(self.env.action_space.shape or (), dtype=self.env.action_space.dtype)
        for t in range(self.spec.episode_limit):
            step = _live_rows(memory.without_nonfinite(observation), live, device, controller.reads_state)
            out, state = controller.select_actions(step, state, t_env, test_mode)
            acted = {key: value.cpu().numpy() for key, value in out.items()}
            actions[live] = acted["actions"]
            with self._environment(f"In step {t + 1} of {names[int(live[0])]}"):
                observation, reward, terminated, truncated, infos = self.env.step(actions)
            over = terminated | truncated
            memory.act(live, t, acted, reward, over if self.settings.time_limit_is_terminal else terminated)
            memory.observe(live, t + 1, observation)
            frames = self._draw(frames, live)
            for i in live[over[live]].tolist():
                info = numbers_of(infos, i)
                failed[i] = bool(info.pop(EPISODE_FAILED, False))
                final_infos[i] = {self._recorded_as(key): value for key, value in info.items()}
                memory.end(i, bool(failed[i]))
            self._has_begun = self._has_begun or not failed[live].all()
            self._refuse_nonfinite(memory, names)
            if not over[live].any():
                continue
            state = state[torch.as_tensor(~over[live], device=device)]
            live = live[~over[live]]
            if len(live) == 0:
                return failed
        raise EnvironmentsFailedError(
            f"{names[int(live[0])].capitalize()} continues beyond the environment's episode_limit of "
            f"{self.spec.episode_limit} steps: truncate episodes there, or correct episode_limit."
        )

    def _refuse_nonfinite(self, memory: "_EpisodeMemory", names: Mapping[int, str]) -> None:
        """Stop at the first number that is not finite, unless such episodes are dropped."""
        if memory.nonfinite and not self.settings.drop_nonfinite_episodes:
            i, what = next(iter(memory.nonfinite.items()))
            raise NonFiniteEpisodeError(
                f"In {names[i]} {what}: correct the environment, or leave such episodes out with "
                "drop_nonfinite_episodes=True."
            )

    def _say_once(self, key: str, value: float) -> None:
        if key not in self._infos_said:
            self._infos_said.add(key)
            log.warning(
                f"The environment's info says {key}={value}: a mean over such an episode is recorded as {value}."
            )

    def _recorded_as(self, key: str) -> str:
        """The name that a key of the environment's info is recorded under; said once where it is another one."""
        name = metric_names.environment_key(key)
        if name != key and key not in self._said_renamed:
            self._said_renamed.add(key)
            log.warning(f"The environment's '{key}' is recorded as '{name}': Shoal itself uses that name.")
        return name

    def save_replay(self) -> str | None:
        """Have copy 0's environment write a replay of its own kind. Returns the file's path; None where it has none.

        Raises:
            UserError: it could not.
        """
        return str(self._ask_first("save_replay")) if self._saves_replays else None

    def _ask_first(self, name: str) -> Any:
        """What a method of copy 0's environment returns; None of copies that are stepped as one.

        Raises:
            UserError: it failed.
        """
        if isinstance(self.env, SupervisedVectorEnv):
            return self.env.call_one(0, name)
        if not isinstance(self.env, gym.vector.SyncVectorEnv):
            return None
        with environment_code(f"The environment could not {name.replace('_', ' ')}"):
            return self.env.call(name)[0]

    def _draw(self, frames: list[np.ndarray] | None, live: np.ndarray) -> list[np.ndarray] | None:
        """Take a picture of copy 0, if ``live``. Returns where the next one goes: nowhere, once that has failed."""
        if frames is None or 0 not in live:
            return frames
        try:
            drawn, why = self._ask_first("render"), ""
        except UserError as error:
            drawn, why = None, f"{error} "
        if isinstance(drawn, np.ndarray) and drawn.dtype == np.uint8 and drawn.ndim == 3 and drawn.shape[2] == 3:
            frames.append(drawn)
            return frames
        frames.clear()
        log.warning(
            f"{why}save_replay needs an environment whose render gives uint8 [height, width, 3] with "
            "render_mode=rgb_array: this one is evaluated without being drawn."
        )
        return None

    def _next_seed(self, stream: int) -> int:
        number = self.episodes_started[stream]
        self.episodes_started[stream] += 1
        sequence = np.random.SeedSequence(self.seed, spawn_key=(stream, number))
        return int(sequence.generate_state(1)[0] >> 1)  # below 2**31, which every environment takes

    def state_dict(self) -> dict[str, Any]:
        """How many episodes of each stream were started: all that the next seeds depend on."""
        return {"train": self.episodes_started[TRAIN], "test": self.episodes_started[TEST]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``."""
        self.episodes_started = {TRAIN: state["train"], TEST: state["test"]}

    def close(self) -> None:
        """End the environments and their processes, without waiting long for a step under way."""
        if isinstance(self.env, SupervisedVectorEnv):
            self.env.close()
        else:
            close_here(self.env)


class EpisodeRunner(Runner):
    """One environment, one episode at a time: in this process, or in a worker where it may crash or hang."""

    Settings = RunnerSettings

    def make_env(self, env_class: Any, env_settings: Any) -> VectorEnv:
        s = self.settings
        if getattr(env_class, "own_process", False):
            return WorkerVectorEnv(
                env_class, env_settings, 1, s.env_timeout_s, s.env_start_timeout_s, s.env_restart_every, self.seed
            )
        return in_process(env_class, env_settings, self.seed)


class ParallelRunner(Runner):
    """batch_size_run environments side by side: worker processes, or the suite's own vectorised step."""

    Settings = ParallelRunnerSettings
    settings: ParallelRunnerSettings

    def make_env(self, env_class: Any, env_settings: Any) -> VectorEnv:
        s = self.settings
        return side_by_side(
            env_class,
            env_settings,
            s.batch_size_run,
            s.env_timeout_s,
            s.env_start_timeout_s,
            s.env_restart_every,
            self.seed,
        )


def _live_rows(
    observation: dict[str, np.ndarray], live: np.ndarray, device: torch.device, with_state: bool
) -> TensorDict:
    """What the controller reads, for the live copies only: one array a key goes to the device."""
    step = {"obs": torch.as_tensor(observation["obs"][live], dtype=torch.float32, device=device)}
    if "avail_actions" in observation:
        available = observation["avail_actions"][live]
        if not available.any(-1).all():
            raise UserError(f"The environment's agent {(~available.any(-1)).nonzero()[1][0]} {NO_ACTION}")
        step["avail_actions"] = torch.as_tensor(available, device=device).bool()
    if "alive" in observation:
        step["alive"] = torch.as_tensor(observation["alive"][live], device=device).bool()
    if with_state:
        step["state"] = torch.as_tensor(observation["state"][live], dtype=torch.float32, device=device)
    return TensorDict(step, batch_size=[len(live)])


def _in_words(key: str, t: int, where: list[int], value: float) -> str:
    """The observation of agent 0 at step 3 is nan (entry 7)."""
    number = f"{value:g}, more than float32 holds" if math.isfinite(value) else f"{value:g}"
    if key == "reward":
        return f"the reward of step {t} is {number}"
    subject = f"the observation of agent {where[0]}" if key == "obs" else "the state"
    when = f"after step {t}" if t else "at the start"
    return f"{subject} {when} is {number} (entry {where[-1]})"


class _EpisodeMemory:
    """The rows of one rollout while it is being written, as numpy arrays ``[B, T+1, ...]``."""

    def __init__(self, scheme: Scheme, n: int, episode_limit: int) -> None:
        self._observed = [key for key in ("obs", "state", "avail_actions", "alive") if key in scheme]
        self._arrays = {
            key: torch.zeros((n, episode_limit + 1, *f.shape), dtype=f.dtype).numpy() for key, f in scheme.items()
        }
        self.lengths = np.zeros(n, dtype=np.int64)
        self.nonfinite: dict[int, str] = {}
        """The first number of an episode that is NaN or infinite, in words, by copy."""

    def forget(self, rows: np.ndarray) -> None:
        """Start these copies' episodes over."""
        for array in self._arrays.values():
            array[rows] = 0
        self.lengths[rows] = 0
        self.nonfinite.clear()

    def observe(self, rows: np.ndarray, t: int, observation: dict[str, np.ndarray]) -> None:
        for key in self._observed:
            seen = observation[key][rows]
            self._arrays[key][rows, t] = self._checked(key, seen, rows, t) if key in ("obs", "state") else seen
        self._arrays["filled"][rows, t] = True
        self.lengths[rows] = t

    def act(self, rows: np.ndarray, t: int, acted: dict[str, np.ndarray], reward: np.ndarray, ends: np.ndarray) -> None:
        for key, value in acted.items():
            self._arrays[key][rows, t] = value
        self._arrays["reward"][rows, t, 0] = self._checked("reward", reward[rows], rows, t + 1)
        self._arrays["terminated"][rows, t, 0] = ends[rows]

    def end(self, row: int, failed: bool) -> None:
        """An episode is over. One that ``failed`` does not count, whatever its last numbers are."""
        if failed:
            self.nonfinite.pop(row, None)
        elif row not in self.nonfinite and not np.isfinite(self.returns()[row]):
            self.nonfinite[row] = "the rewards add up to more than float32 holds"

    def _checked(self, key: str, values: np.ndarray, rows: np.ndarray, t: int) -> np.ndarray:
        """``values`` ``[len(rows), ...]`` as they are stored; what is not finite then is noted."""
        stored = values
        if values.dtype != np.float32:
            with np.errstate(over="ignore"):
                stored = values.astype(np.float32)
        finite = np.isfinite(stored)
        if not finite.all():
            for place, row in enumerate(rows.tolist()):
                if row not in self.nonfinite and not finite[place].all():
                    where = np.argwhere(~finite[place])[0]
                    self.nonfinite[row] = _in_words(key, t, where.tolist(), float(values[place][tuple(where)]))
        return stored

    def without_nonfinite(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the network may see: zeros for a copy whose episode is played to its end only to be dropped."""
        if not self.nonfinite:
            return observation
        seen = {key: observation[key].copy() for key in ("obs", "state")}
        for values in seen.values():
            values[list(self.nonfinite)] = 0
        return {**observation, **seen}

    def returns(self) -> np.ndarray:
        """Undiscounted return of every episode: ``[B]``."""
        with np.errstate(over="ignore", invalid="ignore"):
            total: np.ndarray = self._arrays["reward"].sum((1, 2))
        return total

    def batch(self) -> EpisodeBatch:
        """The episodes, cut to the longest."""
        rows = int(self.lengths.max()) + 1
        tensors = {key: torch.from_numpy(array[:, :rows]) for key, array in self._arrays.items()}
        return TensorDict(tensors, batch_size=[len(self.lengths), rows])
