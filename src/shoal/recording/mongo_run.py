"""One run's entry in a MongoDB in sacred's layout, which may be written again and again.

sacred 0.8.7 pushes points at the end of what the server holds, sources and artifacts under new names each time. After a
connection that broke, what arrived is unknown. Here every write says where it belongs, so that a repeated one changes
nothing, and a server that has lost something (or has everything from somebody else) is brought up to date.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sacred.observers import MongoObserver

from shoal.recording.mongo import Database

Series = Mapping[str, list[Any]]
"""One metric: `values`, `steps` and `timestamps`, equally long."""

FORMAT = MongoObserver.VERSION


@dataclass(frozen=True)
class Entry:
    """What a database is to say of a run.

    Attributes:
        document: sacred's document of the run, without `_id`. Its `meta` holds the run's `uid`.
        series: Metric name -> points.
        artifacts: Name -> file.
        sources: (name below the experiment's `base_dir`, file) of the code that ran.
        resources: (full name, file) of what it read.
    """

    document: Mapping[str, Any]
    series: Mapping[str, Series]
    artifacts: Mapping[str, Path]
    sources: Sequence[tuple[str, Path]] = ()
    resources: Sequence[tuple[str, Path]] = ()


class MongoRun:
    """One run in a database.

    Args:
        database: Where.
        uid: What marks the run wherever it is recorded (`meta.uid`); its `_id` differs from one database to the next.
        number: The `_id` that it should have, if that is free; else one more than the last.
        adds_only: What the database knows more of stays: what is brought may be older (`sync`).

    After the first `bring`, `id` is the run's `_id`.
    """

    def __init__(self, database: Database, uid: str, number: Any = None, adds_only: bool = False) -> None:
        self.id: Any = number if database.overwrite is None else database.overwrite
        self._database, self._uid, self._adds_only = database, uid, adds_only
        self._points: dict[str, int] = {}  # metric -> points that the server has
        self._metric_ids: dict[str, str] = {}
        self._artifacts: dict[str, tuple[tuple[int, int], Any]] = {}  # name -> (state of the file, its GridFS id)
        self._files: dict[tuple[str, Path], tuple[str, Any]] = {}

    def bring(self, entry: Entry) -> None:
        """Make the database say what `entry` says; what it says already is left alone.

        The document, with it the run's status, comes last: a run that is COMPLETED there is there as a whole. A metric
        or file that cannot be stored does not keep the others away.

        Raises:
            PyMongoError, BSONError: something could not be stored (the first of them).
            OSError: a file could not be read.
        """
        from bson.errors import BSONError
        from pymongo.errors import ConnectionFailure, PyMongoError

        self._find_or_insert(entry.document)
        failed: list[Exception] = []

        def attempt(what: Any, *args: Any) -> Any:
            try:
                return what(*args)
            except ConnectionFailure:
                raise  # the others would fail of it too, each after some seconds
            except (PyMongoError, BSONError, OverflowError, OSError) as error:
                failed.append(error)
                return None

        for name, series in entry.series.items():
            attempt(self._bring_metric, name, series)
        stored = {name: attempt(self._bring_artifact, name, path) for name, path in entry.artifacts.items()}
        base = Path(entry.document["experiment"]["base_dir"])
        sources = [(name, attempt(self._bring_file, str(base / name), path)) for name, path in entry.sources]
        resources = [(name, attempt(self._bring_file, name, path)) for name, path in entry.resources]
        document = {
            **entry.document,
            "experiment": {
                **entry.document["experiment"],
                "sources": [[name, found[1]] for name, found in sources if found],
            },
            "resources": [[name, found[0]] for name, found in resources if found],
            "artifacts": [{"name": name, "file_id": found} for name, found in stored.items() if found],
        }
        if self._metric_ids:
            metrics = [{"name": name, "id": found} for name, found in self._metric_ids.items()]
            document["info"] = {**entry.document.get("info", {}), "metrics": metrics}
        attempt(self._bring_document, document)
        if failed:
            raise failed[0]

    def _bring_document(self, document: Mapping[str, Any]) -> None:
        fields = {"status": 1, "heartbeat": 1, "artifacts": 1, "info.metrics": 1}
        there = (self._database.runs.find_one({"_id": self.id}, fields) if self._adds_only else None) or {}
        if _is_newer(there, document):  # ours is a record of files that a full disk cut short
            metrics = there.get("info", {}).get("metrics", []), document["info"].get("metrics", [])
            artifacts = there.get("artifacts", []), document["artifacts"]
            document = {"info.metrics": _by_name(*metrics), "artifacts": _by_name(*artifacts)}
        self._database.runs.update_one({"_id": self.id}, {"$set": document})

    def _find_or_insert(self, document: Mapping[str, Any]) -> None:
        from bson import ObjectId
        from pymongo.errors import DuplicateKeyError

        runs = self._database.runs
        found = runs.find_one({"meta.uid": self._uid}, {"_id": 1})
        if found is not None and found["_id"] == self.id:
            return
        # New here, or this is not the server that we knew: nothing that we believe of it holds.
        for belief in (self._points, self._metric_ids, self._artifacts, self._files):
            belief.clear()
        if found is not None:
            self.id = found["_id"]
            return
        fresh = {**document, "status": "QUEUED" if document["status"] == "QUEUED" else "RUNNING"}
        if self._database.overwrite is not None:
            old = runs.find_one_and_replace({"_id": self._database.overwrite}, fresh)
            if old is not None:
                dead = [ObjectId(metric["id"]) for metric in old.get("info", {}).get("metrics", [])]
                self._database.metrics.delete_many({"_id": {"$in": dead}})
                return
        runs.create_index("meta.uid", unique=True, sparse=True)
        while True:
            if self.id is None:
                last = runs.find_one({"_id": {"$type": "number"}}, {"_id": 1}, sort=[("_id", -1)])
                self.id = last["_id"] + 1 if last else 1
            try:
                runs.insert_one({"_id": self.id, **fresh})
                return
            except DuplicateKeyError:
                same = runs.find_one({"meta.uid": self._uid}, {"_id": 1})  # entered by somebody else just now
                self.id = same["_id"] if same else None
                if same:
                    return

    def _bring_metric(self, name: str, series: Series) -> None:
        known, length = self._points.get(name, 0), len(series["steps"])
        if known == length:
            return
        # The uid keeps apart runs of two collections, which share `metrics` and may share the `_id`.
        where = {"run_id": self.id, "name": name, "uid": self._uid}
        keys = ("steps", "values", "timestamps")
        if known:
            # The size guards against points that arrived without our knowing, and points that the server has lost.
            new = {key: {"$each": series[key][known:length]} for key in keys}
            if self._database.metrics.update_one({**where, "steps": {"$size": known}}, {"$push": new}).matched_count:
                self._points[name] = length
                return
        whole = {key: series[key][:length] for key in keys}
        stored = self._database.metrics.find_one(where, {"steps": 1}) if self._adds_only else None
        if stored is not None and len(stored["steps"]) >= length:
            self._points[name], self._metric_ids[name] = len(stored["steps"]), str(stored["_id"])
            return
        found = self._database.metrics.find_one_and_update(
            where, {"$set": whole}, {"_id": 1}, upsert=True, return_document=True
        )
        if found is None:  # two at once: the other one's
            found = self._database.metrics.find_one(where, {"_id": 1})
        self._points[name], self._metric_ids[name] = length, str(found["_id"])

    def _bring_artifact(self, name: str, path: Path) -> Any:
        from bson import ObjectId

        # A later file of the same name replaces the earlier one, as in the file record.
        before = self._artifacts.get(name)
        if before is not None and not path.exists():
            return before[1]
        state = path.stat()
        if before is not None and before[0] == (state.st_mtime_ns, state.st_size):
            return before[1]
        files = self._database.files
        address = f"artifact://{self._database.runs.name}/{self.id}/{name}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
            # Named after its content, so that a file that is there, in whole or in part, is known again.
            identity = ObjectId(hashlib.md5(f"{self._uid}/{name}/{digest}".encode()).digest()[:12])
            if not files.exists(identity):
                files.delete(identity)  # the chunks of an upload that was cut off
                file.seek(0)
                files.put(file, _id=identity, filename=address, content_type=_content_type(name))
        for old in files.find({"filename": address, "_id": {"$ne": identity}}):
            files.delete(old._id)
        self._artifacts[name] = (state.st_mtime_ns, state.st_size), identity
        return identity

    def _bring_file(self, name: str, path: Path) -> tuple[str, Any]:
        """A file that runs share, stored once for all of them: its digest and GridFS id."""
        if (name, path) not in self._files:
            files = self._database.files
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "md5").hexdigest()
                found = files.find_one({"filename": name, "metadata.md5": digest})
                file.seek(0)
                identity = found._id if found else files.put(file, filename=name, metadata={"md5": digest})
            self._files[name, path] = digest, identity
        return self._files[name, path]


def _is_newer(there: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """Whether the database has heard later of the run than who wrote ``document``, or of its end."""
    if document["status"] == "RUNNING" and there.get("status") in ("COMPLETED", "FAILED", "INTERRUPTED"):
        return True
    ours, theirs = document.get("heartbeat"), there.get("heartbeat")
    # MongoDB keeps milliseconds.
    return bool(ours and theirs and ours + timedelta(milliseconds=1) < theirs)


def _by_name(*lists: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each name, the latest."""
    return list({entry["name"]: entry for entries in lists for entry in entries}.values())


def _content_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
