"""sacred's record in files, made to keep what it has when something around it breaks.

What sacred 0.8.7 loses without a word, and what is done about it here (for MongoDB: `shoal.recording.mongo_observer`):

* a metric that is a tensor or a full disk makes it drop the observer for the rest of the run: `FileRecord` converts,
  keeps what it could not store and tries again;
* `metrics.json` is rewritten in place: a kill in that moment loses all of it. Ours is replaced at once, and seldom:
  what came since is in a journal (`shoal.recording.series`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.serializer import flatten

from shoal.recording.plain import plain
from shoal.recording.series import SeriesWriter
from shoal.utils.atomic import replace_file
from shoal.utils.errors import UserError

_log = logging.getLogger(__name__)

_RESERVE = 256 * 1024  # bytes: what an end takes to record, all but a long run's metrics

_UID = "uid"

MetricsByName = Mapping[str, Mapping[str, list[Any]]]
"""What sacred hands an observer at a heartbeat: per metric, new `values`, `steps` and `timestamps`."""


def uid_of(meta: MutableMapping[str, Any]) -> str:
    """What marks a run in all its records; given to it, in its `meta` information, by the first that asks."""
    uid: str = meta.setdefault(_UID, uuid.uuid4().hex)
    return uid


def file_observer(folder: Path | str) -> FileRecord:
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
    return FileRecord(folder.absolute())


class FileRecord(FileStorageObserver):
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
                _log.warning("cannot write to %s now (%s); the run continues and tries again", self.dir, error)
            self._complained = True
        else:
            self._complained = False
