"""`python src/main.py sync RUN_DIR ...`: recorded runs brought to MongoDB after the fact, as often as one likes."""

import json
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shoal.recording.captured_output import bounded_output
from shoal.recording.mongo import Database, check, connect
from shoal.recording.mongo_address import MONGO_VARIABLE, redact
from shoal.recording.mongo_run import FORMAT, Entry, MongoRun
from shoal.recording.plain import plain
from shoal.recording.series import SERIES_FILE, Series, read_series
from shoal.utils.checkpoint import BEST, MODEL_DIR_FILE
from shoal.utils.errors import UserError

HELP = f"""Brings recorded runs to MongoDB: those made while it was away, cut short by its end, or recorded elsewhere.

  python src/main.py sync RUN_DIR ... [-m HOST:PORT:DB]

  RUN_DIR           a recorded run (results/sacred/7), or a folder of them (results/sacred)
  -m HOST:PORT:DB   the database; else the environment variable {MONGO_VARIABLE} (an address with a password belongs
                    there), else the run's own mongo_url

What the database has already is left alone: a run that was partly sent is completed, one that is whole stays as it is.
"""

ALIVE = timedelta(minutes=2)
"""A run whose last heartbeat is older than this has ended, whatever its record says (Omniboard counts the same way)."""


def main(args: list[str]) -> int:
    """Run the command. Exit status 0 if every run is in the database now, else 1.

    Raises:
        UserError: the command line cannot be understood, or a database cannot be used.
    """
    if {"-h", "--help"} & set(args):
        print(HELP)
        return 0
    folders, target = _parse(args)
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


def _parse(args: list[str]) -> tuple[list[Path], str | None]:
    folders, target, rest = [], None, list(args)
    while rest:
        word = rest.pop(0)
        if word in ("-m", "--mongo_db"):
            if not rest:
                raise UserError(f"{word} wants an address: {word} HOST:PORT:DB.")
            target = rest.pop(0)
        elif word.startswith(("-m=", "--mongo_db=")):
            target = word.partition("=")[2]
        elif word.startswith("-"):
            raise UserError(f"sync has no option {word}: see python src/main.py sync --help.")
        else:
            folders.append(Path(word))
    if not folders:
        raise UserError("sync wants recorded runs: python src/main.py sync results/sacred/7 (see sync --help).")
    return folders, target


def _runs_in(folder: Path) -> list[Path]:
    if (folder / "run.json").is_file() or not folder.is_dir():
        return [folder]
    inside = sorted((path.parent for path in folder.glob("*/run.json")), key=lambda run: (len(run.name), run.name))
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
            raise UserError("sync overwrites no run: leave the number behind the collection out.")
        databases[address] = database if check(database) else None
    found = databases[address]
    if found is None:
        raise UserError(f"MongoDB at {redact(address)} does not answer: is it running, and is the address right?")
    return found


def read_entry(folder: Path) -> Entry:
    """What a database is to say of the run recorded in `folder`.

    Raises:
        UserError: there is no readable record, or its run goes on.
    """
    record, config = _json(folder, "run.json"), _json(folder, "config.json")
    try:
        started, heartbeat = _moment(record.get("start_time")), _moment(record.get("heartbeat"))
        latest = heartbeat or started
        if record["status"] == "RUNNING" and latest and datetime.now(UTC).replace(tzinfo=None) - latest < ALIVE:
            raise UserError(f"{folder} is still running, or was two minutes ago: sync it when it has ended.")
        meta = dict(record["meta"])
        if "uid" not in meta:  # a record of before, or of another program: what tells it from others marks it
            mark = json.dumps([record["host"], record.get("start_time"), config], sort_keys=True)
            meta["uid"] = uuid.uuid5(uuid.NAMESPACE_OID, mark).hex
        experiment = record["experiment"]
        document = {
            "experiment": plain(experiment),
            "format": FORMAT,
            "command": record["command"],
            "host": plain(record["host"]),
            "config": plain(config),
            "meta": plain(meta),
            "status": record["status"],
            "captured_out": bounded_output(_text(folder / "cout.txt")),
            "info": plain(_json(folder, "info.json", {})),
            "result": plain(record.get("result")),
            "heartbeat": heartbeat,
            "start_time": started,
            "stop_time": _moment(record.get("stop_time")),
            "fail_trace": record.get("fail_trace"),
        }
        return Entry(
            {key: value for key, value in document.items() if value is not None or key in ("heartbeat", "result")},
            {name: _series(series) for name, series in _metrics(folder).items()},
            _artifacts(folder, record.get("artifacts", [])),
            [(name, folder.parent / stored) for name, stored in experiment.get("sources", [])],
            [(name, Path(stored)) for name, stored in record.get("resources", [])],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} is not a run that sacred has recorded ({type(error).__name__}: {error}).") from error


def _json(folder: Path, name: str, missing: Any = None) -> Any:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise UserError(f"{folder} is not a recorded run: it has no {name}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / name} cannot be read ({error}).") from error


def _metrics(folder: Path) -> Series:
    try:
        return read_series(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / SERIES_FILE} cannot be read ({error}).") from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _series(recorded: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        "steps": plain(recorded["steps"]),
        "values": plain(recorded["values"]),
        "timestamps": [_moment(text) for text in recorded["timestamps"]],
    }


def _artifacts(folder: Path, names: list[str]) -> dict[str, Path]:
    """Those of the record, and the best checkpoint of a run that was killed before it could record it."""
    found = {name: folder / name for name in names}
    note = folder / MODEL_DIR_FILE
    best = Path(note.read_text().strip()) / BEST if note.is_file() else None
    if best is not None and best.is_file():
        found.setdefault(BEST, best)
    return found
