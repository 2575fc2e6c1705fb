"""A set of runs made comparable: which are seeds of one algorithm, up to where, on which scale, which do not count."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.analysis.methods import name_algorithms
from shoal.analysis.records import RecordedRun
from shoal.analysis.wins import with_all_wins
from shoal.recording import metric_names
from shoal.utils.errors import UserError

SCORES = {
    "absolute": "the absolute metric (best policy of the run, tested once more at its end)",
    "final": "the last test",
    "best": "the best test",
    "tail": "the mean of the last tenth of the tests, at least five",
}


@dataclass(frozen=True)
class Scale:
    """How a metric's values on one task become scores: ``low`` is 0 and ``high`` is 1."""

    low: float
    high: float
    text: str
    """Says so, for figures and tables."""
    is_share: bool = False
    """Whether the values are shares, and scores the values themselves."""

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (values - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Seeds:
    """The runs of one algorithm on one task that count, on that task's common grid of tests."""

    runs: list[RecordedRun]
    values: np.ndarray
    """The metric, interpolated between tests ``[R, P]``."""
    hours: np.ndarray
    """The runs' own clocks ``[R, P]``; NaN where records hold no times."""
    scores: np.ndarray
    """One for each run, on the task's scale ``[R]``."""


@dataclass(frozen=True)
class LeftOut:
    """A run that no mean, interval or score holds, and why."""

    run: RecordedRun
    algorithm: str
    reason: str


@dataclass(frozen=True)
class Study:
    """What figures and tables are made of."""

    runs: list[RecordedRun]
    metric: str
    score: str
    """One of ``SCORES``."""
    names: dict[int, str]
    """Position in ``runs`` -> algorithm, with the settings that tell it from others of its name."""
    differing: list[str]
    """Settings in which runs of one algorithm's name differ on one task."""
    grids: dict[str, np.ndarray]
    """Task -> environment steps of the common tests; the last one is where all are compared."""
    scales: dict[str, Scale]
    cells: dict[tuple[str, str], Seeds]
    """(algorithm, task) -> its seeds."""
    left_out: list[LeftOut]

    @property
    def algorithms(self) -> list[str]:
        """Those with runs that count, in the order of the runs."""
        return list(dict.fromkeys(algorithm for algorithm, _ in self.cells))

    @property
    def tasks(self) -> list[str]:
        """Those with runs that count, by name."""
        return sorted({task for _, task in self.cells})

    def horizon(self, task: str) -> int:
        """Environment steps at which runs are compared."""
        return int(self.grids[task][-1])

    @property
    def has_clock(self) -> bool:
        """Whether every run that counts recorded times."""
        return not any(np.isnan(seeds.hours).any() for seeds in self.cells.values())

    def reached(self, algorithm: str, task: str, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Steps and hours of each run at its first common test with a score of ``threshold``; infinite if never."""
        seeds, grid = self.cells[algorithm, task], self.grids[task]
        there = self.scales[task](seeds.values) >= threshold  # [R, P]
        first = there.argmax(axis=1)
        never = ~there.any(axis=1)
        hours = seeds.hours[np.arange(len(first)), first]
        return np.where(never, math.inf, grid[first]), np.where(never, math.inf, hours)


def study(
    runs: list[RecordedRun],
    metric: str = "",
    score: str = "",
    bounds: Sequence[str] = (),
    t_max: int | None = None,
) -> Study:
    """Make runs comparable.

    Args:
        runs: any runs; those of one name and task that differ in a setting of the method are two algorithms.
        metric: what is compared; without one, ``default_metric``.
        score: one of ``SCORES``; without one, the absolute metric if all runs recorded it, else the last test.
        bounds: ``LOW:HIGH`` or ``TASK=LOW:HIGH``, what becomes 0 and 1 of a metric that is no rate.
        t_max: environment step up to which runs are compared; without one, the end of a task's shortest completed run.

    Raises:
        UserError: nothing can be compared, or an argument does not fit.
    """
    if t_max is not None and t_max < 1:
        raise UserError(f"--t-max {t_max} is out of range: it must be at least 1.")
    runs = with_all_wins(runs)
    metric = metric or default_metric(runs)
    measured = [_without_gaps(run, metric) for run in runs]
    if not any(len(steps) for steps, _, _ in measured):
        known = sorted({name for run in runs for name in run.metrics})
        raise UserError(f"No run recorded '{metric}'; recorded are: {', '.join(known) or 'no metrics at all'}.")
    names, differing = name_algorithms(runs)

    left_out: dict[int, str] = {}
    by_task: dict[str, list[int]] = defaultdict(list)
    for k, (run, (steps, _, _)) in enumerate(zip(runs, measured, strict=True)):
        if run.config.get("evaluate"):
            left_out[k] = "it only evaluates a checkpoint"
        elif not len(steps) and metric_names.TEST_RETURN in run.metrics and metric not in run.metrics:
            left_out[k] = f"it has tests, but no {metric}: compare it on its own, or by another --metric"
        elif not len(steps):
            left_out[k] = f"it ended before its first value of {metric}"
        elif steps[-1] == 0:
            left_out[k] = f"it ended before its second value of {metric}"
        elif (begin := _begin(run)) > interval_of(run):
            left_out[k] = f"its record begins at {begin:,} steps: give the record of the run that it resumed, too"
        else:
            by_task[run.task].append(k)

    _leave_out_repeated_seeds(runs, names, by_task, measured, left_out)
    grids: dict[str, np.ndarray] = {}
    for task, members in by_task.items():
        competing = [k for k in members if k not in left_out]
        grids[task] = grid = _grid(runs, {k: measured[k][0] for k in competing}, t_max)
        slack = (grid[1] - grid[0]) / 2 if len(grid) > 1 else 0
        for k in competing:
            end = measured[k][0][-1]
            if end < grid[-1] - slack:
                left_out[k] = f"it ended at {end:,} of {int(grid[-1]):,} steps"

    counted = [k for k in range(len(runs)) if k not in left_out]
    if not score:
        score = "absolute" if all(not _no_absolute(runs[k], metric, grids[runs[k].task]) for k in counted) else "final"
    given = _given_bounds(bounds, list(by_task))
    scales = {}
    for task, members in by_task.items():
        recorded = [
            values[steps <= grids[task][-1]] for steps, values, _ in (measured[k] for k in members if k not in left_out)
        ]
        if recorded:
            scales[task] = _scale(metric, np.concatenate(recorded), given.get(task))

    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for k in counted:
        groups[names[k], runs[k].task].append(k)
    cells = {}
    for (algorithm, task), members in groups.items():
        grid = grids[task]
        values = np.stack([np.interp(grid, *measured[k][:2]) for k in members])
        hours = np.stack([np.interp(grid, measured[k][0], measured[k][2]) / 3600 for k in members])
        raw = [_raw_score(runs[k], metric, score, grid, measured[k]) for k in members]
        cells[algorithm, task] = Seeds([runs[k] for k in members], values, hours, scales[task](np.array(raw)))
    dropped = [LeftOut(runs[k], names[k], reason) for k, reason in sorted(left_out.items())]
    if not cells:
        raise UserError(f"No run can be compared: {'; '.join(f'run {x.run.id}: {x.reason}' for x in dropped)}.")
    return Study(runs, metric, score, names, differing, {t: grids[t] for t in scales}, scales, cells, dropped)


def default_metric(runs: Sequence[RecordedRun]) -> str:
    """The win rate in tests if any run recorded one, else the return."""
    return metric_names.judge({name for run in runs for name in run.metrics})


def interval_of(run: RecordedRun) -> int:
    """Environment steps between the run's tests, as it was asked."""
    return int(run.config.get("test_interval", 10_000))


def _begin(run: RecordedRun) -> int:
    """The first step of which the run recorded anything; tests begin at 0, metrics of training later."""
    return min(int(steps[0]) for steps, _ in run.metrics.values() if len(steps))


def _without_gaps(run: RecordedRun, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, values and seconds of the tests that have a value."""
    steps, values = run.metrics.get(metric, (np.empty(0), np.empty(0)))
    seconds = run.clock.get(metric, np.full(len(steps), math.nan))
    there = ~np.isnan(values)
    return steps[there], values[there], seconds[there]


def _grid(runs: Sequence[RecordedRun], steps: Mapping[int, np.ndarray], t_max: int | None) -> np.ndarray:
    """Common tests of one task: every test interval up to where its runs are compared."""
    interval = max(interval_of(runs[k]) for k in steps)
    if t_max is None:
        ends = {k: int(reached[-1]) for k, reached in steps.items()}
        completed = [end for k, end in ends.items() if runs[k].status == "COMPLETED"]
        # Without a completed one: those that stopped early on do not cut the others short.
        t_max = min(completed or [end for end in ends.values() if end >= max(ends.values()) / 2])
    grid = np.arange(0, t_max + 1, interval)
    if t_max - grid[-1] > interval / 2 or len(grid) == 1:
        grid = np.append(grid, t_max)
    return grid


def _leave_out_repeated_seeds(
    runs: Sequence[RecordedRun],
    names: Mapping[int, str],
    by_task: Mapping[str, list[int]],
    measured: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    left_out: dict[int, str],
) -> None:
    """Of runs with one algorithm, task and seed (a sweep's second try) the one that got furthest counts."""
    same: dict[tuple[str, str, Any], list[int]] = defaultdict(list)
    for task, members in by_task.items():
        for k in members:
            same[names[k], task, runs[k].config.get("seed", k)].append(k)
    for (_, _, seed), twins in same.items():
        best = max(twins, key=lambda k: (measured[k][0][-1], runs[k].status == "COMPLETED", k))
        left_out |= {k: f"seed {seed} once more: run {runs[best].id} counts" for k in twins if k != best}


def _no_absolute(run: RecordedRun, metric: str, grid: np.ndarray) -> str:
    """Why the run's absolute metric cannot be its score; nothing if it can."""
    if f"absolute_{metric}" not in run.metrics:
        return f"Run {run.id} has no absolute metric: train with absolute_test_nepisode=N, or choose --score final."
    end = int(run.metrics[metric][0][-1])
    if end >= grid[-1] + interval_of(run):
        return (
            f"The absolute metric of run {run.id} is of its whole training, {end:,} steps, but runs are compared at "
            f"{grid[-1]:,}: choose --score final."
        )
    return ""


def _raw_score(
    run: RecordedRun,
    metric: str,
    score: str,
    grid: np.ndarray,
    measured: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> float:
    steps, values, _ = measured
    if score == "final":
        return float(np.interp(grid[-1], steps, values))
    if score == "tail":
        tests = np.interp(grid, steps, values)
        return float(tests[-max(5, math.ceil(len(tests) / 10)) :].mean())
    if score == "best":
        return float(values[steps <= max(grid[-1], steps[0])].max())
    reason = _no_absolute(run, metric, grid)
    if reason:
        raise UserError(reason)
    return float(run.metrics[f"absolute_{metric}"][1][-1])


def _given_bounds(bounds: Sequence[str], tasks: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What ``--bounds`` says of each task."""
    given: dict[str, tuple[float, float]] = {}
    for bound in bounds:
        task, named, span = bound.rpartition("=")
        try:
            low, high = (float(end) for end in span.split(":"))
        except ValueError:
            raise UserError(f"--bounds {bound} was not understood: write LOW:HIGH or TASK=LOW:HIGH.") from None
        if not low < high:
            raise UserError(f"--bounds {bound}: the first number must be below the second.")
        if named and task not in tasks:
            raise UserError(f"--bounds {bound}: there is no task {task}, but {', '.join(sorted(tasks))}.")
        given |= dict.fromkeys([task] if named else [t for t in tasks if t not in given], (low, high))
    return given


def _scale(metric: str, values: np.ndarray, given: tuple[float, float] | None) -> Scale:
    if given:
        low, high = given
        return Scale(low, high, f"{metric}: {low:g} is 0 and {high:g} is 1 (given bounds)")
    if metric_names.is_share(metric, values):
        return Scale(0.0, 1.0, f"{metric} as it is (a share, 0 to 1)", is_share=True)
    low, high = float(values.min()), float(values.max())
    if low == high:  # nothing to stretch
        high = low + 1
    return Scale(low, high, f"{metric}: {low:.4g} is 0 and {high:.4g} is 1 (least and greatest of these runs)")
