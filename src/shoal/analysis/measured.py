"""One run's values of the metric that is compared, and the value among them that is its score."""

import math
from dataclasses import dataclass

import numpy as np

from shoal.analysis.records import RecordedRun
from shoal.recording import metric_names
from shoal.utils.errors import UserError

SCORES = {
    "absolute": "the absolute metric (best policy of the run, tested once more at its end)",
    "final": "the last test",
    "best": "the best test",
    "tail": "the mean of the last tenth of the tests, at least five",
}


@dataclass(frozen=True, eq=False)
class Measured:
    """A run and its tests that have a value of the metric."""

    run: RecordedRun
    position: int
    """Among the runs of the study."""
    algorithm: str
    metric: str
    steps: np.ndarray
    """Environment steps of the tests ``[P]``."""
    values: np.ndarray
    """Of the metric ``[P]``, none of them NaN."""
    seconds: np.ndarray
    """The run's own clock ``[P]``; NaN where its records hold no times."""

    @property
    def end(self) -> int:
        """The step of the last test."""
        return int(self.steps[-1])

    def on(self, grid: np.ndarray) -> np.ndarray:
        """The values, interpolated to the steps of ``grid`` ``[P]``."""
        return np.interp(grid, self.steps, self.values)

    def hours_on(self, grid: np.ndarray) -> np.ndarray:
        """The clock, interpolated to the steps of ``grid`` ``[P]``."""
        return np.interp(grid, self.steps, self.seconds) / 3600

    def score(self, kind: str, grid: np.ndarray) -> float:
        """Its value by one of ``SCORES``, of its tests up to the end of ``grid``.

        Raises:
            UserError: it has no absolute metric, or one of a longer training.
        """
        if kind == "final":
            return float(self.on(grid[-1:])[0])
        if kind == "tail":
            tests = self.on(grid)
            return float(tests[-max(5, math.ceil(len(tests) / 10)) :].mean())
        if kind == "best":
            return float(self.values[self.steps <= max(grid[-1], self.steps[0])].max())
        reason = self.no_absolute(grid)
        if reason:
            raise UserError(reason)
        return float(self.run.metrics[metric_names.absolute(self.metric)][1][-1])

    def no_absolute(self, grid: np.ndarray) -> str:
        """Why the run's absolute metric cannot be its score; empty if it can."""
        run = self.run
        if metric_names.absolute(self.metric) not in run.metrics:
            return f"Run {run.id} has no absolute metric: train with absolute_test_nepisode=N, or choose --score final."
        end = int(run.metrics[self.metric][0][-1])
        if end >= grid[-1] + run.test_interval:
            return (
                f"The absolute metric of run {run.id} is of its whole training, {end:,} steps, but runs are compared "
                f"at {grid[-1]:,}: choose --score final."
            )
        return ""


def measured(run: RecordedRun, position: int, algorithm: str, metric: str) -> Measured:
    """The run with its tests that have a value of ``metric``."""
    steps, values = run.metrics.get(metric, (np.empty(0), np.empty(0)))
    seconds = run.clock.get(metric, np.full(len(steps), math.nan))
    there = ~np.isnan(values)
    return Measured(run, position, algorithm, metric, steps[there], values[there], seconds[there])
