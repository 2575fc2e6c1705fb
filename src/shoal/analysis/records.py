"""Recorded runs: each one's settings and metrics over all its records."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from shoal.config import old_names
from shoal.recording.reader import Record, moment, read_record, run_of_damaged, seconds_between
from shoal.utils.dotted import flatten
from shoal.utils.errors import UserError

Curve: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Environment steps and the values recorded there."""


@dataclass(frozen=True)
class RecordedRun:
    """One run: its settings and its metrics, name -> (environment steps, values), whatever records they come from."""

    folder: Path
    """Where its first record is; of one in a MongoDB, the address and the run's number."""
    config: dict[str, Any]
    metrics: dict[str, Curve]
    clock: dict[str, np.ndarray] = field(default_factory=dict)
    """Metric -> seconds of the run at which each of its values was recorded, pauses between records left out."""
    records: tuple[Record, ...] = ()
    """One for each of its starts, in their order."""

    @property
    def task(self) -> str:
        """The map, the environment's id, or the suite if it has one task only."""
        env_args = self.config.get("env_args", {})
        named = (env_args.get(key) for key in ("map_name", "env_name", "key"))
        return next((str(name) for name in named if name), str(self.config.get("env", "?")))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by the names that the command line gives them today: ``env_args.map_name``."""
        return flatten(old_names.current(self.config))

    @property
    def test_interval(self) -> int:
        """Environment steps between its tests, as it was asked."""
        return int(self.config.get("test_interval", 10_000))

    @property
    def label(self) -> str:
        """Algorithm and task."""
        return f"{self.config.get('name', '?')} on {self.task}"

    @property
    def id(self) -> str:
        """The number of its record, or ``4+12`` of several."""
        return "+".join(record.id for record in self.records) or self.folder.name

    @property
    def status(self) -> str:
        """How its last record ended."""
        return self.records[-1].status if self.records else "?"

    @property
    def failure(self) -> str:
        """What was raised in the last of its starts that FAILED."""
        return next((record.failure for record in reversed(self.records) if record.failure), "")

    @property
    def seconds(self) -> float:
        """What all its records took together."""
        return sum(record.seconds for record in self.records) if self.records else math.nan

    @property
    def commit(self) -> str:
        """Of the code that began it."""
        return self.records[0].commit if self.records else ""

    @property
    def host(self) -> str:
        """The machine that it began on."""
        return self.records[0].host if self.records else ""


def number(value: Any) -> float:
    """A recorded value; NaN where there is no number: sacred also keeps tensors and other objects, as descriptions."""
    return float(value) if isinstance(value, int | float) else math.nan


def read_run(folder: Path) -> RecordedRun:
    """Read one record in files as a run.

    Raises:
        UserError: the folder holds no readable record.
    """
    return run_from(read_record(folder))


def run_from(record: Record) -> RecordedRun:
    """What one record tells of its run."""
    metrics, clock = {}, {}
    for name, series in record.series.items():
        values = [number(value) for value in series["values"]]
        metrics[name] = (np.asarray(series["steps"]), np.asarray(values))
        seconds = [seconds_between(record.started, moment(stamp)) for stamp in series["timestamps"]]
        clock[name] = np.fmax.accumulate(np.asarray(seconds, dtype=float))  # a machine's clock may be set back
    return RecordedRun(record.folder, record.config, metrics, clock, (record,))


def read_records(folders: Sequence[Path]) -> list[Record]:
    """Read records. Of several, one that is damaged is left out, with all of the run that it is a part of, and named.

    Raises:
        UserError: none can be read.
    """
    read: list[Record] = []
    damaged: dict[tuple[Path, str], UserError] = {}
    for folder in folders:
        try:
            read.append(read_record(folder))
        except UserError as error:
            damaged[run_of_damaged(folder)] = error
    whole = [record for record in read if record.run not in damaged]
    if damaged and not whole:
        raise next(iter(damaged.values()))
    for run, reason in damaged.items():
        others = [record.id for record in read if record.run == run]
        also = f", and so are the other records of its run ({', '.join(others)})" if others else ""
        print(f"warning: {str(reason).rstrip('.')}. It is left out{also}.", file=sys.stderr)
    return whole
