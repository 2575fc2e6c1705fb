"""Several seeds of one algorithm on one task, as curves."""

from collections import defaultdict

import numpy as np

from shoal.analysis.records import Curve, RecordedRun


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
