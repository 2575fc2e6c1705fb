"""Recorded runs: what sacred's files say of them, and several seeds as one line."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from shoal.utils.errors import UserError
from shoal.utils.series import has_series, read_series

Curve: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Environment steps and the values recorded there."""

SILENCE = timedelta(minutes=2)
"""A run that is alive says so every ten seconds."""


@dataclass(frozen=True)
class Part:
    """One record of a run; a run that was resumed has several."""

    id: str
    status: str
    """As sacred has it (COMPLETED, FAILED, INTERRUPTED, RUNNING, ...), or DIED: RUNNING, but silent for two minutes."""
    started: datetime | None = None
    seconds: float = math.nan
    """From its start to its end, or to its last sign of life."""
    failure: str = ""
    """The last line of the traceback of one that FAILED."""
    uid: str = ""
    """What marks it in files and in MongoDB."""


@dataclass(frozen=True)
class RecordedRun:
    """What sacred says of one run: its settings and its metrics, name -> (environment steps, values)."""

    folder: Path
    """Where the record is; of one in a MongoDB, the address and the run's number."""
    config: dict[str, Any]
    metrics: dict[str, Curve]
    model_dir: str = ""
    """Where its checkpoints went; a resumed run goes on in the folder of the one before."""
    clock: dict[str, np.ndarray] = field(default_factory=dict)
    """Metric -> seconds of the run at which each of its values was recorded, pauses between records left out."""
    parts: tuple[Part, ...] = ()
    resumed_at: int | None = None
    """The environment step of the checkpoint that it went on from; what came up to there is in earlier records."""
    commit: str = ""
    host: str = ""

    @property
    def task(self) -> str:
        """The map, the environment's id, or the suite if it has one task only."""
        env_args = self.config.get("env_args", {})
        named = (env_args.get(key) for key in ("map_name", "env_name", "key"))
        return next((str(name) for name in named if name), str(self.config.get("env", "?")))

    @property
    def label(self) -> str:
        """Algorithm and task."""
        return f"{self.config.get('name', '?')} on {self.task}"

    @property
    def id(self) -> str:
        """The number of its record, or ``4+12`` of several."""
        return "+".join(part.id for part in self.parts) or self.folder.name

    @property
    def status(self) -> str:
        """How its last record ended."""
        return self.parts[-1].status if self.parts else "?"

    @property
    def seconds(self) -> float:
        """What all its records took together."""
        return sum(part.seconds for part in self.parts) if self.parts else math.nan


