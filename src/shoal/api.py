"""Shoal from Python: ``make`` or ``resume`` a run, then train, step and test it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sacred.observers import RunObserver

from shoal.callbacks.callback import Callback
from shoal.config import files
from shoal.config.run_config import raw_config
from shoal.config.settings import RunSettings, declared_by
from shoal.controllers.controller import Controller
from shoal.experiment import Experiment, ExperimentSettings
from shoal.learners.learner import Learner
from shoal.live_run import LiveRun
from shoal.own_classes import as_settings, path_of, require_reach
from shoal.registry import find
from shoal.session import checked_settings
from shoal.utils.errors import UserError, shown

SOURCE = "Python"
"""The source of settings that a program gives."""


def make(
    alg: str | Path,
    env: str | Path | type[Any],
    *,
    callbacks: Sequence[str | type[Callback] | Callback] | None = None,
    record: bool = True,
    observers: Sequence[RunObserver] = (),
    **settings: Any,
) -> Run:
    """A new run, with its environments and networks, ready to train: what ``python src/main.py`` would train.

    Args:
        alg: an algorithm by name (``"qmix"``), or the path of a YAML file.
        env: an environment by name (``"smax"``), the path of a YAML file, or the class of an environment of your own.
        callbacks: objects, classes or import paths (``"my_module:Watch"``) of ``shoal.callbacks.Callback``.
        record: whether sacred records the run, under ``<local_results_path>/sacred``.
        observers: observers of sacred that record it besides.
        **settings: settings by name, those of the environment too, or in ``env_args={...}``. A name that both the
            environment and another part of the run know is that other part's. A component of your own may be given as
            its class: ``mixer=MyMixer``.

    Raises:
        UserError: settings are unknown or impossible, or the run cannot start; the message says what to do.
    """
    paths, objects = _split(callbacks)
    given = as_settings(settings) | paths
    chosen = {"--config": str(alg), "--env-config": path_of("env", env) if isinstance(env, type) else str(env)}
    return _start(chosen, given, objects, record, observers, trusted=False)


def resume(
    path: str | Path,
    *,
    callbacks: Sequence[str | type[Callback] | Callback] | None = None,
    record: bool = True,
    observers: Sequence[RunObserver] = (),
    trust: bool = False,
    **settings: Any,
) -> Run:
    """The run that continues from the newest checkpoint of another one, as ``python src/main.py with resume=...`` does.

    Args:
        path: the folder of a recorded run (``results/sacred/1``) or of checkpoints, or one checkpoint.
        callbacks: in place of those of the run; None leaves these as they are.
        record: whether sacred records the run, under ``<local_results_path>/sacred``.
        observers: observers of sacred that record it besides.
        trust: let a checkpoint that another account wrote import the code that it names.
        **settings: settings to change, as in ``make``.

    Raises:
        UserError: there is no checkpoint, or it does not fit.
    """
    paths, objects = _split(callbacks)
    given = {"resume": str(path)} | as_settings(settings) | paths
    return _start({}, given, objects, record, observers, trust)


class Run:
    """A run that ``make`` or ``resume`` has started. Close it, use it in a ``with`` block, or let go of it.

    Its random numbers are its own: what a program draws between the calls changes nothing, nor is it changed. Runs of
    one process, also of several threads, work one after another. An exception ends the run as it would on the command
    line: what can be saved is saved, and its processes end. Only a stop signal (Ctrl-C, the notebook's stop button)
    that found a safe point leaves it open, to be trained on.
    """

    def __init__(self, settings: RunSettings, live: LiveRun) -> None:
        self._settings = settings
        self._live = live
        self._finalizer = weakref.finalize(self, live.close)
        self._finalizer.atexit = False  # it sees to that itself, before worker processes are ended

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting of the run, by name; those of the environment in ``env_args``. A copy."""
        return copy.deepcopy(self._settings.values)

    @property
    def experiment(self) -> Experiment:
        """All parts of the run, as callbacks see them."""
        return self._live.experiment

    @property
    def learner(self) -> Learner:
        """Networks, losses and optimisers."""
        return self._live.experiment.learner

    @property
    def controller(self) -> Controller:
        """What acts."""
        return self._live.experiment.learner.controller

    @property
    def t_env(self) -> int:
        """Environment steps played so far."""
        return self._live.experiment.progress.t_env

    @property
    def record(self) -> Path | None:
        """The folder of the run's record; None without one."""
        return self._live.folder

    def train(self) -> dict[str, float]:
        """Train to ``t_max``, with tests and checkpoints when they are due. Returns the last test's metrics.

        The record is complete then; the run can still be tested. Metrics and record are those of the command line. With
        ``evaluate=True`` only a test is played, as there.

        Raises:
            Interrupted: a stop signal (a ``KeyboardInterrupt``); a checkpoint was saved. ``train`` continues from here.
            UserError: the run cannot continue; the message says why, and what was saved.
        """
        return self._live.train()

    def step(self) -> None:
        """One rollout and the updates that follow it, without tests and checkpoints. ``train`` continues from there.

        Raises:
            Interrupted, UserError: as in ``train``.
        """
        self._live.step()

    def test(self, n_episodes: int) -> dict[str, float]:
        """Metrics of ``n_episodes`` greedy episodes, rounded down to whole rollouts, at least one rollout.

        They are not recorded, and training is the same without them. The episodes are the same until the run continues.

        Raises:
            Interrupted, UserError: as in ``train``.
        """
        return self._live.test(n_episodes)

    def save(self) -> Path:
        """Write a checkpoint. Returns its path.

        Raises:
            UserError: the run keeps none (``save_model=False``), or the disk is full.
        """
        return self._live.save()

    def close(self) -> None:
        """End the environments and the record, which is INTERRUPTED before ``t_max``. May be called again."""
        self._live.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.close(error)

    def __repr__(self) -> str:
        values = self._settings.values
        return f"<shoal.Run {values['name']} on {values['env']}, t_env {self.t_env:,} of {values['t_max']:,}>"


def _split(
    callbacks: Sequence[str | type[Callback] | Callback] | None,
) -> tuple[dict[str, Any], list[Callback | type[Callback]]]:
    """Import paths become a setting, which a resumed run has again; objects and classes are for this process."""
    if callbacks is None:
        return {}, []
    if isinstance(callbacks, str):
        callbacks = [callbacks]
    if not isinstance(callbacks, list | tuple):
        raise UserError(f'callbacks={shown(callbacks)} is no list: give ["my_module:Watch"], or [Watch()].')
    paths = [entry for entry in callbacks if isinstance(entry, str)]
    return {"callbacks": paths}, [entry for entry in callbacks if not isinstance(entry, str)]


def _start(
    chosen: Mapping[str, str],
    given: Mapping[str, Any],
    callbacks: Sequence[Callback | type[Callback]],
    record: bool,
    observers: Sequence[RunObserver],
    trusted: bool,
) -> Run:
    def arranged(raw: Mapping[str, Any]) -> list[files.Layer]:
        return files.from_source(SOURCE, _nested(given, _of_environment(raw, given)))

    layers = files.from_source(SOURCE, given)
    raw, sources, content, notes = raw_config(chosen, layers, ExperimentSettings, trusted, arranged)
    settings = checked_settings(raw, sources, notes)
    require_reach(settings)
    return Run(settings, LiveRun(settings, content, callbacks, record, observers))


def _nested(given: Mapping[str, Any], of_env: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings, those of the environment in ``env_args``."""
    if not of_env:
        return dict(given)
    env_args = given.get("env_args", {})
    if not isinstance(env_args, Mapping):
        raise UserError(f"env_args must be a mapping, env_args={{'map_name': ...}}, not {shown(env_args)}.")
    twice = sorted(env_args.keys() & of_env.keys())
    if twice:
        raise UserError(f"{twice[0]} is given twice, as a keyword and in env_args: leave one of them out.")
    return {key: value for key, value in given.items() if key not in of_env} | {"env_args": {**env_args, **of_env}}


def _of_environment(raw: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given settings that only the environment knows."""
    env = raw.get("env")
    if not isinstance(env, str):
        return {}
    names = {row.key for row in declared_by(find("env", env).Settings, "")} & given.keys()
    if not names:
        return {}
    rest = {key: value for key, value in raw.items() if key not in names}
    others = RunSettings(rest, ExperimentSettings, skip=("env",)).declared
    return {key: given[key] for key in names - others.keys()}
