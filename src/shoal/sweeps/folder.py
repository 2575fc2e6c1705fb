"""What a sweep's runs leave on disk, and what follows from it: finished, to continue with, or to start."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from shoal.analysis.records import RecordedRun, number
from shoal.analysis.starts import in_order, joined
from shoal.recording.reader import RUN_FILE, SETTINGS_FILE, Record, read_record
from shoal.sweeps.plan import PlannedRun
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from shoal.utils.lock import held

OUTPUT_FILE, LOCK_FILE = "out.txt", "lock"


@dataclass(frozen=True)
class Seen:
    """How far a run is, as its record says."""

    t_env: int = 0
    metrics: dict[str, tuple[int, float]] | None = None
    """Metric -> the last step it was recorded at, and its value there."""


class RunFolder:
    """One run's folder: its settings, its records (``sacred/1``, ``sacred/2``, ... for each start), its checkpoints
    (``models``) and what it printed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def settings_file(self) -> Path:
        """The whole of its settings, as YAML."""
        return self.path / SETTINGS_FILE

    def settings(self) -> dict[str, Any]:
        """What the file of settings says."""
        return yaml.safe_load(self.settings_file.read_text())

    @property
    def output(self) -> Path:
        """What all its starts printed."""
        return self.path / OUTPUT_FILE

    def records(self) -> list[Record]:
        """The records of its starts, without their metrics, the oldest first; those that are damaged are left out."""
        found = [path.parent for path in (self.path / "sacred").glob(f"*/{RUN_FILE}")]
        read = [record for folder in found if (record := _read(folder, with_series=False)) is not None]
        # By time, not by number: numbers come from a MongoDB when it is there.
        return sorted(read, key=lambda record: (record.started or datetime.min, record.id))

    def finished(self, run: PlannedRun) -> Path | None:
        """The record of a completed run with the very settings of ``run``."""
        for record in reversed(self.records()):
            if record.status == "COMPLETED" and run.is_same(record.config):
                return record.folder
        return None

    def chain(self, record: Path) -> list[Path]:
        """The records that make up the run which ended in ``record``: those of the starts that it continues from."""
        return [start.folder for start in self._starts(record)] or [record]

    def _starts(self, last: Path) -> list[Record]:
        """The starts up to the one that ended in ``last``, without those whose record is damaged."""
        records = self.records()
        run = next((record.run for record in records if record.folder == last), None)
        same = [_read(record.folder) for record in records if record.run == run]
        starts = in_order([record for record in same if record is not None])
        folders = [start.folder for start in starts]
        return starts[: folders.index(last) + 1] if last in folders else []

    def whole(self, record: Path) -> RecordedRun | None:
        """The run that ended in ``record``, its starts put together; None where that record cannot be read."""
        starts = self._starts(record)
        return joined(starts)[0] if starts else None

    def to_go_on_with(self) -> Path | None:
        """The folder of checkpoints that is furthest; None where there is none."""
        models = [
            (steps[-1], path) for path in (self.path / "models").glob("*") if (steps := checkpoints.steps_in(path))
        ]
        return max(models, key=lambda found: found[0])[1] if models else None

    def last_step(self) -> int:
        """The environment step of the newest checkpoint; -1 without one."""
        models = self.to_go_on_with()
        return checkpoints.steps_in(models)[-1] if models else -1

    def seen(self) -> Seen:
        """How far the newest start is; at least as far as the checkpoint that it continues from."""
        saved, records = max(0, self.last_step()), self.records()
        newest = _read(records[-1].folder) if records else None
        if newest is None:
            return Seen(saved)
        series = {name: one for name, one in newest.series.items() if one["steps"]}
        metrics = {name: (int(one["steps"][-1]), number(one["values"][-1])) for name, one in series.items()}
        return Seen(max((saved, *(step for step, _ in metrics.values()))), metrics)

    def series(self, record: Path, metric: str) -> list[float]:
        """All values of a metric, in the order of their steps, over the starts that ``record`` continues from."""
        run = self.whole(record)
        return [] if run is None or metric not in run.metrics else run.metrics[metric][1].tolist()

    def last_words(self) -> str:
        """The last line that the run printed; of a traceback, what was raised."""
        try:
            lines = self.output.read_text(errors="replace").splitlines()[-200:]
        except OSError:
            return ""
        lines = [line.strip() for line in lines if line.strip()]
        errors = [line for line in lines if re.match(r"(error: |[\w.]*(Error|Exception|Interrupt)\b)", line)]
        return (errors or lines or [""])[-1]


def _read(record: Path, with_series: bool = True) -> Record | None:
    try:
        return read_record(record, with_series)
    except UserError:
        return None


class SweepFolder:
    """A sweep's folder: ``runs/<name>`` for each run.

    Raises:
        UserError: it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"The folder {path} cannot be written ({error.strerror}): choose another.") from error

    @property
    def runs(self) -> Path:
        """The folder of all runs."""
        return self.path / "runs"

    def of(self, run: PlannedRun) -> RunFolder:
        """The folder of this very run, made when first asked for.

        Another run of the same name (the sweep was given other settings before) keeps its folder; this one gets a
        folder with a number behind its name.
        """
        for attempt in range(1, 1000):
            folder = RunFolder(self.runs / (run.name if attempt == 1 else f"{run.name}-{attempt}"))
            if not folder.settings_file.exists() or run.is_same(folder.settings()):
                # Anew also for the same run: where and how often it is stored may be said differently now.
                values = {**run.values, "local_results_path": str(folder.path)}
                folder.path.mkdir(parents=True, exist_ok=True)
                part = folder.settings_file.with_suffix(".part")
                part.write_text(yaml.safe_dump(values, sort_keys=True))
                part.replace(folder.settings_file)
                return folder
        raise UserError(f"{self.runs / run.name} exists with other settings a thousand times: give another --name.")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second sweep out of this folder.

        Raises:
            UserError: one is at work in it.
        """
        with held(self.path / LOCK_FILE, wait=False) as ours:
            if not ours:
                raise UserError(f"Another sweep is at work in {self.path}: wait for its end, or give another --name.")
            yield
