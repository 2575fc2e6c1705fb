"""sacred's observers, made to keep their record when something around them breaks.

What sacred 0.8.7 loses without a word, and what is done about it here:

* a metric that is a tensor, a full disk or a server away for a minute makes it drop an observer for the
  rest of the run: `file_observer` and `mongo_observer` convert, keep what they could not store and try again;
* `metrics.json` is rewritten in place: a kill in that moment loses all of it. Ours is replaced at once;
* text printed since the last heartbeat is lost when a run fails: `flush_record`;
* captured output over 16 MB cannot be stored in MongoDB: `bounded_output`.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sacred.observers import FileStorageObserver, MongoObserver
from sacred.observers.mongo import parse_mongo_db_arg
from sacred.serializer import flatten
from sacred.settings import SETTINGS

from shoal.utils.errors import UserError

if TYPE_CHECKING:
    from sacred.run import Run

_log = logging.getLogger(__name__)

_HEAD = _TAIL = 2**20  # characters of captured output kept from the start and from the end of a run
_CUT = re.compile(r"\n\[\.\.\. (\d+) characters of output left out here \.\.\.\]\n")

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


def file_observer(folder: Path | str) -> FileStorageObserver:
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
    return _RunFolder(folder)


class _RunFolder(FileStorageObserver):
    """Replaces files instead of rewriting them, and tries again at the next heartbeat after a full disk."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self._measured: dict[str, dict[str, list[Any]]] = {}
        self._unsaved = False
        self._saved_cout = ""
        self._complained = False

    def started_event(self, *args: Any, **kwargs: Any) -> Any:
        self._measured, self._saved_cout = {}, ""
        return super().started_event(*args, **kwargs)

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
        path = os.path.join(self.dir, filename)
        with open(path + ".tmp", "w", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
        os.replace(path + ".tmp", path)

    def save_cout(self) -> None:
        # sacred remembers a position in the text; a filter that changes what is before it makes it wrong.
        if self.cout.startswith(self._saved_cout):
            with open(os.path.join(self.dir, "cout.txt"), "ab") as file:
                file.write(self.cout[len(self._saved_cout) :].encode("utf-8", "replace"))
        else:
            self._replace("cout.txt", self.cout)
        self._saved_cout = self.cout

    def log_metrics(self, metrics_by_name: MetricsByName, info: dict[str, Any]) -> None:
        # sacred's own reads the file back and rewrites it, indented: ever slower in a long run.
        for name, new in metrics_by_name.items():
            series = self._measured.setdefault(name, {"values": [], "steps": [], "timestamps": []})
            series["values"] += plain(new["values"])
            series["steps"] += plain(new["steps"])
            series["timestamps"] += [moment.isoformat() for moment in new["timestamps"]]
            self._unsaved = True
        if self._unsaved:
            self._try(self._save_metrics)

    def _save_metrics(self) -> None:
        self._replace("metrics.json", json.dumps(self._measured, sort_keys=True))
        self._unsaved = False

    def heartbeat_event(self, info: Any, captured_out: str, beat_time: datetime, result: Any) -> None:
        event = super().heartbeat_event
        self._try(lambda: event(plain(info), captured_out, beat_time, plain(result)))

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        super().completed_event(stop_time, plain(result))

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


# MongoDB.


def mongo_observer(
    target: str,
    timeout_s: float = 5.0,
    *,
    failure_dir: Path | str = "results/mongo_failures",
    warn: Callable[[str], None] = _log.warning,
) -> MongoObserver | None:
    """A MongoObserver, or None (and a word to `warn`) when the server does not answer.

    Args:
        target: `HOST:PORT:DB`, `HOST:PORT` or `DB` as sacred's `-m` takes them, `.COLLECTION` allowed behind
            the database, or a `mongodb://` URL, which may hold a password and whose path names the
            database ("sacred" without one). The password is never shown.
        timeout_s: Seconds to look for the server, now and whenever it is away later on.
        failure_dir: Folder for a pickle of the run's entry, should the server be away when the run ends.
        warn: Told in whole sentences about a server that is away, now and during the run.

    Raises:
        UserError: `target` cannot be understood, the server refuses us, or pymongo is not installed.
    """
    try:
        import pymongo
        from pymongo.errors import ConfigurationError, ConnectionFailure, OperationFailure, PyMongoError
    except ImportError as error:
        raise UserError(
            "recording to MongoDB needs pymongo: run `pip install 'pymongo>=4.6,<5'`, or leave MongoDB out"
        ) from error

    shown = redact(target)
    malformed = UserError(
        f"cannot understand the MongoDB address {shown!r}: give HOST:PORT:DB, or "
        "mongodb://USER:PASSWORD@HOST:PORT/DB with special characters in the password written as %XX"
    )
    if target.startswith(("mongodb://", "mongodb+srv://")):
        settings: dict[str, Any] = {"url": target}
    else:
        try:
            settings = parse_mongo_db_arg(target)
        except (AttributeError, ValueError):  # sacred's parser falls over its own failed match
            raise malformed from None
    milliseconds = int(timeout_s * 1000)
    try:
        client: Any = pymongo.MongoClient(
            settings.pop("url", None),
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=max(milliseconds, 20_000),
        )
        settings.setdefault("db_name", client.get_default_database(default="sacred").name)
    except ConnectionFailure:
        warn(f"MongoDB at {shown} does not answer; the run goes on with its file record alone")
        return None
    except (PyMongoError, ValueError, TypeError):
        raise malformed from None  # pymongo's message may quote a part of the password

    try:
        client.admin.command("ping")
        # A ping needs no rights. Looking for a run does.
        client[settings["db_name"]][settings.get("collection", "runs")].find_one({}, {"_id": 1})
        observer = _PatientMongo(client=client, failure_dir=str(failure_dir), **settings)
    except ConnectionFailure:
        client.close()
        warn(f"MongoDB at {shown} does not answer within {timeout_s:g} s; the run goes on with its file record alone")
        return None
    except (OperationFailure, ConfigurationError) as error:
        client.close()
        reason = (getattr(error, "details", None) or {}).get("codeName") or type(error).__name__
        raise UserError(
            f"MongoDB at {shown} refuses us ({reason}): check user, password and authSource in the URL"
        ) from None
    except (KeyError, RuntimeError) as error:  # a reserved collection; no run to overwrite
        client.close()
        raise UserError(f"MongoDB at {shown}: {error.args[0]}") from None
    observer.warn = warn
    return observer


def redact(target: str) -> str:
    """A MongoDB address fit for showing: without user, password and options."""
    scheme, mark, rest = target.partition("://") if "://" in target else ("", "", target)
    _, at, address = rest.rpartition("@")
    return scheme + mark + ("***@" if at else "") + address.partition("?")[0]


class _PatientMongo(MongoObserver):
    """Keeps what it could not store while the server is away, and stores it when the server is back."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self.warn: Callable[[str], None] = _log.warning
        self._pending: dict[str, dict[str, list[Any]]] = {}
        self._artifacts: list[tuple[Any, ...]] = []
        self._away = False
        self._off = False

    def started_event(self, *args: Any, **kwargs: Any) -> Any:
        from pymongo.errors import PyMongoError

        try:
            return super().started_event(*args, **kwargs)
        except PyMongoError as error:
            # It answered a moment ago. sacred would let the run die of this.
            self._off = True
            self.warn(f"MongoDB does not take this run ({type(error).__name__}); it goes on with its file record alone")
            return kwargs.get("_id")

    def log_metrics(self, metrics_by_name: MetricsByName, info: dict[str, Any]) -> None:
        if self._off:
            return
        for name, new in metrics_by_name.items():
            series = self._pending.setdefault(name, {"values": [], "steps": [], "timestamps": []})
            series["values"] += plain(new["values"])
            series["steps"] += plain(new["steps"])
            series["timestamps"] += new["timestamps"]
        self._catch_up(info)

    def heartbeat_event(self, info: Any, captured_out: str, beat_time: datetime, result: Any) -> None:
        event = super().heartbeat_event
        self._try(lambda: event(plain(info), bounded_output(captured_out), beat_time, plain(result)))

    def artifact_event(self, name: str, filename: str, metadata: Any = None, content_type: Any = None) -> None:
        if self._off:
            return
        # sacred prints a line about every type that it guesses itself.
        kind = content_type or mimetypes.guess_type(filename)[0] or "application/octet-stream"
        self._artifacts.append((name, filename, metadata, kind))
        self._send_artifacts()

    def resource_event(self, filename: str) -> None:
        event = super().resource_event
        self._try(lambda: event(filename))

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        self._finish(super().completed_event, stop_time, plain(result))

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        self._finish(super().interrupted_event, interrupt_time, status)

    def failed_event(self, fail_time: datetime, fail_trace: Any) -> None:
        self._finish(super().failed_event, fail_time, fail_trace)

    def final_save(self, attempts: int) -> None:
        super().final_save(min(attempts, 2))  # sacred's ten, each waiting for the server, take a minute and more

    def _finish(self, event: Callable[..., None], *args: Any) -> None:
        if self._off:
            return
        self._catch_up(self.run_entry["info"])
        if self._pending or self._artifacts:
            lost = sum(len(series["values"]) for series in self._pending.values())
            self.warn(
                f"MongoDB is away at the end of the run: {lost} metric values and {len(self._artifacts)} "
                "artifacts are in the file record only"
            )
        event(*args)

    def _catch_up(self, info: dict[str, Any]) -> None:
        for name in list(self._pending):
            if not self._try(self._push, name, info):
                return
            del self._pending[name]
        self._send_artifacts()

    def _push(self, name: str, info: dict[str, Any]) -> None:
        super().log_metrics({name: self._pending[name]}, info)
        if self._away:
            self._away = False
            self.warn("MongoDB answers again and gets what it has missed")

    def _send_artifacts(self) -> None:
        while self._artifacts and self._try(self._send, *self._artifacts[0]):
            self._artifacts.pop(0)

    def _send(self, *artifact: Any) -> None:
        try:
            super().artifact_event(*artifact)
        except OSError as error:  # the file; pymongo's errors are none
            self.warn(f"artifact {artifact[0]!r} does not reach MongoDB ({error})")

    def _try(self, act: Callable[..., None], *args: Any) -> bool:
        """False if the server is away. An error let out would make sacred drop this observer for good."""
        from pymongo.errors import ConnectionFailure

        if self._off:
            return False
        try:
            act(*args)
        except ConnectionFailure as error:
            if not self._away:
                self.warn(
                    f"MongoDB does not answer ({type(error).__name__}); what it misses is kept and sent when it is back"
                )
            self._away = True
            return False
        return True


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
