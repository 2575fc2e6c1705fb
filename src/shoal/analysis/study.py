"""A set of runs made comparable: which are seeds of one algorithm, up to where, on which scale, which do not count."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.analysis.measured import Measured, measured
from shoal.analysis.methods import name_algorithms
from shoal.analysis.records import RecordedRun
from shoal.analysis.scales import Scale, given_bounds, scale_of
from shoal.analysis.wins import with_all_wins
from shoal.recording import metric_names
from shoal.utils.errors import UserError


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
    runs: Sequence[RecordedRun],
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
    names, differing = name_algorithms(runs)
    every = [measured(run, k, names[k], metric) for k, run in enumerate(runs)]
    _require_any(every, metric)

    left_out = _unusable(every)
    left_out |= _repeated_seeds(_rest(every, left_out))
    grids: dict[str, np.ndarray] = {}
    for task, members in _by_task(_rest(every, left_out)).items():
        grids[task] = _grid(members, t_max)
        left_out |= _too_short(members, grids[task])

    counted = _rest(every, left_out)
    given = given_bounds(bounds, list(grids))
    scales = {
        task: scale_of(metric, _values_up_to(members, grids[task][-1]), given.get(task))
        for task, members in _by_task(counted).items()
    }
    score = score or _default_score(counted, grids)
    cells = _cells(counted, score, grids, scales)
    dropped = [LeftOut(one.run, one.algorithm, left_out[one]) for one in every if one in left_out]
    if not cells:
        raise UserError(f"No run can be compared: {'; '.join(f'run {x.run.id}: {x.reason}' for x in dropped)}.")
    grids = {task: grids[task] for task in scales}
    return Study(list(runs), metric, score, names, differing, grids, scales, cells, dropped)


def default_metric(runs: Sequence[RecordedRun]) -> str:
    """The win rate in tests if any run recorded one, else the return."""
    return metric_names.judge({name for run in runs for name in run.metrics})


def _require_any(every: Sequence[Measured], metric: str) -> None:
    if not any(len(one.steps) for one in every):
        known = sorted({name for one in every for name in one.run.metrics})
        raise UserError(f"No run recorded '{metric}'; recorded are: {', '.join(known) or 'no metrics at all'}.")


def _rest(every: Sequence[Measured], left_out: Collection[Measured]) -> list[Measured]:
    return [one for one in every if one not in left_out]


def _by_task(members: Sequence[Measured]) -> dict[str, list[Measured]]:
    tasks: dict[str, list[Measured]] = defaultdict(list)
    for one in members:
        tasks[one.run.task].append(one)
    return tasks


# Which runs do not count, and why.


def _unusable(every: Sequence[Measured]) -> dict[Measured, str]:
    """The runs that compare with no other, whatever the others are."""
    return {one: reason for one in every if (reason := _why_unusable(one))}


def _why_unusable(one: Measured) -> str:
    recorded = one.run.metrics
    if one.run.config.get("evaluate"):
        return "it only evaluates a checkpoint"
    if not len(one.steps) and metric_names.TEST_RETURN in recorded and one.metric not in recorded:
        return f"it has tests, but no {one.metric}: compare it on its own, or by another --metric"
    if not len(one.steps):
        return f"it ended before its first value of {one.metric}"
    if one.end == 0:
        return f"it ended before its second value of {one.metric}"
    # Tests begin at 0, metrics of training later.
    begin = min(int(steps[0]) for steps, _ in recorded.values() if len(steps))
    if begin > one.run.test_interval:
        return f"its record begins at {begin:,} steps: give the record of the run that it resumed, too"
    return ""


def _repeated_seeds(members: Sequence[Measured]) -> dict[Measured, str]:
    """Of runs with one algorithm, task and seed (a sweep's second try) all but the one that got furthest."""
    same: dict[tuple[str, str, Any], list[Measured]] = defaultdict(list)
    for one in members:
        same[one.algorithm, one.run.task, one.run.config.get("seed", one.position)].append(one)
    repeated: dict[Measured, str] = {}
    for (_, _, seed), twins in same.items():
        best = max(twins, key=lambda one: (one.end, one.run.status == "COMPLETED", one.position))
        repeated |= {one: f"seed {seed} once more: run {best.run.id} counts" for one in twins if one is not best}
    return repeated


def _too_short(members: Sequence[Measured], grid: np.ndarray) -> dict[Measured, str]:
    """The runs of one task that ended before the end of its grid."""
    slack = (grid[1] - grid[0]) / 2 if len(grid) > 1 else 0
    return {one: f"it ended at {one.end:,} of {int(grid[-1]):,} steps" for one in members if one.end < grid[-1] - slack}


# What those that count are compared on.


def _grid(members: Sequence[Measured], t_max: int | None) -> np.ndarray:
    """Common tests of one task: every test interval up to where its runs are compared."""
    interval = max(one.run.test_interval for one in members)
    if t_max is None:
        ends = [one.end for one in members]
        completed = [one.end for one in members if one.run.status == "COMPLETED"]
        # Without a completed one: those that stopped early on do not cut the others short.
        t_max = min(completed or [end for end in ends if end >= max(ends) / 2])
    grid = np.arange(0, t_max + 1, interval)
    if t_max - grid[-1] > interval / 2 or len(grid) == 1:
        grid = np.append(grid, t_max)
    return grid


def _values_up_to(members: Sequence[Measured], horizon: int) -> np.ndarray:
    return np.concatenate([one.values[one.steps <= horizon] for one in members])


def _default_score(counted: Sequence[Measured], grids: Mapping[str, np.ndarray]) -> str:
    return "absolute" if all(not one.no_absolute(grids[one.run.task]) for one in counted) else "final"


def _cells(
    counted: Sequence[Measured], score: str, grids: Mapping[str, np.ndarray], scales: Mapping[str, Scale]
) -> dict[tuple[str, str], Seeds]:
    """(algorithm, task) -> its seeds."""
    groups: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for one in counted:
        groups[one.algorithm, one.run.task].append(one)
    cells = {}
    for (algorithm, task), members in groups.items():
        grid = grids[task]
        values = np.stack([one.on(grid) for one in members])
        hours = np.stack([one.hours_on(grid) for one in members])
        scores = np.array([one.score(score, grid) for one in members])
        cells[algorithm, task] = Seeds([one.run for one in members], values, hours, scales[task](scores))
    return cells
