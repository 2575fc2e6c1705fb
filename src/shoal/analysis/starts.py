"""The starts of a run that was stopped and resumed, put together as one run."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from shoal.analysis.records import RecordedRun, read_records, run_from
from shoal.recording.reader import Record


def read_runs(folders: Sequence[Path]) -> list[RecordedRun]:
    """Read runs, those that were resumed as one.

    Raises:
        UserError: no folder holds a readable record.
    """
    return joined(read_records(folders))


def joined(records: Sequence[Record]) -> list[RecordedRun]:
    """The runs that the records tell of.

    After the step of the checkpoint that a later record was resumed from, it alone counts: what the stopped run did
    after that was done again. So was a test at that very step that had not ended. Of two starts from one checkpoint the
    later one counts. Which start resumed which is what the records say of it (``in_order``), not their clocks.
    """
    runs: dict[tuple[Path, str], list[Record]] = defaultdict(list)
    for record in records:
        runs[record.run].append(record)
    return [_join(in_order(starts)) for starts in runs.values()]


def _join(starts: Sequence[Record]) -> RecordedRun:
    first, *later = _line(starts)
    run = run_from(first)
    for record in later:
        run = _followed(run, record)
    return replace(run, records=tuple(starts))


def _followed(run: RecordedRun, record: Record) -> RecordedRun:
    """The run up to where ``record`` was resumed, and ``record`` from there."""
    nothing, no_rows = np.empty(0), np.empty(0, dtype=bool)
    following = run_from(record)
    kept = {name: _outlives(steps, record, name) for name, (steps, _) in run.metrics.items()}
    before = [run.clock[name][rows] for name, rows in kept.items()]
    spent = max((float(seconds[-1]) for seconds in before if len(seconds)), default=0.0)
    metrics, clock = {}, {}
    for name in dict.fromkeys([*run.metrics, *following.metrics]):
        rows = kept.get(name, no_rows)
        old_steps, old = run.metrics.get(name, (nothing, nothing))
        new_steps, new = following.metrics.get(name, (nothing, nothing))
        metrics[name] = np.concatenate([old_steps[rows], new_steps]), np.concatenate([old[rows], new])
        seconds = following.clock.get(name, nothing) + spent
        clock[name] = np.concatenate([run.clock.get(name, nothing)[rows], seconds])
    return replace(run, metrics=metrics, clock=clock)


def in_order(records: Sequence[Record]) -> list[Record]:
    """The records of one run in the order of its starts.

    Each start counts how many there were before (``start``), so that a clock which was set back changes nothing. Old
    records do not say it: they stand in the order of time, or where that cannot be, in the order of their first steps.
    """
    old = sorted((r for r in records if r.start is None), key=lambda r: (r.started or datetime.min, _begin(r)))
    if not _is_possible(old):
        old.sort(key=_begin)
    return old + sorted((r for r in records if r.start is not None), key=lambda r: r.start or 0)


def _is_possible(records: Sequence[Record]) -> bool:
    """Whether each record continues from a step that an earlier one has come to."""
    reached = min(map(_begin, records), default=0.0)
    for record in records:
        # The first value may come as much as an interval behind the checkpoint.
        intervals = [int(record.config.get(key, 0)) for key in ("test_interval", "runner_log_interval")]
        if _begin(record) > reached + max(intervals):
            return False
        reached = max([reached, *(float(one["steps"][-1]) for one in record.series.values() if one["steps"])])
    return True


def _line(starts: Sequence[Record]) -> list[Record]:
    """The last record and those that it continues from, the first one first. Nothing continues from the others."""
    at = len(starts) - 1
    line = [starts[at]]
    while at > 0:
        marks = [record.uid for record in starts[:at]]
        parent = line[0].resumed_from
        at = marks.index(parent) if parent and parent in marks else at - 1
        line.insert(0, starts[at])
    return line


def _begin(record: Record) -> float:
    """The step from which a record alone counts, but for what it has not at that very step."""
    if record.resumed_at is not None:
        return record.resumed_at + 1
    return min((one["steps"][0] for one in record.series.values() if one["steps"]), default=math.inf)


def _outlives(steps: np.ndarray, record: Record, name: str) -> np.ndarray:
    """Which points of an earlier record's metric stand next to the later ``record``: bool, as ``steps``."""
    again = record.series[name]["steps"] if name in record.series else []
    return steps < min(_begin(record), again[0] if again else math.inf)
