"""Recorded runs brought to MongoDB after the fact, as often as one likes."""

import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shoal.recording.captured_output import bounded_output
from shoal.recording.mongo import Database, check, connect
from shoal.recording.mongo_address import MONGO_VARIABLE, redact
from shoal.recording.mongo_run import FORMAT, Entry, MongoRun
from shoal.recording.plain import plain
from shoal.recording.reader import RUN_FILE, Record, model_dir_of, moment, read_record
from shoal.utils.checkpoint import BEST
from shoal.utils.errors import UserError


def bring(folders: Sequence[Path], target: str | None) -> int:
    """Bring runs to a database, and say of each how it went. Returns 0 if every run is in the database now, else 1.

    Args:
        folders: recorded runs, or folders of them.
        target: the database's address; None for that of the environment, or else of each run.

    Raises:
        UserError: a database cannot be used.
    """
    runs = [run for folder in folders for run in _runs_in(folder)]
    databases: dict[str, Database | None] = {}
    failed = 0
    for run in runs:
        try:
            print(_sync(run, target, databases))
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
    if len(runs) > 1:
        print(f"{len(runs) - failed} of {len(runs)} runs are in MongoDB")
    return 1 if failed else 0


def _runs_in(folder: Path) -> list[Path]:
    if (folder / RUN_FILE).is_file() or not folder.is_dir():
        return [folder]
    inside = sorted((path.parent for path in folder.glob(f"*/{RUN_FILE}")), key=lambda run: (len(run.name), run.name))
    return inside or [folder]


def _sync(folder: Path, target: str | None, databases: dict[str, Database | None]) -> str:
    entry = read_entry(folder)
    address = target or os.environ.get(MONGO_VARIABLE) or entry.document["config"].get("mongo_url")
    if not address:
        raise UserError(
            f"{folder}: to which MongoDB? Give -m HOST:PORT:DB, or set the environment variable {MONGO_VARIABLE}."
        )
    database = _open(str(address), databases)
    run = MongoRun(database, entry.document["meta"]["uid"], adds_only=True)
    try:
        run.bring(entry)
    except Exception as error:  # pymongo's, bson's and the file system's: the next run may fare better
        raise UserError(f"{folder} is not (all) in MongoDB at {database.shown}: {type(error).__name__}.") from error
    return (
        f"{folder} is run {run.id} in MongoDB at {database.shown}: {entry.document['status']}, "
        f"{len(entry.series)} metrics, {len(entry.artifacts)} files"
    )


def _open(address: str, databases: dict[str, Database | None]) -> Database:
    if address not in databases:
        database = connect(address)
        if database.overwrite is not None:
            raise UserError("sync never overwrites runs: drop the run number from the address.")
        databases[address] = database if check(database) else None
    found = databases[address]
    if found is None:
        raise UserError(f"MongoDB at {redact(address)} does not answer: is it running, and is the address right?")
    return found


def read_entry(folder: Path) -> Entry:
    """What a database is to say of the run recorded in `folder`.

    Raises:
        UserError: there is no readable record, or its run is still going.
    """
    record = read_record(folder, strict=True)
    if record.status == "RUNNING":
        raise UserError(f"{folder} is still running, or was two minutes ago: sync it after it has ended.")
    try:
        return _entry(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} is not a run that sacred has recorded ({type(error).__name__}: {error}).") from error


def _entry(record: Record) -> Entry:
    folder, entry = record.folder, record.entry
    experiment = entry["experiment"]
    document = {
        "experiment": plain(experiment),
        "format": FORMAT,
        "command": entry["command"],
        "host": plain(entry["host"]),
        "config": plain(record.config),
        "meta": plain(_marked(record)),
        "status": entry["status"],
        "captured_out": bounded_output(_text(folder / "cout.txt")),
        "info": plain(record.info),
        "result": plain(entry.get("result")),
        "heartbeat": record.heartbeat,
        "start_time": record.started,
        "stop_time": record.stopped,
        "fail_trace": entry.get("fail_trace"),
    }
    return Entry(
        {key: value for key, value in document.items() if value is not None or key in ("heartbeat", "result")},
        {name: _series(series) for name, series in record.series.items()},
        _artifacts(folder, entry.get("artifacts", [])),
        [(name, folder.parent / stored) for name, stored in experiment.get("sources", [])],
        [(name, Path(stored)) for name, stored in entry.get("resources", [])],
    )


def _marked(record: Record) -> dict[str, Any]:
    """Its `meta`, with a mark; an old record, or one of another program, is marked by what tells it from others."""
    meta = dict(record.entry["meta"])
    if "uid" not in meta:
        mark = json.dumps([record.entry["host"], record.entry.get("start_time"), record.config], sort_keys=True)
        meta["uid"] = uuid.uuid5(uuid.NAMESPACE_OID, mark).hex
    return meta


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _series(recorded: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        "steps": plain(recorded["steps"]),
        "values": plain(recorded["values"]),
        "timestamps": [moment(text) for text in recorded["timestamps"]],
    }


def _artifacts(folder: Path, names: list[str]) -> dict[str, Path]:
    """Those of the record, and the best checkpoint of a run that was killed before it could record it."""
    found = {name: folder / name for name in names}
    models = model_dir_of(folder)
    best = None if models is None else models / BEST
    if best is not None and best.is_file():
        found.setdefault(BEST, best)
    return found
