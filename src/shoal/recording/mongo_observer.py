"""sacred's observer for MongoDB, made so that a server can be away, die or forget without costing a run anything.

The run tells it what happened and continues; a thread of its own brings that to the server and tries again while it is
away. It keeps everything that the run has told, so a server that comes back with less than it had gets all of it.
What sacred's own observer does instead is in docs/recording.md.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sacred.observers import RunObserver

from shoal.recording.captured_output import bounded_output
from shoal.recording.file_record import MetricsByName, uid_of
from shoal.recording.mongo import Database, check, connect
from shoal.recording.mongo_run import FORMAT, Entry, MongoRun
from shoal.recording.plain import plain

_log = logging.getLogger(__name__)


def mongo_observer(target: str, timeout_s: float = 5.0, *, warn: Callable[[str], None] = _log.warning) -> MongoMirror:
    """The observer for the database that `target` names (see `shoal.recording.mongo.connect`).

    Args:
        target: Address.
        timeout_s: Seconds to look for the server, now and whenever it is away later on.
        warn: Told in whole sentences about a server that is away, now and during the run.

    Raises:
        UserError: `target` cannot be understood, the server refuses us, or pymongo is not installed.
    """
    database = connect(target, timeout_s)
    answers = check(database)
    if not answers:
        warn(
            f"MongoDB at {database.shown} does not answer within {timeout_s:g} s; the run continues with its file "
            "record and is sent when the server is back"
        )
    return MongoMirror(database, warn, away=not answers)


class MongoMirror(RunObserver):
    """Keeps a database's entry of the run up to date, whenever the server is there.

    Args:
        database: Where.
        warn: Told when the server goes away and when it is back.
        away: It is known not to answer, and that has been said.
        retry_s: Seconds between two attempts at a server that is away.
    """

    priority = 30  # above the file observer's: the run takes its number from here, as with sacred's own

    def __init__(
        self,
        database: Database,
        warn: Callable[[str], None] = _log.warning,
        away: bool = False,
        retry_s: float = 5.0,
    ) -> None:
        self._database, self._warn, self._retry_s = database, warn, retry_s
        self._news = threading.Condition()
        self._told = self._tried = self._delivered = 0  # versions of what is below
        self._document: dict[str, Any] = {}
        self._series: dict[str, dict[str, list[Any]]] = {}
        self._artifacts: dict[str, Path] = {}
        self._sources: list[tuple[str, Path]] = []
        self._resources: list[tuple[str, Path]] = []
        self._run: MongoRun | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._away = "not there" if away else ""  # what is wrong, as last said

    @property
    def up_to_date(self) -> bool:
        """Whether the database has all that the run has told."""
        return self._delivered == self._told

    # What sacred tells.

    def queued_event(
        self,
        ex_info: Mapping[str, Any],
        command: str,
        host_info: Mapping[str, Any],
        queue_time: datetime,
        config: Mapping[str, Any],
        meta_info: MutableMapping[str, Any],
        _id: Any,
    ) -> Any:
        number = self._begin(ex_info, command, host_info, config, meta_info, "QUEUED", _id)
        self.join()  # sacred does not, behind this event
        return number

    def started_event(
        self,
        ex_info: Mapping[str, Any],
        command: str,
        host_info: Mapping[str, Any],
        start_time: datetime,
        config: Mapping[str, Any],
        meta_info: MutableMapping[str, Any],
        _id: Any,
    ) -> Any:
        return self._begin(ex_info, command, host_info, config, meta_info, "RUNNING", _id, start_time=start_time)

    def _begin(
        self,
        ex_info: Mapping[str, Any],
        command: str,
        host_info: Mapping[str, Any],
        config: Mapping[str, Any],
        meta_info: MutableMapping[str, Any],
        status: str,
        number: Any,
        **times: datetime,
    ) -> Any:
        uid = uid_of(meta_info)
        base = Path(ex_info["base_dir"])
        self._sources = [(name, base / name) for name, _ in ex_info["sources"]]
        self._document = {
            "experiment": plain({**ex_info, "sources": []}),
            "format": FORMAT,
            "command": command,
            "host": plain(host_info),
            "config": plain(config),
            "meta": plain(meta_info),
            "status": status,
            "resources": [],
            "artifacts": [],
            "captured_out": "",
            "info": {},
            "heartbeat": None,
            **times,
        }
        self._run = MongoRun(self._database, uid, number)
        self._thread = threading.Thread(target=self._keep_sending, name="mongo", daemon=True)
        self._thread.start()
        self._wait_for_attempt(self._tell())
        return number if self._run.id is None else self._run.id

    def log_metrics(self, metrics_by_name: MetricsByName, info: dict[str, Any]) -> None:
        with self._news:
            for name, new in metrics_by_name.items():
                series = self._series.setdefault(name, {"values": [], "steps": [], "timestamps": []})
                series["values"] += plain(new["values"])
                series["steps"] += plain(new["steps"])
                series["timestamps"] += new["timestamps"]

    def heartbeat_event(self, info: Any, captured_out: str, beat_time: datetime, result: Any) -> None:
        self._tell(
            info=plain(info), captured_out=bounded_output(captured_out), heartbeat=beat_time, result=plain(result)
        )

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        self._tell(status="COMPLETED", stop_time=stop_time, result=plain(result))

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        self._tell(status=status, stop_time=interrupt_time)

    def failed_event(self, fail_time: datetime, fail_trace: Any) -> None:
        self._tell(status="FAILED", stop_time=fail_time, fail_trace=plain(fail_trace))

    def artifact_event(self, name: str, filename: str, metadata: Any = None, content_type: Any = None) -> None:
        if self._readable(filename, f"artifact {name!r}"):
            with self._news:
                self._artifacts[name] = Path(filename)
            version = self._tell()
            if not self._away:
                self._wait_for_attempt(version)  # the caller may delete the file next

    def resource_event(self, filename: str) -> None:
        if self._readable(filename, "a resource"):
            with self._news:
                self._resources.append((filename, Path(filename)))
            self._tell()

    def join(self) -> None:
        """Waits until all is delivered, or for one last attempt that failed. Ends the thread."""
        if self._thread is None:
            return
        with self._news:
            self._closing = True
            self._news.notify_all()
        while self._thread.is_alive():
            self._thread.join(0.1)  # without a timeout, Ctrl-C would wait too

    def _readable(self, filename: str, what: str) -> bool:
        if Path(filename).is_file():
            return True
        self._warn(f"{what} does not reach MongoDB: there is no file {filename}")
        return False

    def _tell(self, **changes: Any) -> int:
        with self._news:
            if self._document:  # else the run did not get as far as its start
                self._document.update(changes)
                self._told += 1
                self._news.notify_all()
            return self._told

    def _wait_for_attempt(self, version: int) -> None:
        with self._news:
            while self._tried < version:
                self._news.wait(0.1)

    # The thread that sends.

    def _keep_sending(self) -> None:
        assert self._run is not None
        while True:
            with self._news:
                if self._tried == self._told and not self._closing:
                    self._news.wait(None if self.up_to_date else self._retry_s)
                if self._tried == self._told and (self._closing or self.up_to_date):
                    if self._closing:
                        return
                    continue
                version, entry = self._told, self._snapshot()
            error = _attempt(self._run, entry)
            if error is None:
                self._delivered = version
            self._say(error)
            with self._news:
                self._tried = version
                self._news.notify_all()

    def _snapshot(self) -> Entry:
        series = {name: {key: list(values) for key, values in one.items()} for name, one in self._series.items()}
        return Entry(dict(self._document), series, dict(self._artifacts), list(self._sources), list(self._resources))

    def _say(self, error: Exception | None) -> None:
        from pymongo.errors import ConnectionFailure

        if error is None:
            if self._away:
                self._warn("MongoDB answers again and has received what it missed")
            self._away = ""
        elif self._away != (trouble := "not there" if isinstance(error, ConnectionFailure) else type(error).__name__):
            self._away = trouble
            how = "does not answer" if isinstance(error, ConnectionFailure) else "does not take all of this run"
            self._warn(f"MongoDB {how} ({type(error).__name__}); what it lacks is kept and sent again")


def _attempt(run: MongoRun, entry: Entry) -> Exception | None:
    try:
        run.bring(entry)
    except Exception as error:  # whatever it is, it ends neither the run nor this thread
        return error
    return None
