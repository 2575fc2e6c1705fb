"""Recorded runs: what sacred's files say of them, and several seeds as one line."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from shoal.utils.errors import UserError

Curve: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Environment steps and the values recorded there."""


@dataclass(frozen=True)
class RecordedRun:
    """What sacred's files say of one run: its settings and its metrics, name -> (environment steps, values)."""

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, Curve]
    model_dir: str = ""
    """Where its checkpoints went; a resumed run goes on in the folder of the one before."""

    @property
    def label(self) -> str:
        """Algorithm and map (or suite)."""
        where = self.config.get("env_args", {}).get("map_name") or self.config.get("env", "?")
        return f"{self.config.get('name', '?')} on {where}"


def read_run(folder: Path) -> RecordedRun:
    """Read a run recorded in files.

    Raises:
        UserError: the folder holds no readable record.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        recorded = json.loads((folder / "metrics.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{folder} is not a recorded run (config.json and metrics.json of sacred): {error}.") from error
    metrics = {}
    for name, series in recorded.items():
        values = [float("nan") if v is None else float(v) for v in series["values"]]
        metrics[name] = (np.asarray(series["steps"]), np.asarray(values))
    return RecordedRun(folder, config, metrics, _model_dir(folder))


def _model_dir(folder: Path) -> str:
    try:
        return str(json.loads((folder / "info.json").read_text()).get("model_dir", ""))
    except (OSError, json.JSONDecodeError):
        return ""


def read_runs(folders: list[Path]) -> list[RecordedRun]:
    """Read runs, those that were resumed as one.

    Raises:
        UserError: a folder holds no readable record.
    """
    return joined([read_run(folder) for folder in folders])


def joined(runs: list[RecordedRun]) -> list[RecordedRun]:
    """The runs, with the records of one that was stopped and resumed put together.

    From the step at which the later record begins, it alone counts: what the stopped run did after its last checkpoint
    was done again.
    """
    whole: dict[tuple[Path, str], list[RecordedRun]] = defaultdict(list)
    for number, run in enumerate(runs):
        whole[run.folder.resolve().parent, run.model_dir or str(number)].append(run)
    return [_join(records) for records in whole.values()]


def _join(records: list[RecordedRun]) -> RecordedRun:
    def start(record: RecordedRun) -> float:
        return min((steps[0] for steps, _ in record.metrics.values() if len(steps)), default=math.inf)

    first, *later = sorted(records, key=start)
    metrics = dict(first.metrics)
    for record in later:
        begin = start(record)
        for name in metrics.keys() | record.metrics.keys():
            old_steps, old = metrics.get(name, (np.empty(0), np.empty(0)))
            new_steps, new = record.metrics.get(name, (np.empty(0), np.empty(0)))
            kept = old_steps < begin
            metrics[name] = np.concatenate([old_steps[kept], new_steps]), np.concatenate([old[kept], new])
    return replace(first, metrics=metrics)


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
