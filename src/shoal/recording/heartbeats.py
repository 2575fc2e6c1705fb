"""sacred's heartbeats, at which a run's metrics and output reach its records: one at a time, and when they are needed.

sacred 0.8.7 beats every ten seconds, in a thread of its own. What came since the last beat is lost in a kill, also
from before a checkpoint (`beat`); what was printed since is lost when a run fails (`flush_record`).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from sacred.settings import SETTINGS

from shoal.recording.captured_output import guard_output

if TYPE_CHECKING:
    from sacred.run import Run

_log = logging.getLogger(__name__)


def guard(run: Run) -> None:
    """Guards what sacred does in two threads without a lock. To be called first in a run's main function."""
    guard_output(run)
    guard_beats(run)


def guard_beats(run: Run) -> threading.RLock:
    """Has a run's heartbeats come one after another. Returns the lock that each of them holds."""
    lock, beat = threading.RLock(), run._emit_heartbeat

    def beat_alone() -> None:
        # Two at once: one may have taken new metrics from sacred and not stored them when the other returns.
        with lock:
            beat()

    run._emit_heartbeat = beat_alone  # type: ignore[method-assign]
    if run._heartbeat is not None:
        run._heartbeat.func = beat_alone
    return lock


def beat(run: Run) -> None:
    """Brings all metrics logged so far to the observers of a running run, whose file record is then on the disk.

    To be called before a checkpoint is put in its place: what came before it is never recorded again. Never raises an
    `Exception`; the file record says itself what it cannot write.
    """
    try:
        run._emit_heartbeat()
    except Exception as error:
        _log.warning("the metrics so far could not be recorded (%s)", error)


def flush_record(run: Run) -> None:
    """Brings the last printed lines and metrics to the observers of a run that is about to fail.

    To be called in the `except BaseException` around a run's work, last of all, and inside the captured
    main function: sacred takes no output once that has been left. Never raises an `Exception`.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        if (run.capture_mode or SETTINGS.CAPTURE_MODE) == "fd":
            time.sleep(0.2)  # the output goes through a `tee` process, which cannot be asked if it is done
        # Two heartbeats at once would tear the text: stop the thread (it beats once more), then beat.
        run._stop_heartbeat()
        if run._heartbeat is None or not run._heartbeat.is_alive():
            run._emit_heartbeat()
    except Exception as error:
        _log.warning("the last output of this run could not be recorded (%s)", error)
