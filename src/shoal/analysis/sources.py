"""Any set of recorded runs: folders of runs, single runs, MongoDB databases."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from shoal.analysis.records import RecordedRun, read_records
from shoal.analysis.starts import joined
from shoal.recording import mongo
from shoal.recording.mongo_address import MONGO_VARIABLE
from shoal.recording.reader import Record, records_in
from shoal.utils.errors import UserError

_ADDRESS = re.compile(r"mongodb(\+srv)?://|[^/:\s]+:\d+(:|$)")


def gather(sources: Sequence[str], where: Sequence[str] = ()) -> list[RecordedRun]:
    """All runs of the sources, each once, resumed ones as one, in the order of their numbers.

    Args:
        sources: each a recorded run's folder, a folder of such folders (``results/sacred``), a folder that holds a
            ``sacred``, a MongoDB address (``HOST:PORT:DB`` or ``mongodb://...``), or ``mongo`` for the address in the
            environment variable SHOAL_MONGO_URL.
        where: ``KEY=VALUE`` or ``KEY=VALUE,VALUE``: only runs with these settings (``env_args.map_name=3m``).

    Raises:
        UserError: a source does not exist or cannot be read, or no run is left.
    """
    found = [one for source in sources for one in _find(source)]
    read = {record.folder: record for record in read_records([one for one in found if isinstance(one, Path)])}
    records = [read.get(one) if isinstance(one, Path) else one for one in found]
    runs = joined(_once([record for record in records if record is not None]))
    if not runs:
        raise UserError(f"No recorded run in {', '.join(sources)}: give a folder such as results/sacred.")
    for condition in where:
        key, equals, values = condition.partition("=")
        if not equals:
            raise UserError(f"--where {condition} was not understood: write KEY=VALUE, as in env_args.map_name=3m.")
        wanted = values.split(",")
        if not any(key in run.settings for run in runs):
            raise UserError(f"--where {condition}: no run has a setting {key}.")
        runs = [run for run in runs if str(run.settings.get(key)) in wanted]
        if not runs:
            raise UserError(f"No run has {condition}: leave it out, or name a value that runs have.")
    return runs


def _once(records: Sequence[Record]) -> list[Record]:
    """The records without those of runs that were read already, from files and MongoDB both."""
    seen: set[str] = set()
    kept = []
    for record in records:
        mark = record.uid or str(record.folder.resolve())
        if mark not in seen:
            kept.append(record)
        seen.add(mark)
    return kept


def _find(source: str) -> Sequence[Path | Record]:
    """Folders of records, or the records of a database."""
    path = Path(source)
    if path.is_dir():
        return _folders_in(path)
    if source == "mongo":
        if not os.environ.get(MONGO_VARIABLE):
            raise UserError(f"'mongo' stands for the address in {MONGO_VARIABLE}, which is not set.")
        return _read_mongo(os.environ[MONGO_VARIABLE])
    if _ADDRESS.match(source):
        return _read_mongo(source)
    raise UserError(f"There is no folder {source}: give recorded runs, a folder of them, or a MongoDB's HOST:PORT:DB.")


def _folders_in(folder: Path) -> list[Path]:
    if (folder / "config.json").exists():
        return [folder]
    if (folder / "sacred").is_dir():
        folder = folder / "sacred"
    found = [path.parent for path in folder.glob("*/config.json")]
    return sorted(found, key=lambda path: _natural(path.name))


def _natural(name: str) -> tuple[int, str]:
    """2 before 10."""
    digits = re.match(r"\d*", name)
    return int(digits[0]) if digits and digits[0] else 0, name


def _read_mongo(target: str) -> list[Record]:
    from pymongo.errors import PyMongoError

    database = mongo.connect(target)
    if not mongo.check(database):
        raise UserError(f"MongoDB at {database.shown} does not answer: start it, or read the file records instead.")
    try:
        return records_in(database.runs, database.metrics, database.shown)
    except PyMongoError as error:  # its text may quote a password
        raise UserError(
            f"MongoDB at {database.shown} stopped answering ({type(error).__name__}): try again, or read the files."
        ) from None
