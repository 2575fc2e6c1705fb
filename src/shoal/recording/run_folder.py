"""sacred's record in files, made to keep what it has when something around it breaks.

What sacred 0.8.7 loses without a word, and what is done about it here (for MongoDB: `shoal.recording.mongo_observer`):

* a metric that is a tensor or a full disk makes it drop the observer for the rest of the run: `file_observer`
  converts, keeps what it could not store and tries again;
* `metrics.json` is rewritten in place: a kill in that moment loses all of it. Ours is replaced at once, and seldom:
  what came since is in a journal (`shoal.recording.series`);
* metrics since the last heartbeat are lost in a kill, also those from before a checkpoint: `beat`;
* text printed since the last heartbeat is lost when a run fails: `flush_record`;
* printed text is read in two threads without a lock, which loses and misplaces pieces: `guard_output`;
* captured output over 16 MB cannot be stored in MongoDB: `bounded_output`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sacred.observers import FileStorageObserver
from sacred.serializer import flatten
from sacred.settings import SETTINGS
from sacred.stdout_capturing import TeeingStreamProxy

from shoal.recording.series import SeriesWriter
from shoal.utils.atomic import replace_file
from shoal.utils.errors import UserError

if TYPE_CHECKING:
    from sacred.run import Run

_log = logging.getLogger(__name__)

_HEAD = _TAIL = 2**20  # characters of captured output kept from the start and from the end of a run
_CUT = re.compile(r"\n\[\.\.\. (\d+) characters of output left out here \.\.\.\]\n")

_RESERVE = 256 * 1024  # bytes: what an end takes to record, all but a long run's metrics

_UID = "uid"

OF_THE_RECORD = (
    "local_results_path",
    "mongo_url",
    "use_tensorboard",
    "save_model",
    "save_model_interval",
    "keep_checkpoints",
    "save_buffer",
    "keep_buffers",
)
"""Settings that say where and how often a run is stored. They do not make it another run."""


MetricsByName = Mapping[str, Mapping[str, list[Any]]]
"""What sacred hands an observer at a heartbeat: per metric, new `values`, `steps` and `timestamps`."""


def plain(value: Any) -> Any:
    """Turns numpy, torch and jax scalars and arrays, paths, sets and dates into what JSON and BSON hold.

    Arrays become (nested) lists, mappings get text keys, an integer beyond 64 bits becomes text
    (BSON has no room for it), and so does anything unknown. NaN and infinities stay floats.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(int(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in list(value.items())}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):  # an array or scalar of numpy, torch or jax
        return plain(value.tolist())
    return str(value)


def uid_of(meta: MutableMapping[str, Any]) -> str:
    """What marks a run in all its records; given to it, in its `meta` information, by the first that asks."""
    uid: str = meta.setdefault(_UID, uuid.uuid4().hex)
    return uid


def redact(target: str) -> str:
    """A MongoDB address fit for showing: without user, password and options."""
    scheme, mark, rest = target.partition("://") if "://" in target else ("", "", target)
    _, at, address = rest.rpartition("@")
    return scheme + mark + ("***@" if at else "") + address.partition("?")[0]


# Captured output.