def read_run(folder: Path) -> RecordedRun:
    """Read a run recorded in files.

    Raises:
        UserError: the folder holds no readable record.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        entry = _json(folder / "run.json")
        if not entry and not has_series(folder):  # else it ended before it had measured anything
            raise UserError(
                f"{folder} is not a recorded run (config.json and metrics.json of sacred): no metrics.json."
            )
        recorded = read_series(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a recorded run (config.json and metrics.json of sacred): {error}.") from error
    return make_run(folder, config, recorded, entry, _json(folder / "info.json"))


def make_run(
    folder: Path, config: dict[str, Any], series: Mapping[str, Any], entry: Mapping[str, Any], info: Mapping[str, Any]
) -> RecordedRun:
    """A run from what sacred keeps of it, in files and in MongoDB alike.

    Args:
        folder: where the record is.
        config: the settings.
        series: metric -> its ``steps``, ``values`` and ``timestamps``.
        entry: ``status``, ``start_time``, ``stop_time``, ``heartbeat``, ``host``, ``meta`` and ``fail_trace``.
        info: ``model_dir`` and ``git``.
    """
    started = _moment(entry.get("start_time"))
    metrics, clock = {}, {}
    for name, recorded in series.items():
        values = [number(value) for value in recorded["values"]]
        metrics[name] = (np.asarray(recorded["steps"]), np.asarray(values))
        clock[name] = np.asarray([_seconds(started, _moment(moment)) for moment in recorded["timestamps"]])
    return RecordedRun(
        folder,
        config,
        metrics,
        str(info.get("model_dir", "")),
        clock,
        (_part(folder.name, started, entry),),
        (info.get("resumed") or {}).get("t_env"),
        str((info.get("git") or {}).get("commit", ""))[:7],
        str((entry.get("host") or {}).get("hostname", "")),
    )


def number(value: Any) -> float:
    """A recorded value; NaN where there is no number: sacred also keeps tensors and other objects, as descriptions."""
    return float(value) if isinstance(value, int | float) else math.nan


def _part(name: str, started: datetime | None, entry: Mapping[str, Any]) -> Part:
    heartbeat = _moment(entry.get("heartbeat"))
    status = str(entry.get("status", "?"))
    now = datetime.now(UTC).replace(tzinfo=None)  # sacred's clock
    if status == "RUNNING" and heartbeat is not None and now - heartbeat > SILENCE:
        status = "DIED"
    trace = [line.strip() for line in entry.get("fail_trace") or [] if line.strip()]
    seconds = _seconds(started, _moment(entry.get("stop_time")) or heartbeat)
    uid = str((entry.get("meta") or {}).get("uid", ""))
    return Part(name, status, started, seconds, trace[-1] if trace else "", uid)


def _moment(value: Any) -> datetime | None:
    """A date from a file (text) or from MongoDB."""
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return (end - start).total_seconds() if start and end else math.nan


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def read_runs(folders: list[Path]) -> list[RecordedRun]:
    """Read runs, those that were resumed as one.

    Raises:
        UserError: a folder holds no readable record.
    """
    return joined([read_run(folder) for folder in folders])


def joined(runs: list[RecordedRun]) -> list[RecordedRun]:
    """The runs, with the records of one that was stopped and resumed put together.

    After the step of the checkpoint that the later record goes on from, it alone counts: what the stopped run did after
    that was done again. So was a test at that very step that had not come to its end.
    """
    whole: dict[tuple[Path, str], list[RecordedRun]] = defaultdict(list)
    for k, run in enumerate(runs):
        alone = not run.model_dir or run.config.get("evaluate")
        # The folder's name: a run may be resumed by another path than it was begun with.
        whole[run.folder.resolve().parent, str(k) if alone else Path(run.model_dir).name].append(run)
    return [_join(records) for records in whole.values()]


def _join(records: list[RecordedRun]) -> RecordedRun:
    # In the order of time: two starts from one checkpoint may log their first value at any of the next steps.
    first, *later = sorted(records, key=lambda record: (record.parts[0].started or datetime.min, _begin(record)))
    metrics, clock = dict(first.metrics), dict(first.clock)
    nothing = np.empty(0)
    for record in later:
        kept = {name: _outlives(steps, record, name) for name, (steps, _) in metrics.items()}
        before = [clock[name][rows] for name, rows in kept.items()]
        spent = max((float(seconds[-1]) for seconds in before if len(seconds)), default=0.0)
        for name in metrics.keys() | record.metrics.keys():
            rows = kept.get(name, np.empty(0, dtype=bool))
            old_steps, old = metrics.get(name, (nothing, nothing))
            new_steps, new = record.metrics.get(name, (nothing, nothing))
            metrics[name] = np.concatenate([old_steps[rows], new_steps]), np.concatenate([old[rows], new])
            clock[name] = np.concatenate([clock.get(name, nothing)[rows], record.clock.get(name, nothing) + spent])
    parts = sorted((part for record in records for part in record.parts), key=lambda p: p.started or datetime.min)
    return replace(first, metrics=metrics, clock=clock, parts=tuple(parts))


def _begin(record: RecordedRun) -> float:
    """The step from which a record alone counts, but for what it has not at that very step."""
    if record.resumed_at is not None:
        return record.resumed_at + 1
    return min((steps[0] for steps, _ in record.metrics.values() if len(steps)), default=math.inf)


def _outlives(steps: np.ndarray, record: RecordedRun, name: str) -> np.ndarray:
    """Which points of an earlier record's metric stand beside the later ``record``: bool, as ``steps``."""
    again = record.metrics[name][0] if name in record.metrics else np.empty(0)
    return steps < min(_begin(record), again[0] if len(again) else math.inf)


def by_label(runs: list[RecordedRun]) -> dict[str, list[RecordedRun]]:
    """The runs of one algorithm and map together: its seeds."""
    groups: dict[str, list[RecordedRun]] = defaultdict(list)
    for run in runs:
        groups[run.label].append(run)
    return dict(groups)


def curves_of(runs: list[RecordedRun], metric: str) -> list[Curve]:
    """``metric`` of those runs that recorded it."""
    return [run.metrics[metric] for run in runs if metric in run.metrics and len(run.metrics[metric][0]) > 0]


def mean_curve(curves: list[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lowest and highest value over runs, on the union of their steps up to the shortest run's end.

    Runs test at slightly different steps, so each is interpolated linearly.
    """
    end = min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.concatenate([steps[steps <= end] for steps, _ in curves]))
    values = np.stack([np.interp(grid, steps, y) for steps, y in curves])
    return grid, values.mean(0), values.min(0), values.max(0)
