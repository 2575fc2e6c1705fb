"""Reaching a MongoDB that holds runs in sacred's layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sacred.observers import MongoObserver
from sacred.observers.mongo import parse_mongo_db_arg

from shoal.recording.mongo_address import redact
from shoal.utils.errors import UserError
from shoal.utils.extras import needed_for


@dataclass(frozen=True)
class Database:
    """Where runs are kept: sacred's collections `runs` and `metrics`, and GridFS.

    `shown` is the address without its secrets; `overwrite` the `_id` of a run whose place the next one takes.
    """

    runs: Any
    metrics: Any
    files: Any
    shown: str
    overwrite: int | None = None


def connect(target: str, timeout_s: float = 5.0) -> Database:
    """The database that `target` names. Does not look whether it is there: `check` does.

    Args:
        target: `HOST:PORT:DB`, `HOST:PORT` or `DB` as sacred's `-m` takes them, `.COLLECTION` (or `.COLLECTION:ID`, a
            run to overwrite) allowed behind the database, or a `mongodb://` URL, which may hold a password and whose
            path names the database ("sacred" without one). The password is never shown.
        timeout_s: Seconds to look for the server each time it is needed.

    Raises:
        UserError: `target` cannot be understood, or pymongo is not installed.
    """
    with needed_for("MongoDB", "mongo"):
        import gridfs
        import pymongo
        from pymongo.errors import PyMongoError

    shown = redact(target)
    malformed = UserError(
        f"cannot understand the MongoDB address {shown!r}: give HOST:PORT:DB, or "
        "mongodb://USER:PASSWORD@HOST:PORT/DB with special characters in the password written as %XX"
    )
    if target.startswith(("mongodb://", "mongodb+srv://")):
        parsed: dict[str, Any] = {"url": target}
    else:
        try:
            parsed = parse_mongo_db_arg(target)
        except (AttributeError, ValueError):  # sacred's parser falls over its own failed match
            raise malformed from None
    milliseconds = int(timeout_s * 1000)
    try:
        client: Any = pymongo.MongoClient(
            parsed.get("url"),
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=4 * milliseconds,
        )
        database = client[parsed.get("db_name") or client.get_default_database(default="sacred").name]
    except (PyMongoError, ValueError, TypeError):
        raise malformed from None  # pymongo's message may quote a part of the password
    collection = parsed.get("collection", "runs")
    if collection in MongoObserver.COLLECTION_NAME_BLACKLIST | {"metrics"}:
        raise UserError(f"MongoDB at {shown}: the collection {collection!r} holds something else, choose another name")
    overwrite = int(parsed["overwrite"]) if "overwrite" in parsed else None
    return Database(database[collection], database["metrics"], gridfs.GridFS(database), shown, overwrite)


def check(database: Database) -> bool:
    """Whether the server answers.

    Raises:
        UserError: It answers and refuses us, or has no run to overwrite.
    """
    from pymongo.errors import ConfigurationError, ConnectionFailure, OperationFailure

    wanted = {} if database.overwrite is None else {"_id": database.overwrite}
    try:
        # A ping needs no rights. Looking for a run does.
        found = database.runs.find_one(wanted, {"_id": 1})
    except ConnectionFailure:
        if database.overwrite is not None:
            raise UserError(
                f"MongoDB at {database.shown} does not answer, so run {database.overwrite} cannot be overwritten"
            ) from None
        return False
    except (OperationFailure, ConfigurationError) as error:
        reason = (getattr(error, "details", None) or {}).get("codeName") or type(error).__name__
        raise UserError(
            f"MongoDB at {database.shown} refuses us ({reason}): check user, password and authSource in the URL"
        ) from None
    if database.overwrite is not None and found is None:
        raise UserError(f"MongoDB at {database.shown} has no run {database.overwrite} to overwrite")
    return True
