"""A run in its own process, worked on in several calls: record, session and random numbers of each kept together."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from sacred.observers import RunObserver
from sacred.run import Run as SacredRun

from shoal.callbacks.callback import Callback
from shoal.callbacks.callback import build as build_callbacks
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.recording.observers import (
    run_dir_of,
    say_what_records_lack,
    standard_observers,
)
from shoal.recording.pieces import RecordInPieces
from shoal.session import (
    ResolvedConfig,
    Session,
    add_component_sources,
    sacred_experiment,
)
from shoal.utils.errors import UserError, shown
from shoal.utils.seeding import OwnRandomness
from shoal.utils.signals import Interrupted, stops_interrupt
from shoal.utils.streams import lasting_output

T = TypeVar("T")

_at_work = threading.RLock()
"""Held by the run that is at work: random generators, sys.stdout and the environment's variables are the process's."""


class LiveRun:
    """Started by its constructor; ended by ``close``, by an exception in any of its calls, or with the process."""

    def __init__(
        self,
        settings: RunSettings,
        content: dict[str, Any] | None,
        callbacks: Sequence[Callback | type[Callback]],
        record: bool,
        observers: Sequence[RunObserver],
    ) -> None:
        s: ExperimentSettings = settings.of(ExperimentSettings)
        self._s = s
        self._randomness = OwnRandomness()
        self._closed = self._complete = self._busy = False
        self._paused: Interrupted | None = None
        self._session: Session | None = None
        built = build_callbacks(callbacks)
        ex = sacred_experiment(train)
        add_component_sources(ex, settings)
        ex.configurations.append(ResolvedConfig(settings))
        if record:
            ex.observers.extend([*standard_observers(Path(s.local_results_path) / "sacred", s.mongo_url), *observers])
        options = {"--name": s.name, "--unobserved": not record}
        sacred_run = ex._create_run("train", info={}, options=options)
        self._record = RecordInPieces(sacred_run)
        # Where a notebook has replaced sys.stderr, there is no terminal of ours.
        live = None if sys.stderr is sys.__stderr__ else False
        with self._working():
            self._record.start()
            self._session = Session(sacred_run, settings, content, built, live)
            self._session.console.close()
        self._pid = os.getpid()
        atexit.register(self.close)

    @property
    def experiment(self) -> Experiment:
        assert self._session is not None
        return self._session.experiment

    @property
    def folder(self) -> Path | None:
        return run_dir_of(self._record.run.observers)

    def train(self) -> dict[str, float]:
        self._refuse_if_complete()
        with self._working() as session:
            session.console.open()
            try:
                result = self._played(session.experiment.run)
            finally:
                session.console.close()
            score = session.conclude(result)
        self._end_record(score)
        return result

    def step(self) -> None:
        if self._s.evaluate:
            raise UserError("A run with evaluate=True learns nothing: leave that out to train from a checkpoint.")
        self._refuse_if_complete()
        with self._working() as session:
            self._played(session.experiment.step)

    def _refuse_if_complete(self) -> None:
        """Its record says that it is complete, and stays so."""
        if self._complete and not self._closed:
            raise UserError(
                f"The run has reached its end, t_max={self._s.t_max}: "
                "close it, and shoal.resume(run.record, t_max=...) trains on."
            )

    def test(self, n_episodes: int) -> dict[str, float]:
        if not isinstance(n_episodes, int | np.integer) or n_episodes < 1:
            raise UserError(f"A test of {shown(n_episodes)} episodes is not possible: give a whole number from 1 on.")
        with self._working() as session:
            return self._played(lambda: session.experiment.test(int(n_episodes)))

    def save(self) -> Path:
        if not self._s.save_model:
            raise UserError("This run keeps no checkpoints (save_model=False): make it with save_model=True.")
        with self._working() as session:
            path = session.experiment.save()
        if path is None:
            raise UserError("The checkpoint could not be written: see the warning above.")
        return path

    def close(self, error: BaseException | None = None) -> None:
        """End everything. ``error``: what has ended the program's work with the run, if anything."""
        if self._closed or os.getpid() != self._pid:  # a forked process has a copy of it
            return
        score = None
        with self._working() as session:
            p = session.experiment.progress
            at_end = error is None and not self._complete and not self._s.evaluate and p.t_env >= self._s.t_max
            if at_end and p.last_result:
                score = session.conclude(p.last_result)
            session.close()
        self._forget()
        if at_end:
            self._end_record(score)
        elif not self._complete:
            self._end_record(None, error if error is not None else self._paused, failed=True)

    @contextlib.contextmanager
    def _working(self) -> Iterator[Session]:
        """Around all that the run does."""
        if self._closed:
            raise UserError("This run is closed: make a new one, or continue it with shoal.resume(run.record).")
        with _at_work:
            if self._busy:
                raise UserError("The run is at work: a callback uses the experiment that it is given.")
            self._busy = True
            try:
                with lasting_output(), stops_interrupt(), self._randomness.in_place(), self._threads():
                    yield from self._recorded()
            finally:
                self._busy = False

    def _recorded(self) -> Iterator[Session]:
        try:
            with self._record.captured():
                try:
                    if self._session is None:
                        yield None  # type: ignore[misc]  # it is being made
                    else:
                        with self._session.at_work():
                            yield self._session
                except BaseException as error:
                    if self._session is not None and error is not self._paused:
                        self._session.close()
                    raise
        except BaseException as error:
            if error is not self._paused:
                self._forget()
                self._end_record(None, error, failed=True)
            raise

    def _played(self, play: Callable[[], T]) -> T:
        """An interrupt at a safe point leaves the run open."""
        try:
            self._paused = None
            return play()
        except Interrupted as interrupt:
            self._paused = interrupt
            saved = interrupt.checkpoint
            interrupt.add_note("The run is open: run.train() continues from here.")
            if saved is not None:
                interrupt.add_note(f"A checkpoint was saved: shoal.resume({str(saved.parent)!r}) continues from it.")
            raise

    @contextlib.contextmanager
    def _threads(self) -> Iterator[None]:
        """torch's threads are as the run's settings have them, then as before."""
        before = torch.get_num_threads()
        if self._s.torch_threads > 0:
            torch.set_num_threads(self._s.torch_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _forget(self) -> None:
        self._closed = True
        atexit.unregister(self.close)

    def _end_record(self, score: float | None, error: BaseException | None = None, failed: bool = False) -> None:
        if self._complete:
            return
        self._complete = True
        if failed:
            self._record.fail(error)
        else:
            self._record.complete(score)
        say_what_records_lack(self._record.run.observers)


def train(_run: SacredRun, _config: Mapping[str, Any]) -> float | None:
    """Train, step by step (see shoal.live_run)."""
    raise AssertionError("sacred does not call it")
