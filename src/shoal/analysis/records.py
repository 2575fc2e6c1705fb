"""Recorded runs: what sacred's files say of them, and several seeds as one line."""

import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from shoal.recording.series import has_series, read_series
from shoal.utils.errors import UserError

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
    resumed_from: str = ""
    """The mark (``Part.uid``) of the record whose run wrote that checkpoint."""
    start: int | None = None
    """How many starts from that folder of checkpoints this one makes; None of the first, and of old records."""
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
        if not isinstance(config, dict):
            raise ValueError("config.json does not hold settings by name")
        info = _info(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a recorded run (config.json and metrics.json of sacred): {error}.") from error
    return make_run(folder, config, recorded, entry, info)


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
    resumed = info.get("resumed") or {}
    metrics, clock = {}, {}
    for name, recorded in series.items():
        values = [number(value) for value in recorded["values"]]
        metrics[name] = (np.asarray(recorded["steps"]), np.asarray(values))
        seconds = np.asarray([_seconds(started, _moment(moment)) for moment in recorded["timestamps"]], dtype=float)
        clock[name] = np.fmax.accumulate(seconds)  # a machine's clock may be set back
    return RecordedRun(
        folder,
        config,
        metrics,
        str(info.get("model_dir", "")),
        clock,
        (_part(folder.name, started, entry),),
        resumed.get("t_env"),
        str(resumed.get("record", "")),
        resumed.get("start"),
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
    return max(0.0, (end - start).total_seconds()) if start and end else math.nan


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _info(folder: Path) -> dict[str, Any]:
    """``info.json``, which says what run the record is a part of; nothing where there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    try:
        info = json.loads((folder / "info.json").read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"info.json: {error}") from error
    kinds = {"model_dir": str, "resumed": dict, "git": dict}
    if not isinstance(info, dict) or not all(isinstance(info.get(key) or kind(), kind) for key, kind in kinds.items()):
        raise ValueError("info.json does not say what run this is")
    return info


def _models_of(folder: Path) -> str:
    """The folder of checkpoints of a record that is damaged, from whichever of its files says it; else empty."""
    from shoal.utils.checkpoint import recorded_models

    try:
        return str(_info(folder).get("model_dir") or "")
    except (OSError, ValueError):
        models = recorded_models(folder)
        return "" if models == folder else str(models)


def read_runs(folders: list[Path]) -> list[RecordedRun]:
    """Read runs, those that were resumed as one.

    Raises:
        UserError: no folder holds a readable record.
    """
    return joined(read_records(folders))


def read_records(folders: Sequence[Path]) -> list[RecordedRun]:
    """Read records. Of several, one that is damaged is left out, with all of the run that it is a part of, and named.

    Raises:
        UserError: none can be read.
    """
    read: list[RecordedRun] = []
    damaged: dict[tuple[Path, str], UserError] = {}
    for folder in folders:
        try:
            read.append(read_run(folder))
        except UserError as error:
            damaged[_run_of(folder, _models_of(folder))] = error
    whole = [run for run in read if run.config.get("evaluate") or _run_of(run.folder, run.model_dir) not in damaged]
    if damaged and not whole:
        raise next(iter(damaged.values()))
    for key, reason in damaged.items():
        others = [run.folder.name for run in read if run not in whole and _run_of(run.folder, run.model_dir) == key]
        also = f", and so are the other records of its run ({', '.join(others)})" if others else ""
        print(f"warning: {str(reason).rstrip('.')}. It is left out{also}.", file=sys.stderr)
    return whole


def _run_of(folder: Path, model_dir: str) -> tuple[Path, str]:
    """What the records of one run have in common: where they are, and the name of their folder of checkpoints.

    The name alone: a run may be resumed by another path than it was begun with.
    """
    return (folder.resolve().parent, Path(model_dir).name) if model_dir else (folder.resolve(), "")


def joined(runs: list[RecordedRun]) -> list[RecordedRun]:
    """The runs, with the records of one that was stopped and resumed put together.

    After the step of the checkpoint that the later record goes on from, it alone counts: what the stopped run did after
    that was done again. So was a test at that very step that had not come to its end. Of two starts from one checkpoint
    the later one counts. Which start resumed which is what the records say of it (``in_order``), not their clocks.
    """
    whole: dict[tuple[Path, str], list[RecordedRun]] = defaultdict(list)
    for run in runs:
        whole[_run_of(run.folder, "" if run.config.get("evaluate") else run.model_dir)].append(run)
    return [_join(records) for records in whole.values()]


def _join(records: list[RecordedRun]) -> RecordedRun:
    ordered = in_order(records)
    first, *later = _line(ordered)
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
    parts = tuple(part for record in ordered for part in record.parts)
    return replace(first, metrics=metrics, clock=clock, parts=parts)


def in_order(records: Sequence[RecordedRun]) -> list[RecordedRun]:
    """The records of one run in the order of its starts.

    Each start counts how many there were before (``start``), so that a clock which went back changes nothing. Old
    records do not say it: they stand in the order of time, or where that cannot be, in the order of their first steps.
    """
    old = sorted((r for r in records if r.start is None), key=lambda r: (r.parts[0].started or datetime.min, _begin(r)))
    if not _is_possible(old):
        old.sort(key=_begin)
    return old + sorted((r for r in records if r.start is not None), key=lambda r: r.start or 0)


def _is_possible(records: Sequence[RecordedRun]) -> bool:
    """Whether each record goes on from a step that an earlier one has come to."""
    reached = min(map(_begin, records), default=0.0)
    for record in records:
        # The first value may come as much as an interval behind the checkpoint.
        intervals = [int(record.config.get(key, 0)) for key in ("test_interval", "runner_log_interval")]
        if _begin(record) > reached + max(intervals):
            return False
        reached = max([reached, *(float(steps[-1]) for steps, _ in record.metrics.values() if len(steps))])
    return True


def _line(ordered: Sequence[RecordedRun]) -> list[RecordedRun]:
    """The last record and those that it goes on from, the first one first. Nothing goes on from the others."""
    at = len(ordered) - 1
    line = [ordered[at]]
    while at > 0:
        marks = [record.parts[0].uid for record in ordered[:at]]
        parent = line[0].resumed_from
        at = marks.index(parent) if parent and parent in marks else at - 1
        line.insert(0, ordered[at])
    return line


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
