"""Every number a run produces leaves through here, as a plain float."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.recording.console import Console
from shoal.utils.errors import UserError
from shoal.utils.extras import CORE, needed_for

if TYPE_CHECKING:
    from sacred.run import Run


class Logger:
    """Hands every metric, as a plain float at t_env, to sacred, TensorBoard and the console.

    sacred and TensorBoard are told at once; the console shows `latest` when the experiment
    next calls `Console.progress`. A recorder that fails in the middle of a run is dropped
    with one warning, and training continues.

    Args:
        run: The sacred run, or None to leave sacred out.
        console: Where `info` and `warning` speak.
        tensorboard_dir: Folder of the TensorBoard event file, made if missing; None for no TensorBoard.
        flush: Brings what sacred has been told to the disk (see `shoal.recording.heartbeats.beat`).
        folder: Of the run's file record, if it has one: files that belong to the run go there.

    Raises:
        UserError: tensorboardX is not installed, or `tensorboard_dir` cannot be written to.
    """

    def __init__(
        self,
        run: Run | None,
        console: Console,
        tensorboard_dir: Path | None = None,
        flush: Callable[[], None] = lambda: None,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder
        self._run = run
        self._console = console
        self._flush = flush
        self._latest: dict[str, float] = {}
        self._recorders: dict[str, Callable[[dict[str, float], int], None]] = {}
        self._tensorboard = None if tensorboard_dir is None else _TensorBoard(Path(tensorboard_dir))
        if run is not None:

            def to_sacred(metrics: dict[str, float], t_env: int) -> None:
                for name, value in metrics.items():
                    run.log_scalar(name, value, t_env)

            self._recorders["sacred"] = to_sacred
        if self._tensorboard is not None:
            self._recorders["TensorBoard"] = self._tensorboard.write

    def log(self, metrics: Mapping[str, Any], t_env: int) -> None:
        """Records the metrics of one moment.

        Args:
            metrics: Name to scalar: a float, int or bool, or a numpy, torch or jax scalar (0-d).
                NaN and infinities are recorded as they are. None of them is recorded if one is refused.
            t_env: Environment steps taken so far; the x-axis of every plot.

        Raises:
            TypeError: A value is not a scalar. The message names the metric.
        """
        floats = {name: as_float(name, value) for name, value in metrics.items()}
        step = int(t_env)
        self._latest.update(floats)
        for recorder, write in list(self._recorders.items()):
            try:
                write(floats, step)
            except Exception as error:
                del self._recorders[recorder]
                self._console.warn(
                    f"{recorder} failed at t_env {step:,} and records nothing from here on; "
                    f"the run continues ({type(error).__name__}: {error})"
                )

    def add_recorder(self, name: str, write: Callable[[dict[str, float], int], None]) -> None:
        """Hands every metric, with its t_env, to ``write`` too. One that raises is dropped with a warning."""
        self._recorders[name] = write

    def remove_recorder(self, name: str) -> None:
        """Undoes ``add_recorder``, also of a recorder that was dropped."""
        self._recorders.pop(name, None)

    def add_artifact(self, path: Path) -> None:
        """Puts a file into the run's records, if it has any."""
        if self._run is not None:
            self._run.add_artifact(str(path))

    @property
    def latest(self) -> dict[str, float]:
        """The last value of every metric logged so far (a copy)."""
        return dict(self._latest)

    def flush(self) -> None:
        """Returns when all that was logged is recorded on the disk, or a warning says that it cannot be."""
        self._flush()

    def info(self, text: str) -> None:
        """Shows a permanent line."""
        self._console.print(text)

    def warning(self, text: str) -> None:
        """Shows a permanent line, marked as a warning."""
        self._console.warn(text)

    def close(self) -> None:
        """Closes the TensorBoard file. The console belongs to whoever made it; sacred closes itself."""
        self._recorders.clear()
        if self._tensorboard is not None:
            self._tensorboard.close()


def as_float(name: str, value: Any) -> float:
    """The one place where a metric becomes a float.

    Raises:
        TypeError: `value` is not a scalar; an array of shape (1,) is not one either.
    """
    if not isinstance(value, str | bytes) and getattr(value, "shape", ()) == ():
        try:
            # item() first: torch warns when float() meets a tensor that still has its graph.
            return float(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError, OverflowError):
            pass
    shape = getattr(value, "shape", None)
    kind = type(value).__name__ if shape is None else f"{type(value).__name__} of shape {tuple(shape)}"
    raise TypeError(f"metric {name!r} must be one number, but it is a {kind}")


class _TensorBoard:
    """Appends scalars to one TensorBoard event file and flushes them at once.

    tensorboardX's `SummaryWriter` hands events to a thread over a queue of ten. When that thread dies
    (a full disk), the eleventh `add_scalar` waits for ever, and so does the exit of the process. So we
    use the writer under it, which writes here and now and raises here and now.
    """

    def __init__(self, folder: Path) -> None:
        with needed_for("use_tensorboard=True", CORE):
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.proto.summary_pb2 import Summary
        self._event, self._summary = Event, Summary
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The suffix keeps apart two runs that open the same folder within one second.
            self._events = EventsWriter(str(folder / "events"), filename_suffix=f".{os.getpid()}")
            self._events.flush()
        except OSError as error:
            raise UserError(
                f"cannot write TensorBoard files to {folder} ({error.strerror or error}); "
                "choose a folder that you can write to, or turn TensorBoard off"
            ) from error

    def write(self, metrics: dict[str, float], t_env: int) -> None:
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._events.write_event(self._event(wall_time=time.time(), step=t_env, summary=self._summary(value=values)))
        self._events.flush()

    def close(self) -> None:
        # Every event was flushed when it was written, and what failed then was said then.
        with contextlib.suppress(OSError):
            self._events.close()
