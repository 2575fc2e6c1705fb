"""What is called while a run trains, and how several callbacks, and one that fails, are dealt with."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.utils.errors import UserError
from shoal.utils.seeding import random_state_kept

if TYPE_CHECKING:
    from shoal.experiment import Experiment
    from shoal.runners.runner import Rollout


class Callback:
    """Base class: override the hooks you need.

    A hook sees the whole run: ``experiment.progress.t_env``, ``.learner``, ``.learner.controller``, ``.runner``,
    ``.logger``, ``.settings``. It must change nothing of it. Random numbers that it draws from the global generators of
    Python, NumPy and PyTorch are put back, so a run is the same, bit for bit, with and without callbacks.

    A hook that raises stops the run: what it was called in the middle of is finished, a checkpoint is saved, and the
    exception passes on. On the command line a ``UserError`` is printed as one sentence, anything else as a traceback.
    """

    def on_start(self, experiment: Experiment) -> None:
        """The run is built, and loaded where it starts from a checkpoint; nothing has been played yet."""

    def on_rollout(self, experiment: Experiment, rollout: Rollout) -> None:
        """A rollout is in the memory; its updates follow. ``rollout.batch`` has shape ``[B, T+1]``."""

    def on_update(self, experiment: Experiment, metrics: Mapping[str, Any]) -> None:
        """A gradient step was made; ``metrics`` are the learner's (numbers, or tensors without dimensions)."""

    def on_test(self, experiment: Experiment, metrics: Mapping[str, float]) -> None:
        """A test of the run's own schedule was played and recorded."""

    def on_checkpoint(self, experiment: Experiment, path: Path) -> None:
        """A checkpoint was written, to ``path``."""

    def on_end(self, experiment: Experiment, result: Mapping[str, float] | None) -> None:
        """The run ends.

        Args:
            experiment: the run, its environments still open.
            result: the last test's metrics; None where the run was stopped before its end, or failed.
        """


class Callbacks(Callback):
    """Several callbacks as one. The first exception is kept in ``error``, and no hook is called after it."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self._callbacks = list(callbacks)
        self.error: Exception | None = None

    def on_start(self, experiment: Experiment) -> None:
        self._each("on_start", lambda callback: callback.on_start(experiment))

    def on_rollout(self, experiment: Experiment, rollout: Rollout) -> None:
        self._each("on_rollout", lambda callback: callback.on_rollout(experiment, rollout))

    def on_update(self, experiment: Experiment, metrics: Mapping[str, Any]) -> None:
        self._each("on_update", lambda callback: callback.on_update(experiment, metrics))

    def on_test(self, experiment: Experiment, metrics: Mapping[str, float]) -> None:
        self._each("on_test", lambda callback: callback.on_test(experiment, metrics))

    def on_checkpoint(self, experiment: Experiment, path: Path) -> None:
        self._each("on_checkpoint", lambda callback: callback.on_checkpoint(experiment, path))

    def on_end(self, experiment: Experiment, result: Mapping[str, float] | None) -> None:
        """Every callback learns of the end, also one that has failed and those behind it."""
        for callback in self._callbacks:
            self._call("on_end", callback, lambda one: one.on_end(experiment, result))

    def _each(self, hook: str, call: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            if self.error is None:
                self._call(hook, callback, call)

    def _call(self, hook: str, callback: Callback, call: Callable[[Callback], None]) -> None:
        try:
            with random_state_kept():
                call(callback)
        except Exception as error:
            if self.error is None:
                error.add_note(f"(raised by the callback {type(callback).__name__}, in {hook})")
                self.error = error


def build(given: Sequence[str | type[Callback] | Callback]) -> list[Callback]:
    """Callbacks from import paths (``"my_module:Watch"``), classes and objects.

    What a path names is called without arguments: a subclass of ``Callback``, or a function that returns one.

    Raises:
        UserError: a path cannot be imported, or what it names makes no callback.
    """
    built = []
    for entry in given:
        maker: Any = _imported(entry) if isinstance(entry, str) else entry
        name = entry if isinstance(entry, str) else getattr(entry, "__name__", repr(entry))
        if not isinstance(maker, Callback):
            try:
                maker = maker()
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"The callback {name} cannot be made without arguments ({type(error).__name__}: {error}): give a "
                    "class or a function that needs none or, in Python, the object itself."
                ) from error
        if not isinstance(maker, Callback):
            raise UserError(f"The callback {name} is no shoal.callbacks.Callback: derive its class from that.")
        _refuse_misspelt_hooks(type(maker))
        built.append(maker)
    return built


def _refuse_misspelt_hooks(callback: type[Callback]) -> None:
    hooks = [name for name in vars(Callback) if name.startswith("on_")]
    for name in dir(callback):
        meant = difflib.get_close_matches(name, hooks, n=1, cutoff=0.75)
        if name.startswith("on_") and name not in hooks and meant:
            raise UserError(
                f"{callback.__name__}.{name} is no hook and would never be called: did you mean {meant[0]}?"
            )


def require_importable(paths: Sequence[str]) -> None:
    """Refuse import paths that name nothing, before a run starts.

    Raises:
        UserError: naming the first.
    """
    for path in paths:
        _imported(path)


def _imported(path: str) -> Any:
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise UserError(f"callbacks: {path!r} is no import path; write MODULE:CLASS, as in shoal.callbacks:CSV.")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"The callback {path} cannot be loaded: {error}.") from error
