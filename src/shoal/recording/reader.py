"""The one reader of runs' records: what sacred keeps of a run in a folder of files, or in a MongoDB.

A run that was stopped and resumed has a record for each of its starts. What those records tell together is
``shoal.analysis.records``.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shoal.recording.series import Series, has_series, read_series
from shoal.utils.errors import UserError

RUN_FILE, CONFIG_FILE, INFO_FILE = "run.json", "config.json", "info.json"
MODEL_DIR_FILE = "model_dir.txt"
"""In a run's record: where its checkpoints are."""
SETTINGS_FILE = "settings.yaml"
"""In a run's record and in a sweep's folder of a run: every setting, in a form that may follow `with`."""

SILENCE = timedelta(minutes=2)
"""A run that is alive says so every ten seconds; one that has been silent for this long has died."""


@dataclass(frozen=True)
class Record:
    """One start of a run, as sacred recorded it.

    Attributes:
        folder: Where the record is; of one in a MongoDB, the database's address and the run's number.
        config: The settings, those of the environment nested under ``env_args``.
        series: Metric -> its ``steps``, ``values`` and ``timestamps``.
        entry: ``run.json``, or the document in MongoDB: ``status``, ``start_time``, ``stop_time``, ``heartbeat``,
            ``host``, ``meta``, ``fail_trace`` and more; empty where it is missing or damaged.
        info: ``info.json``: ``model_dir``, ``resumed`` and ``git``.
    """

    folder: Path
    config: dict[str, Any]
    series: Mapping[str, Mapping[str, Any]]
    entry: Mapping[str, Any]
    info: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Its number."""
        return self.folder.name

    @property
    def uid(self) -> str:
        """What marks the run in files and in MongoDB alike; empty in old records."""
        return str((self.entry.get("meta") or {}).get("uid", ""))

    @property
    def status(self) -> str:
        """As sacred has it (COMPLETED, FAILED, INTERRUPTED, RUNNING, ...), "?" where nothing says it.

        A run that is RUNNING by its record but has been silent for two minutes is DIED.
        """
        status = str(self.entry.get("status", "?"))
        return "DIED" if status == "RUNNING" and self._is_silent() else status

    def _is_silent(self) -> bool:
        latest = self.heartbeat or self.started
        return latest is None or datetime.now(UTC).replace(tzinfo=None) - latest >= SILENCE  # sacred's clock is UTC

    @property
    def started(self) -> datetime | None:
        """When it started, in UTC."""
        return moment(self.entry.get("start_time"))

    @property
    def heartbeat(self) -> datetime | None:
        """Its last sign of life, in UTC."""
        return moment(self.entry.get("heartbeat"))

    @property
    def stopped(self) -> datetime | None:
        """When it ended, in UTC; None if it has not, or could not say so."""
        return moment(self.entry.get("stop_time"))

    @property
    def seconds(self) -> float:
        """From its start to its end, or to its last sign of life; NaN where the record does not say."""
        return seconds_between(self.started, self.stopped or self.heartbeat)

    @property
    def failure(self) -> str:
        """The last line of the traceback of one that FAILED."""
        lines = [line.strip() for line in self.entry.get("fail_trace") or []]
        return next((line for line in reversed(lines) if line), "")

    @property
    def host(self) -> str:
        """The machine that it ran on."""
        return str((self.entry.get("host") or {}).get("hostname", ""))

    @property
    def commit(self) -> str:
        """The first seven digits of the commit of its code."""
        return str((self.info.get("git") or {}).get("commit", ""))[:7]

    @property
    def model_dir(self) -> str:
        """Where its checkpoints went; a resumed run continues in the folder of the one before."""
        return str(self.info.get("model_dir") or "")

    @property
    def resumed_at(self) -> int | None:
        """The environment step of the checkpoint that it was resumed from; None if it began anew, or is old."""
        return self._resumed.get("t_env")

    @property
    def resumed_from(self) -> str:
        """The ``uid`` of the record whose run wrote that checkpoint."""
        return str(self._resumed.get("record", ""))

    @property
    def start(self) -> int | None:
        """Its place among the starts from one folder of checkpoints; None for the first, and in old records."""
        return self._resumed.get("start")

    @property
    def _resumed(self) -> Mapping[str, Any]:
        return self.info.get("resumed") or {}

    @property
    def run(self) -> tuple[Path, str]:
        """The same for all records of one run, see ``run_of``. An evaluation is a run of its own."""
        return run_of(self.folder, "" if self.config.get("evaluate") else self.model_dir)


def run_of(folder: Path, model_dir: str) -> tuple[Path, str]:
    """What the records of one run have in common: where they are, and the name of their folder of checkpoints.

    Only the name: a run may be resumed by another path than it was begun with.
    """
    return (folder.resolve().parent, Path(model_dir).name) if model_dir else (folder.resolve(), "")


def read_record(folder: Path, with_series: bool = True, strict: bool = False) -> Record:
    """Read the record in ``folder``, while it is written, too.

    Args:
        folder: A recorded run.
        with_series: Read the metrics, which are most of a long run's record.
        strict: Refuse a record without a readable ``run.json``.

    Raises:
        UserError: The folder holds no record, or a damaged one.
    """
    try:
        entry = _mapping(folder, RUN_FILE)
    except UserError:
        if strict:
            raise
        entry = {}
    config = _mapping(folder, CONFIG_FILE)
    info = _info(folder)
    if with_series and not entry and not has_series(folder):  # with an entry, it ended before it measured anything
        raise UserError(f"{folder} is not a recorded run: it has no metrics.json.")
    return Record(folder, config, _series(folder) if with_series else {}, entry, info)


def records_in(runs: Any, metrics: Any, shown: str) -> list[Record]:
    """The records of a MongoDB in sacred's layout, in the order of their numbers.

    Args:
        runs: Its collection of runs.
        metrics: Its collection of metrics.
        shown: The database's address without secrets.
    """
    series: dict[Any, dict[str, Any]] = {}
    for metric in metrics.find():  # runs of two collections share the metrics: a mark tells apart those of one number
        series.setdefault((metric["run_id"], metric.get("uid")), {})[metric["name"]] = metric
    found = []
    for entry in runs.find(sort=[("_id", 1)]):
        number = entry["_id"]
        own = series.get((number, None), {}) | series.get((number, entry.get("meta", {}).get("uid")), {})
        found.append(Record(Path(shown) / str(number), entry.get("config", {}), own, entry, entry.get("info", {})))
    return found


def model_dir_of(folder: Path) -> Path | None:
    """Where the run recorded in ``folder`` put its checkpoints; None where its record does not say."""
    note = folder / MODEL_DIR_FILE
    return Path(note.read_text().strip()) if note.is_file() else None


def checkpoints_of(path: Path) -> Path:
    """The folder (or file) of checkpoints that ``path`` names: itself, or where the run recorded there put them."""
    return model_dir_of(path) or path


def run_of_damaged(folder: Path) -> tuple[Path, str]:
    """The run that a damaged record is a part of (``run_of``), from whichever of its files says it."""
    try:
        model_dir = str(_info(folder).get("model_dir") or "")
    except UserError:
        model_dir = str(model_dir_of(folder) or "")
    return run_of(folder, model_dir)


def moment(value: Any) -> datetime | None:
    """A date from a file (text) or from MongoDB; None where it is neither."""
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def seconds_between(start: datetime | None, end: datetime | None) -> float:
    """Seconds from ``start`` to ``end``, 0 where a clock was set back in between; NaN where one is not known."""
    return max(0.0, (end - start).total_seconds()) if start and end else math.nan


def _mapping(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a recorded run: it has no {name}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a recorded run: {name} cannot be read ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{folder} is not a recorded run: {name} does not hold values by name.")
    return content


def _info(folder: Path) -> dict[str, Any]:
    """``info.json``, which says what run the record is a part of; it is written at the first heartbeat."""
    if not (folder / INFO_FILE).exists():
        return {}
    info = _mapping(folder, INFO_FILE)
    kinds = {"model_dir": str, "resumed": dict, "git": dict}
    if not all(isinstance(info.get(key) or kind(), kind) for key, kind in kinds.items()):
        raise UserError(f"{folder} is not a recorded run: {INFO_FILE} does not say what run this is.")
    return info


def _series(folder: Path) -> Series:
    try:
        return read_series(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a recorded run: its metrics cannot be read ({error}).") from error
