"""sacred's record of a run whose work is done in several calls, as in a notebook, instead of in one main function."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sacred.stdout_capturing import get_stdcapturer
from sacred.utils import IntervalTimer

from shoal.recording.captured_output import guard_output
from shoal.recording.heartbeats import guard_beats

if TYPE_CHECKING:
    from sacred.run import Run


class RecordInPieces:
    """What sacred 0.8.7's ``Run.__call__`` does around its main function, taken apart.

    Every call's work goes into ``captured``; ``start`` within the first; ``complete`` or ``fail`` after the last.
    Output between the calls is the program's own and is not recorded.
    """

    def __init__(self, run: Run) -> None:
        run.observers = sorted(run.observers, key=lambda one: -one.priority)
        self.run = run
        self._lock = guard_beats(run)

    def start(self) -> None:
        """Make the record."""
        run = self.run
        run._emit_started()
        if run.beat_interval > 0:
            run._stop_heartbeat_event, run._heartbeat = IntervalTimer.create(run._emit_heartbeat, run.beat_interval)
            run._heartbeat.daemon = True  # a program that closes nothing would wait for it, and never come to its end
            run._heartbeat.start()

    @contextlib.contextmanager
    def captured(self) -> Iterator[None]:
        """What is printed inside goes into the record too."""
        run = self.run
        _, capture = get_stdcapturer("sys" if run.observers else "no")
        try:
            with capture() as out:
                with self._lock:  # no heartbeat meanwhile
                    run._output_file = out
                    vars(run).pop("_get_captured_output", None)  # the guard of the output before
                    guard_output(run)
                yield
        finally:
            run._get_captured_output()

    def complete(self, result: float | None) -> None:
        """The run has come to its end."""
        run = self.run
        run.result = result
        elapsed = run._stop_time()
        run.run_logger.info("Completed after %s", elapsed)
        run._stop_heartbeat()
        run._emit_completed(result)
        self._finish()

    def fail(self, error: BaseException | None = None) -> None:
        """The run has failed or, for a ``KeyboardInterrupt`` or no error at all, was stopped before its end."""
        run = self.run
        if run.start_time is None:  # no observer could be told that it started
            return
        run._stop_heartbeat()
        if error is None or isinstance(error, KeyboardInterrupt):
            run._emit_interrupted("INTERRUPTED")
        else:
            run._emit_failed(type(error), error, error.__traceback__)
        self._finish()

    def _finish(self) -> None:
        sys.stdout.flush()
        self.run._warn_about_failed_observers()
        self.run._wait_for_observers()
