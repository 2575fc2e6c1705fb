"""What a sweep's runs leave on disk, and what follows from it: finished, to go on with, or to start."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shoal.analysis.records import RecordedRun, in_order, joined, number, read_run
from shoal.recording.series import Series, read_series
from shoal.sweeps.plan import PlannedRun
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from shoal.utils.lock import held

SETTINGS_FILE, OUTPUT_FILE, LOCK_FILE = "settings.yaml", "out.txt", "lock"


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

    def records(self) -> list[Path]:
        """Its sacred records, the oldest first."""
        # By time, not by number: numbers come from a MongoDB when it is there.
        found = [path.parent for path in (self.path / "sacred").glob("*/run.json")]
        return sorted(found, key=lambda path: (_read_json(path / "run.json").get("start_time") or "", path.name))

    def finished(self, run: PlannedRun) -> Path | None:
        """The record of a completed run with the very settings of ``run``."""
        for record in reversed(self.records()):
            status = _read_json(record / "run.json").get("status")
            if status == "COMPLETED" and run.is_same(_read_json(record / "config.json")):
                return record
        return None

    def chain(self, record: Path) -> list[Path]:
        """The records that make up the run which ended in ``record``: those of the starts that it goes on from."""
        return [run.folder for run in self._starts(record)] or [record]

    def _starts(self, record: Path) -> list[RecordedRun]:
        """The starts up to the one that ended in ``record``, without those whose record is damaged."""
        models = _models_of(record)
        same = [one for one in self.records() if one == record or (models and _models_of(one) == models)]
        ordered = in_order([run for one in same if (run := _read(one)) is not None])
        folders = [run.folder for run in ordered]
        return ordered[: folders.index(record) + 1] if record in folders else []

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
        """How far the newest start is; at least as far as the checkpoint that it goes on from."""
        saved, records = max(0, self.last_step()), self.records()
        if not records:
            return Seen(saved)
        series = {k: s for k, s in _metrics(records[-1]).items() if s.get("steps")}
        metrics = {k: (int(s["steps"][-1]), number(s["values"][-1])) for k, s in series.items()}
        return Seen(max((saved, *(step for step, _ in metrics.values()))), metrics)

    def series(self, record: Path, metric: str) -> list[float]:
        """All values of a metric, in the order of their steps, over the starts that ``record`` goes on from."""
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


def _models_of(record: Path) -> str:
    """The name of a record's folder of checkpoints; a sweep may be continued by another path."""
    return Path(_read_json(record / "info.json").get("model_dir", "")).name


def _read(record: Path) -> RecordedRun | None:
    try:
        return read_run(record)
    except UserError:
        return None


def _metrics(record: Path) -> Series:
    try:
        return read_series(record)
    except (OSError, ValueError):
        return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


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
