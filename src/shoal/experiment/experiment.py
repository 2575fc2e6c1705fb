"""One run, start to finish: build, collect, train, evaluate, save. Nothing algorithmic."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shoal.callbacks.callback import Callback, Callbacks
from shoal.callbacks.callback import build as build_callbacks
from shoal.components.alarm import Alarm, RangeAlarm
from shoal.components.memory import Memory
from shoal.config import trust
from shoal.config.settings import RunSettings
from shoal.controllers.controller import Controller
from shoal.experiment.best_policy import BestPolicy
from shoal.experiment.mismatch import SIZES_OF_NETWORKS, difference, is_lack_of_memory, largest_widths, other_sizes
from shoal.experiment.progress import Progress, summary
from shoal.experiment.replays import save_replays
from shoal.experiment.saving import Saver
from shoal.experiment.settings import ExperimentSettings
from shoal.learners.learner import Learner
from shoal.recording import metric_names
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.runners.runner import NonFiniteEpisodeError, Runner
from shoal.runners.supervised import EnvironmentsFailedError, RolloutAbandonedError
from shoal.utils.errors import NonFiniteError, UserError
from shoal.utils.malloc import keep_freed_memory
from shoal.utils.seeding import random_state, seed_everything, set_random_state, unless_raised
from shoal.utils.signals import Interrupted, StopRequest

_SPARE_FILES = 8


class Experiment:
    """Owns one run's parts and its loop.

    ``callbacks`` are called besides those that the setting ``callbacks`` names. ``record`` marks the run's record, so
    that a record of a run that continues can name the one that it continues from.
    """

    def __init__(
        self,
        settings: RunSettings,
        logger: Logger,
        console: Console,
        model_dir: Path,
        callbacks: Sequence[Callback] = (),
        record: str = "",
    ) -> None:
        self.all_settings = settings
        self.settings: ExperimentSettings = settings.of(ExperimentSettings)
        self.logger = logger
        self.console = console
        self.model_dir = model_dir
        self.saver = Saver(self.settings, model_dir, logger)
        self.callbacks = Callbacks([*build_callbacks(self.settings.callbacks), *callbacks])
        self._started = self._ended = False
        self.record = record
        self.progress = Progress()
        self._spare_files: list[int] = []
        self._said_missing: set[str] = set()
        self._signature = trust.sign(settings.values)
        s = self.settings
        if s.seed is None:
            raise ValueError("the experiment needs a seed")
        if s.torch_threads > 0:
            torch.set_num_threads(s.torch_threads)
        keep_freed_memory()
        seed_everything(s.seed)
        self.device = torch.device("cuda" if s.use_cuda and torch.cuda.is_available() else "cpu")
        env_class = settings.components["env"]
        self.runner: Runner = settings.make(
            "runner", env_class=env_class, env_settings=settings.of(env_class.Settings), seed=s.seed
        )
        try:
            learner: Learner = settings.make("learner", spec=self.runner.spec, make=settings.make)
            if not isinstance(learner, Learner):
                raise UserError(
                    f"learner={s.learner} is no learner: it must be a subclass of shoal.learners.learner.Learner "
                    "(docs/extending.md)."
                )
            self.learner = learner.to(self.device)
            self.memory = None if s.evaluate else self._make_memory()
            self.alarm = self._make_alarm()
            self.best = BestPolicy() if s.absolute_test_nepisode and not s.evaluate else None
        except BaseException as error:
            self.runner.close()
            if is_lack_of_memory(error):
                raise UserError(
                    f"The networks of these settings do not fit into memory: lower {largest_widths(settings)}."
                ) from error
            raise

    def _make_memory(self) -> Memory:
        memory: Memory = self.all_settings.make(
            "memory",
            scheme=self.runner.scheme(self.learner.behaviour),
            episode_limit=self.runner.spec.episode_limit,
            device=self.device,
            seed=self.settings.seed,
        )
        return memory

    def _make_alarm(self) -> RangeAlarm | None:
        s, env_settings = self.settings, self.all_settings.of(self.all_settings.components["env"].Settings)
        if not s.range_alarm:
            return None
        advice = "Scale it in the environment, or set normalise_inputs=True."
        if getattr(env_settings, "scale_state", None) is False:
            advice = "Set env_args.scale_state=True or normalise_inputs=True."
        return RangeAlarm(self.runner.entry_names, advice, inputs=not self.learner.settings.normalise_inputs)

    def describe(self) -> str:
        """A few lines that say what is about to run."""
        spec, s = self.runner.spec, self.settings
        trained = sum(p.numel() for p in self.learner.parameters() if p.requires_grad)
        return (
            f"{s.env}: {spec.n_agents} agents, {spec.n_actions} {'actions' if spec.discrete else 'action dimensions'}, "
            f"observation {spec.obs_dim}, state {spec.state_dim}, episodes of at most {spec.episode_limit} steps\n"
            f"{s.name}: {trained:,} trained parameters on {self.device}"
            + (f"; {self.memory.describe()}" if self.memory is not None else "")
        )

    def run(self) -> dict[str, float]:
        """Train (or only evaluate) and return the last test's metrics.

        Raises:
            Interrupted: a stop signal; a checkpoint was saved first.
            Exception: what a callback has raised; here too.
            EnvironmentsFailedError, NonFiniteEpisodeError: no episode can be played any more; here too.
            NonFiniteError: a loss or gradient is NaN or infinite. Nothing is saved after that.
        """
        self._start()
        with self._ending_in_order() as stop:
            result = self._test(stop) if self.settings.evaluate else self._train(stop)
            self._end(result)
            self._stop_if_a_callback_failed()
            return result

    @contextmanager
    def _ending_in_order(self) -> Iterator[StopRequest]:
        """Around whatever plays: a stop signal is only noted, and what cannot continue is saved first."""
        if not self._spare_files:
            self._spare_files = [os.open(os.devnull, os.O_RDONLY) for _ in range(_SPARE_FILES)]
        with StopRequest() as stop:
            self.runner.watch(stop)
            try:
                yield stop
            except RolloutAbandonedError:
                self._stop_if_asked(stop)
                raise
            except (EnvironmentsFailedError, NonFiniteEpisodeError) as error:
                self._free_files()
                path = None if self.settings.evaluate else self.save(last=True)
                raise UserError(f"{error} Resume later with resume={path.parent}." if path else str(error)) from error
            except NonFiniteError as error:
                if self.settings.evaluate:
                    raise
                raise NonFiniteError(f"{error} {self.saver.describe_newest()}") from error

    def _train(self, stop: StopRequest) -> dict[str, float]:
        s, p = self.settings, self.progress
        while True:
            finished = p.t_env >= s.t_max
            # A run that is resumed at its end has done part of what follows.
            to_test = (finished and not (p.last_test == p.t_env and p.last_result)) or p.due(
                p.last_test, s.test_interval
            )
            if to_test:
                self._test(stop)
            if (finished and (to_test or not self._is_saved())) or p.due(p.last_save, s.save_model_interval):
                self.save(last=finished)
            if finished:
                result = p.last_result | self._absolute_test(stop)
                if s.save_model and not self._is_saved():
                    raise UserError(
                        f"The run has come to its end at t_env {p.t_env:,}, but its last checkpoint could not be "
                        f"written to {self.model_dir} (see the warning above). {self.saver.describe_newest()}"
                    )
                return result
            self._collect_and_learn()
            self._stop_if_asked(stop)

    def step(self) -> None:
        """One rollout and the updates that follow it. Tests nothing and saves nothing, whatever is due.

        Raises:
            Exception: as in ``run``.
        """
        self._start()
        with self._ending_in_order() as stop:
            self._collect_and_learn()
            self._stop_if_asked(stop)

    def _collect_and_learn(self) -> None:
        s, p = self.settings, self.progress
        before = self.runner.state_dict()
        try:
            with unless_raised():
                rollout = self.runner.run(self.learner.behaviour, p.t_env)
        except BaseException:  # half a rollout is none: a resumed run plays these episodes from their start
            self.runner.load_state_dict(before)
            raise
        assert self.memory is not None, "an evaluation collects nothing"
        self.memory.insert(rollout.batch)
        self.learner.observe(rollout.batch)
        p.t_env += rollout.env_steps
        p.episode += rollout.batch.shape[0]
        p.env_restarts += rollout.env_restarts
        p.episodes_dropped += rollout.episodes_dropped
        if self.alarm is not None:
            rewarded = rollout.batch.select("reward", "terminated", "filled").to(self.device)
            returns = self.learner.returns_to_go(rewarded)
            self._sound(self.alarm.look_at_episodes(rollout.batch, returns))
        for key, values in rollout.stats.items():
            p.since_log.setdefault(key, []).extend(values)
        self.callbacks.on_rollout(self, rollout)

        batch = None
        for batch in self.memory.batches(p.t_env):
            metrics = self.learner.train_on(batch, p.t_env, p.episode)
            self.memory.write_back(batch)
            self.callbacks.on_update(self, metrics)
        if batch is not None:
            if self.alarm is not None:
                self._sound(self.alarm.look_at_values(metrics))
            if p.due(p.last_learner_log, s.learner_log_interval):
                self.logger.log(metrics | self.learner.controller.diagnostics(batch, p.t_env), p.t_env)
                p.last_learner_log = p.t_env
        if p.due(p.last_runner_log, s.runner_log_interval):
            self.logger.log(self._summary(p.since_log), p.t_env)
            self.logger.log(self.learner.controller.metrics(p.t_env), p.t_env)
            self.logger.log({"episode": p.episode, "env_restarts": p.env_restarts}, p.t_env)
            if self.runner.settings.drop_nonfinite_episodes:
                self.logger.log({"episodes_dropped": p.episodes_dropped}, p.t_env)
            p.since_log, p.last_runner_log = {}, p.t_env
        self.console.progress(p.t_env, p.episode, self.logger.latest)

    def _sound(self, alarms: Iterable[Alarm]) -> None:
        for alarm in alarms:
            self.logger.warning(f"t_env {self.progress.t_env:,}: {alarm.sentence}")
            self.logger.log({alarm.metric: alarm.value}, self.progress.t_env)

    def test(self, n_episodes: int) -> dict[str, float]:
        """Metrics of ``n_episodes`` greedy episodes, rounded down to whole rollouts, at least one rollout.

        Nothing is recorded, and the run continues afterwards as if it had not been tested: until then every call plays
        the same episodes.

        Raises:
            Interrupted: a stop signal; a checkpoint was saved first, as in ``run``.
        """
        before, known = self.runner.state_dict(), list(self.progress.info_keys)
        with self._ending_in_order() as stop:
            metrics = self._play_tests(n_episodes, stop)
        self.runner.load_state_dict(before)
        self.progress.info_keys = known
        return metrics

    def _play_tests(self, n_episodes: int, stop: StopRequest) -> dict[str, float]:
        """Greedy episodes with what would be deployed, and with what else the controller wants tested.

        All of them play the same episodes. Leaves the training's random state as it was.
        """
        before = self.runner.state_dict()
        metrics: dict[str, float] = {}
        for prefix, controller in self.learner.controller.executions().items():
            self.runner.load_state_dict(before)
            stats = self._test_episodes(controller, before, n_episodes, stop, with_replay=not prefix)
            if not stats:
                self._stop_if_asked(stop)
            metrics |= self._summary(stats, f"{metric_names.TEST}{prefix}")
        return metrics

    def _test(self, stop: StopRequest) -> dict[str, float]:
        """A test of the run's schedule: played, recorded, and the best policy kept."""
        p = self.progress
        metrics = self._play_tests(self.settings.test_nepisode, stop)
        self.logger.log(metrics, p.t_env)
        self.console.test_result(p.t_env, metrics)
        p.last_test, p.last_result = p.t_env, metrics
        if self.best is not None:
            self.best.offer(metric_names.score(metrics), self.learner.controller, p.t_env)
        self._save_if_best(metrics)
        self.callbacks.on_test(self, metrics)
        self._stop_if_a_callback_failed()
        return metrics

    def _summary(self, stats: dict[str, list[float]], prefix: str = "") -> dict[str, float]:
        """Means over these episodes; a key of the environment's that some of them lack is said once."""
        n, known = len(stats[metric_names.RETURN]), self.progress.info_keys
        known += [key for key in stats if not metric_names.is_episode_key(key) and key not in known]
        for key in known:
            missing = n - len(stats.get(key, ()))
            if missing and key not in self._said_missing:
                self._said_missing.add(key)
                self.logger.warning(
                    f"{missing} of {n} episodes have no '{key}' in their last info: they count as 0 in "
                    f"{metric_names.metric_of(key, prefix)}. Have the environment give it in every episode."
                )
        return summary(stats, prefix, known)

    def _absolute_test(self, stop: StopRequest) -> dict[str, float]:
        """Greedy episodes with what would be deployed of the policy that did best in the tests, on fresh episodes.

        The absolute metric of Gorsane et al. (arXiv 2209.10485). Nothing where it is not wanted.
        """
        if self.best is None:
            return {}
        n, before = self.settings.absolute_test_nepisode, self.runner.state_dict()
        with self.best.in_place_of(self.learner.controller):
            deployed = self.learner.controller.for_execution()
            stats = self._test_episodes(deployed, before, n, stop, with_replay=False)
        if not stats:
            self._stop_if_asked(stop)
        metrics = self._summary(stats, metric_names.ABSOLUTE_TEST) | {"absolute_test_t_env": float(self.best.t_env)}
        self.logger.log(metrics, self.progress.t_env)
        self.logger.info(f"absolute metric: the policy of t_env {self.best.t_env:,}, {len(stats['return'])} episodes")
        return metrics

    def _test_episodes(
        self, controller: Controller, before: dict[str, int], n_episodes: int, stop: StopRequest, with_replay: bool
    ) -> dict[str, list[float]]:
        """What the test's episodes were like, one number each; nothing where somebody asked to stop.

        Half a test is no test: one that fails or is stopped leaves the runner as it was ``before``, and a resumed run
        does it again.
        """
        s = self.settings
        stats: dict[str, list[float]] = {}
        restarts = dropped = 0
        frames: list[np.ndarray] | None = [] if s.save_replay and with_replay else None
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed((s.seed or 0) + before["test"])
            for _ in range(max(1, n_episodes // self.runner.n)):
                try:
                    rollout = self.runner.run(controller, self.progress.t_env, test_mode=True, frames=frames)
                except BaseException:
                    self.runner.load_state_dict(before)
                    raise
                restarts += rollout.env_restarts
                dropped += rollout.episodes_dropped
                if frames is not None:
                    save_replays(
                        frames,
                        Path(s.local_results_path) / "replays" / f"{self.model_dir.name}.gif",
                        self.runner,
                        self.logger,
                    )
                frames = None  # the first episode alone
                for key, values in rollout.stats.items():
                    stats.setdefault(key, []).extend(values)
                if stop:
                    self.runner.load_state_dict(before)
                    return {}
        self.progress.env_restarts += restarts
        self.progress.episodes_dropped += dropped
        return stats

    def _stop_if_asked(self, stop: StopRequest) -> None:
        self._stop_if_a_callback_failed()
        if stop.signum is None:
            return
        raise Interrupted(stop.signum, None if self.settings.evaluate else self.save(last=True) or self.saver.newest())

    def _stop_if_a_callback_failed(self) -> None:
        """At a point that a resumed run can continue from."""
        error, saved = self.callbacks.error, None
        if error is None:
            return
        if self._started and not self.settings.evaluate and not self._is_saved():
            saved = self.save(last=True)
        newest = saved or self.saver.newest()
        advice = f"Go on later with resume={newest.parent}." if newest is not None else ""
        if isinstance(error, UserError):
            raise UserError(f"{error} {advice}".rstrip()) from error
        if advice:
            error.add_note(advice)
        raise error

    def _start(self) -> None:
        """Tell the callbacks, once."""
        if not self._started:
            self.callbacks.on_start(self)
            if self.callbacks.error is not None:
                raise self.callbacks.error
            self._started = True

    def _end(self, result: dict[str, float] | None) -> None:
        """Tell the callbacks, once, if they were told of the start."""
        if self._started and not self._ended:
            self._ended = True
            self.callbacks.on_end(self, result)

    def _is_saved(self) -> bool:
        """Whether the newest checkpoint is of this very step."""
        p = self.progress
        return p.last_save == p.t_env and self.saver.has(p.t_env)

    def save(self, last: bool = False) -> Path | None:
        """Write a checkpoint of the whole run, if checkpoints are wanted. Returns its path, or None.

        The ``last`` one may take the room of older ones on a full disk.
        """
        p = self.progress
        p.last_save = p.t_env
        if not self.settings.save_model:
            return None
        path = self.saver.save(self._content(with_episodes=True), p.t_env, last)
        if path is not None:
            self.callbacks.on_checkpoint(self, path)
            self.saver.prune(p.t_env, self.memory.keep_buffers if self.memory is not None else 0)
        return path

    def _save_if_best(self, metrics: dict[str, float]) -> None:
        s, p = self.settings, self.progress
        score = metric_names.score(metrics)
        if s.evaluate or not metric_names.is_better(score, p.best):
            return
        before, p.best = p.best, score
        if s.save_model and not self.saver.save_best(self._content(with_episodes=False)):
            p.best = before  # what is there is still that one's

    def _content(self, with_episodes: bool) -> dict[str, Any]:
        assert self.memory is not None, "an evaluation saves nothing"
        content = {
            "config": self.all_settings.values,
            trust.SIGNATURE: self._signature,
            "record": self.record,
            "spec": asdict(self.runner.spec),
            "learner": self.learner.state_dict(),
            "runner": self.runner.state_dict(),
            "progress": asdict(self.progress),
            "buffer": self.memory.state_dict(with_episodes and self.memory.saves_episodes),
            "random": random_state(),
        }
        if self.alarm is not None:
            content["alarm"] = self.alarm.state_dict()
        return content if self.best is None else content | {"best": self.best.state_dict()}

    def load(self, content: dict[str, Any], whole: bool) -> None:
        """Take over a checkpoint: the networks, and for a resume (``whole``) everything else.

        Raises:
            UserError: it is the checkpoint of another kind of run.
        """
        if self.alarm is not None and "alarm" in content:  # the networks were trained on those returns
            self.alarm.load_state_dict(content["alarm"])
        if whole and (sizes := other_sizes(content, self.runner.spec, SIZES_OF_NETWORKS)):  # they may fit by chance
            raise UserError(f"The checkpoint does not fit this run: {sizes}.")
        try:
            progress = Progress(**content["progress"])
            if not whole:
                self.learner.load_networks(content["learner"])
            else:
                self.learner.load_state_dict(content["learner"])
                self.progress = progress
                progress.best = max(metric_names.stored_score(progress.best), self.saver.best_score())
                self.runner.load_state_dict(content["runner"])
                if self.memory is not None:
                    self.memory.load_state_dict(content["buffer"])
                set_random_state(content["random"])
                if self.best is not None and "best" in content:
                    self.best.load_state_dict(content["best"])
                return
            self.progress.t_env = progress.t_env
            self.progress.last_save = progress.t_env
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"The checkpoint does not fit this run: {difference(content, self.all_settings, self.runner.spec)}."
            ) from error

    def _free_files(self) -> None:
        """An environment that opens files until there are no more leaves room for the last checkpoint."""
        while self._spare_files:
            os.close(self._spare_files.pop())

    def close(self) -> None:
        """End the environments, whatever happened."""
        failed_before = self.callbacks.error
        self._end(None)
        if self.callbacks.error is not failed_before:
            self.logger.warning(f"a callback failed at the run's end: {self.callbacks.error!r}")
        self._free_files()
        self.runner.close()
