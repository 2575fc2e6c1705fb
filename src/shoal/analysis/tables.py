"""Recorded runs and what is computed of them as tables: pandas inside, CSV and markdown outside."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shoal.analysis.comparison import Comparison
from shoal.analysis.intervals import Estimate, mean_curve
from shoal.analysis.methods import name_algorithms
from shoal.analysis.records import RecordedRun
from shoal.analysis.study import Study
from shoal.recording import metric_names
from shoal.utils.errors import UserError


def tidy(runs: Sequence[RecordedRun], metrics: Sequence[str] = ()) -> pd.DataFrame:
    """One row for every recorded value: run, algorithm, env, map, seed, status, settings that differ, metric, t_env,
    wall_time (seconds of the run's own clock) and value.

    Args:
        runs: any runs.
        metrics: those wanted; all without.

    Raises:
        UserError: no run recorded one of ``metrics``.
    """
    known = {name for run in runs for name in run.metrics}
    for name in metrics:
        if name not in known:
            recorded = ", ".join(sorted(known)) or "no metrics at all"
            raise UserError(f"No run recorded '{name}'; recorded are: {recorded}.")
    about = _about(runs)
    frames = []
    for row, run in zip(about, runs, strict=True):
        for name in metrics or sorted(run.metrics):
            steps, values = run.metrics.get(name, (np.empty(0), np.empty(0)))
            columns = row | {"metric": name, "t_env": steps.astype(int)}
            columns |= {"wall_time": run.clock.get(name, np.full(len(steps), math.nan)), "value": values}
            frames.append(pd.DataFrame(columns))
    with_rows = [frame for frame in frames if len(frame)]
    if with_rows:
        return pd.concat(with_rows, ignore_index=True)
    return pd.DataFrame(columns=[*about[0], "metric", "t_env", "wall_time", "value"])


def _about(runs: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """The columns that say which run it is."""
    names, differing = name_algorithms(runs)
    return [
        {
            "run": run.id,
            "algorithm": names[k],
            "env": run.config.get("env", "?"),
            "map": run.task,
            "seed": run.config.get("seed"),
            "status": run.status,
            **{key: run.settings.get(key) for key in differing},
        }
        for k, run in enumerate(runs)
    ]


def runs_table(runs: Sequence[RecordedRun], metric: str) -> pd.DataFrame:
    """One row for each run: how far it came, how it ended, its last and its best test, its absolute metric."""
    rows = []
    for row, run in zip(_about(runs), runs, strict=True):
        steps, values = run.metrics.get(metric, (np.empty(0), np.empty(0)))
        there = values[~np.isnan(values)]
        absolute = run.metrics.get(metric_names.absolute(metric), (np.empty(0), np.empty(0)))[1]
        reached = max((int(s[-1]) for s, _ in run.metrics.values() if len(s)), default=0)
        rows.append(
            row
            | {
                "steps": reached,
                "tests": len(steps),
                "wall_h": run.seconds / 3600,
                "last": there[-1] if len(there) else math.nan,
                "best": there.max() if len(there) else math.nan,
                "absolute": absolute[-1] if len(absolute) else math.nan,
                "commit": run.commit,
                "host": run.host,
            }
        )
    return pd.DataFrame(rows)


def curves_table(study: Study) -> pd.DataFrame:
    """The learning curves: mean over the seeds at each common test, with its interval, and the seeds' mean clock."""
    frames = []
    for (algorithm, task), seeds in study.cells.items():
        curve = mean_curve(seeds.values)
        columns: dict[str, Any] = {"algorithm": algorithm, "map": task, "runs": len(seeds.runs)}
        columns |= {"t_env": study.grids[task], "wall_time": seeds.hours.mean(axis=0) * 3600}
        frames.append(pd.DataFrame(columns | {"mean": curve.value, "low": curve.low, "high": curve.high}))
    return pd.concat(frames, ignore_index=True)


def scores_table(study: Study) -> pd.DataFrame:
    """Each algorithm on each task: runs and scores."""
    rows = []
    for (algorithm, task), seeds in study.cells.items():
        curve = mean_curve(seeds.scores[:, None])
        row = {"algorithm": algorithm, "map": task, "runs": len(seeds.runs), "steps": study.horizon(task)}
        rows.append(row | _columns("score", curve, 0) | {"least": seeds.scores.min(), "greatest": seeds.scores.max()})
    return pd.DataFrame(rows)


def aggregates_table(comparison: Comparison) -> pd.DataFrame:
    """IQM, median, mean and optimality gap of each algorithm over the common tasks."""
    rows = []
    for algorithm, estimates in comparison.aggregates.items():
        runs, tasks = comparison.scores[algorithm].shape
        row: dict[str, Any] = {"algorithm": algorithm, "runs": runs, "maps": tasks}
        for name, estimate in estimates.items():
            row |= _columns(name, estimate)
        rows.append(row)
    return pd.DataFrame(rows)


def improvements_table(comparison: Comparison) -> pd.DataFrame:
    """How probably one algorithm is better than another."""
    rows = [
        {"algorithm": x, "over": y, **_columns("probability", estimate, 0)}
        for (x, y), estimate in comparison.improvements.items()
    ]
    return pd.DataFrame(rows, columns=["algorithm", "over", "probability", "probability low", "probability high"])


def profiles_table(comparison: Comparison, thresholds: np.ndarray) -> pd.DataFrame:
    """Share of runs above each threshold."""
    frames = []
    for algorithm, curve in comparison.profiles(thresholds).items():
        columns = {"algorithm": algorithm, "threshold": thresholds, "share": curve.value}
        frames.append(pd.DataFrame(columns | {"low": curve.low, "high": curve.high}))
    return pd.concat(frames, ignore_index=True)


def efficiency_table(study: Study, threshold: float) -> pd.DataFrame:
    """Steps and hours until the first common test whose score is at least ``threshold``; medians over all runs, empty
    where half of them or more never got there.
    """
    rows = []
    for (algorithm, task), seeds in study.cells.items():
        steps, hours = study.reached(algorithm, task, threshold)
        speeds = study.grids[task][-1] / (seeds.hours[:, -1] * 3600)
        rows.append(
            {
                "algorithm": algorithm,
                "map": task,
                "runs": len(steps),
                "reached": int(np.isfinite(steps).sum()),
                "median steps": _finite(np.median(steps)),
                "median hours": _finite(np.median(hours)),
                "steps per second": float(speeds.mean()),
            }
        )
    return pd.DataFrame(rows)


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else math.nan


def _columns(name: str, estimate: Estimate, at: int | None = None) -> dict[str, float]:
    pick = (lambda values: float(values)) if at is None else (lambda values: float(values[at]))
    return {name: pick(estimate.value), f"{name} low": pick(estimate.low), f"{name} high": pick(estimate.high)}


# Writing.


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """As text for people: intervals in brackets behind their value, three digits, a dash where there is nothing."""
    columns: dict[str, list[str]] = {}
    for name in table.columns:
        if name.endswith((" low", " high")) and name.rpartition(" ")[0] in table.columns:
            continue
        cells = [cell_text(value) for value in table[name]]
        if f"{name} low" in table.columns:
            spans = zip(table[f"{name} low"], table[f"{name} high"], strict=True)
            cells = [
                cell + ("" if math.isnan(low) else f" [{cell_text(low)}, {cell_text(high)}]")
                for cell, (low, high) in zip(cells, spans, strict=True)
            ]
        columns[name] = cells
    return pd.DataFrame(columns)


def cell_text(value: Any) -> str:
    """One cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool | np.bool_):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1g}" if abs(value) < 0.0005 else f"{value:.3f}"
    return str(value)


def markdown(table: pd.DataFrame) -> str:
    """A table of markdown, with cells as ``shown``."""
    text = shown(table)
    lines = [text.columns.tolist(), ["---"] * len(text.columns), *text.to_numpy().tolist()]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def write(table: pd.DataFrame, base: Path, note: str = "") -> list[Path]:
    """Write ``base``.csv, with all digits, and ``base``.md with a ``note`` under the table.

    Raises:
        UserError: the folder cannot be written to.
    """
    text = markdown(table) + (f"\n{note}\n" if note else "")
    return [write_csv(table, base.with_suffix(".csv")), write_text(text, base.with_suffix(".md"))]


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write ``path`` with all digits.

    Raises:
        UserError: the folder cannot be written to.
    """
    return write_text(table.to_csv(index=False), path)


def write_text(text: str, path: Path) -> Path:
    """Write ``text`` into ``path``.

    Raises:
        UserError: the folder cannot be written to.
    """
    make_folder(path.parent)
    try:
        path.write_text(text)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): name another place with --out.") from error
    return path


def make_folder(folder: Path) -> None:
    """Make the folder that results go into.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): name another place with --out.") from error