def bounded_output(text: str) -> str:
    """sacred's `captured_out_filter`: bounds what is recorded of a run's printed output.

    Backspaces and carriage returns are played out as a terminal would, so that a progress bar leaves its
    last state. Of very long output the first and the last 1 Mi characters stay (at most 8 MiB in UTF-8,
    half of what a MongoDB document holds) with a line between them saying how much is missing.

    sacred calls this with all the text so far, filtered before, plus the new piece:
    `bounded_output(bounded_output(a) + b)` says the same as `bounded_output(a + b)`.
    """
    if "\r" in text or "\b" in text:
        *lines, last = text.split("\n")
        text = "\n".join([*(_played_out(line)[0] for line in lines), "\r".join(_played_out(last))])
    if len(text) <= _HEAD + _TAIL:
        return text
    cut = _CUT.search(text, _HEAD // 2, _HEAD + 200)
    if cut is None:
        end = text.rfind("\n", _HEAD // 2, _HEAD)
        end = end if end >= 0 else _HEAD
        head, rest, dropped = text[:end], text[end:], 0
    else:
        head, rest, dropped = text[: cut.start()], text[cut.end() :], int(cut[1])
    if len(rest) <= _TAIL:
        return text
    dropped += len(rest) - _TAIL
    return f"{head}\n[... {dropped} characters of output left out here ...]\n{rest[-_TAIL:]}"


def _played_out(line: str) -> list[str]:
    """One line as a terminal shows it, and what stands left of its cursor unless that is at the end.

    Both joined by a carriage return print the same line and leave the cursor at the same place.
    """
    if "\r" not in line and "\b" not in line:
        return [line]
    cells: list[str] = []
    cursor = 0
    for piece in re.split(r"([\r\b])", line):
        if piece == "\r":
            cursor = 0
        elif piece == "\b":
            cursor = max(cursor - 1, 0)
        else:
            cells[cursor : cursor + len(piece)] = piece
            cursor += len(piece)
    shown = "".join(cells)
    return [shown] if cursor == len(cells) else [shown, shown[:cursor]]


def guard(run: Run) -> None:
    """Guards what sacred does in two threads without a lock. To be called first in a run's main function."""
    guard_output(run)
    lock, beat = threading.RLock(), run._emit_heartbeat

    def beat_alone() -> None:
        # Two at once: one may have taken new metrics from sacred and not stored them when the other returns.
        with lock:
            beat()

    run._emit_heartbeat = beat_alone  # type: ignore[method-assign]
    if run._heartbeat is not None:
        run._heartbeat.func = beat_alone


def beat(run: Run) -> None:
    """Brings all metrics logged so far to the observers of a running run, whose file record is then on the disk.

    To be called before a checkpoint is put in its place: what came before it is never recorded again. Never raises an
    `Exception`; the file record says itself what it cannot write.
    """
    try:
        run._emit_heartbeat()
    except Exception as error:
        _log.warning("the metrics so far could not be recorded (%s)", error)


def guard_output(run: Run) -> None:
    """Has sacred read all that a run's main function prints, each piece once.

    sacred reads the output in its heartbeat's thread and, at the end, in the run's own, without a lock: of two
    reads at once one is lost, a line printed during a read is written over another one, and what comes after the
    last read is left out.
    """
    out = run._output_file
    lock = threading.RLock()
    read, finalize = run._get_captured_output, out.finalize

    def read_all() -> None:
        with lock:
            if out.closed and out.final is not None:  # sacred would not look
                text, out.final = run.captured_out + out.final, None
                run.captured_out = text if run.captured_out_filter is None else run.captured_out_filter(text)
            read()

    def finalize_alone() -> None:
        with lock:
            finalize()

    run._get_captured_output = read_all  # type: ignore[method-assign]
    out.finalize = finalize_alone
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TeeingStreamProxy):
            stream._self_out = _Locked(stream._self_out, lock)


class _Locked:
    """Where sacred copies the output to, written to by one thread at a time."""

    def __init__(self, out: TextIO, lock: threading.RLock) -> None:
        self._out, self._lock = out, lock

    def write(self, text: str) -> int:
        with self._lock:
            return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()


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


# Files.


def file_observer(folder: Path | str) -> RunFolder:
    """A FileStorageObserver for `folder`; runs are numbered 1, 2, 3, ... in it.

    After the run has started, its `dir` (text) is the run's own folder.

    Raises:
        UserError: `folder` cannot be made or written to. Nothing has been launched then.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write_test_") as file:
            file.write(b"x")
    except OSError as error:
        raise UserError(
            f"cannot record runs in {folder} ({error.strerror or error}): "
            "choose a folder that you can write to, or free some space"
        ) from error
    # Absolute: heartbeats come while an environment may be in a folder of its own.
    return RunFolder(folder.absolute())


class RunFolder(FileStorageObserver):
    """Replaces files instead of rewriting them, and tries again at the next heartbeat after a full disk.

    Some room is kept from the start on for the last words of a run whose disk is full by then.
    """

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self.lacks = ""
        """Of a run that has ended: what could not be recorded, and why."""
        self._saved_cout, self._cout_bytes = "", 0
        self._complained = False

    def queued_event(self, *args: Any, **kwargs: Any) -> Any:
        uid_of(kwargs["meta_info"])
        # sacred would look for the sources in the working folder, and fail.
        kwargs["ex_info"] = {**kwargs["ex_info"], "sources": self.save_sources(kwargs["ex_info"])}
        self.copy_sources = False
        return super().queued_event(*args, **kwargs)

    def started_event(self, *args: Any, **kwargs: Any) -> Any:
        uid_of(kwargs["meta_info"])
        self._saved_cout, self._cout_bytes = "", 0
        self.lacks = ""
        number = super().started_event(*args, **kwargs)
        self._series = SeriesWriter(Path(self.dir))
        with contextlib.suppress(OSError), open(self._reserve, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE)
        return number

    @property
    def _reserve(self) -> Path:
        return Path(self.dir) / ".room_for_the_end"

    def _make_run_dir(self, _id: Any) -> None:
        # An id that came from MongoDB knows nothing of the folders here: one may exist.
        name, attempt = _id, 1
        while True:
            try:
                super()._make_run_dir(name)
                break
            except FileExistsError:
                if _id is None or attempt >= 1000:
                    raise
                attempt += 1
                name = f"{_id}-{attempt}"
        if name != _id:
            _log.warning("%s/%s exists already: this run is recorded in %s", self.basedir, _id, self.dir)

    def save_json(self, obj: Any, filename: str) -> None:
        self._replace(filename, json.dumps(flatten(obj), sort_keys=True, indent=2))

    def _replace(self, filename: str, text: str) -> None:
        replace_file(Path(self.dir) / filename, text.encode("utf-8", "replace"))

    def save_file(self, filename: str, target_name: str | None = None) -> None:
        target = Path(self.dir) / (target_name or Path(filename).name)
        copied = target.with_name(f"{target.name}.tmp")
        try:
            shutil.copyfile(filename, copied)
            copied.replace(target)
        except OSError:
            copied.unlink(missing_ok=True)
            raise

    def save_cout(self) -> None:
        # sacred remembers a position in the text; a filter that changes what is before it makes it wrong.
        if self.cout.startswith(self._saved_cout):
            new = self.cout[len(self._saved_cout) :].encode("utf-8", "replace")
            with open(os.path.join(self.dir, "cout.txt"), "ab") as file:
                file.truncate(self._cout_bytes)  # part of a piece, if the disk was full the last time
                file.write(new)
            self._cout_bytes += len(new)
        else:
            self._replace("cout.txt", self.cout)
            self._cout_bytes = os.path.getsize(os.path.join(self.dir, "cout.txt"))
        self._saved_cout = self.cout

    def log_metrics(self, metrics_by_name: MetricsByName, info: dict[str, Any]) -> None:
        # sacred's own reads the file back and rewrites it, indented: ever slower in a long run.
        self._series.add(
            {
                name: {
                    "values": plain(new["values"]),
                    "steps": plain(new["steps"]),
                    "timestamps": [moment.isoformat() for moment in new["timestamps"]],
                }
                for name, new in metrics_by_name.items()
            }
        )
        if not self._series.up_to_date:
            self._try(self._series.store)

    def heartbeat_event(self, info: Any, captured_out: str, beat_time: datetime, result: Any) -> None:
        event = super().heartbeat_event
        self._try(lambda: event(plain(info), captured_out, beat_time, plain(result)))

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        event = super().completed_event
        self._end("COMPLETED", lambda: event(stop_time, plain(result)))

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        event = super().interrupted_event
        self._end(status, lambda: event(interrupt_time, status))

    def failed_event(self, fail_time: datetime, fail_trace: Any) -> None:
        event = super().failed_event
        self._end("FAILED", lambda: event(fail_time, fail_trace))

    def _end(self, status: str, save: Callable[[], None]) -> None:
        """Record how the run ended, and what is still to be recorded; ``lacks`` says what could not be."""
        lacks = []
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)
        try:
            save()
        except OSError as error:
            lacks.append(f"its end ({status}; {error.strerror or error})")
        try:
            self._series.store(whole=True)
        except OSError as error:
            if not self._series.up_to_date:
                lacks.append(f"its last metrics ({error.strerror or error})")
        try:
            self.save_cout()
        except OSError as error:
            lacks.append(f"its last output ({error.strerror or error})")
        self.lacks = " and ".join(lacks)

    def artifact_event(self, name: str, filename: str, metadata: Any = None, content_type: Any = None) -> None:
        event = super().artifact_event
        self._try(lambda: event(name, filename, metadata, content_type))

    def resource_event(self, filename: str) -> None:
        event = super().resource_event
        self._try(lambda: event(filename))

    def _try(self, save: Callable[[], None]) -> None:
        # Letting an error out would make sacred drop this observer for the rest of the run.
        try:
            save()
        except OSError as error:
            if not self._complained:
                _log.warning("cannot write to %s now (%s); the run goes on and tries again", self.dir, error)
            self._complained = True
        else:
            self._complained = False


# The code that ran.


def git_commit(path: Path | str) -> dict[str, Any] | None:
    """The commit of the checkout around `path`: `{"commit": 40 hex digits, "dirty": bool}`.

    `dirty` says that tracked files differ from the commit. None where git or a commit is missing.
    Works in a checkout that belongs to another user (a container's bind mount), where git, and with
    it sacred's own record, refuses: we run this code already, so git may as well look at it.
    """
    folder = Path(path).resolve()
    command = ["git", "-c", "safe.directory=*", "-C", str(folder if folder.is_dir() else folder.parent)]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}

    def git(*words: str) -> str:
        return subprocess.run(
            [*command, *words], capture_output=True, text=True, timeout=10, check=True, env=environment
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--verify", "HEAD")
        dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return {"commit": commit, "dirty": dirty}
