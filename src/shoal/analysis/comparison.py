"""Algorithms against each other over the tasks that all of them were run on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shoal.analysis import intervals
from shoal.analysis.intervals import Estimate
from shoal.analysis.study import Study
from shoal.utils.errors import UserError

RECOMMENDED_SEEDS = 10


@dataclass(frozen=True)
class Comparison:
    """Scores of all algorithms on common ground."""

    tasks: list[str]
    scores: dict[str, np.ndarray]
    """Algorithm -> its scores ``[R, M]``."""
    notes: list[str]
    """What was left out of them, a sentence each."""

    @cached_property
    def aggregates(self) -> dict[str, dict[str, Estimate]]:
        """Algorithm -> aggregate -> its estimate."""
        return {algorithm: intervals.aggregates(scores) for algorithm, scores in self.scores.items()}

    def profiles(self, thresholds: np.ndarray) -> dict[str, Estimate]:
        """Algorithm -> share of its runs above each threshold."""
        return {algorithm: intervals.profile(scores, thresholds) for algorithm, scores in self.scores.items()}

    @cached_property
    def improvements(self) -> dict[tuple[str, str], Estimate]:
        """Every pair of algorithms -> probability that the first is better; the first has the higher mean."""
        by_mean = sorted(self.scores, key=lambda algorithm: -self.scores[algorithm].mean())
        return {
            (x, y): intervals.improvement(self.scores[x], self.scores[y])
            for k, x in enumerate(by_mean)
            for y in by_mean[k + 1 :]
        }


def compare(study: Study) -> Comparison:
    """Put every algorithm's scores on the tasks that all have.

    Raises:
        UserError: there is no such task.
    """
    tasks = [task for task in study.tasks if all((a, task) in study.cells for a in study.algorithms)]
    if not tasks:
        ran = [f"{a}: {', '.join(t for t in study.tasks if (a, t) in study.cells)}" for a in study.algorithms]
        raise UserError(
            f"The algorithms have no task in common ({'; '.join(ran)}): choose those to compare with --where."
        )
    notes = []
    others = [task for task in study.tasks if task not in tasks]
    if others:
        notes.append(f"Not every algorithm was run on {', '.join(others)}: aggregates are of {', '.join(tasks)} alone.")
    scores = {}
    for algorithm in study.algorithms:
        of_tasks = [study.cells[algorithm, task].scores for task in tasks]
        n = min(len(s) for s in of_tasks)
        if n < max(len(s) for s in of_tasks):
            notes.append(
                f"{algorithm} has {', '.join(f'{len(s)} runs on {t}' for s, t in zip(of_tasks, tasks, strict=True))}: "
                f"aggregates take {n} of each, the first ones."
            )
        scores[algorithm] = np.stack([s[:n] for s in of_tasks], axis=1)
    return Comparison(tasks, scores, notes + seed_notes(study))


def seed_notes(study: Study) -> list[str]:
    """What the numbers of runs mean for the intervals."""
    alone = [f"{algorithm} on {task}" for (algorithm, task), seeds in study.cells.items() if len(seeds.runs) == 1]
    few = [f"{a} on {t} ({len(s.runs)})" for (a, t), s in study.cells.items() if 1 < len(s.runs) < RECOMMENDED_SEEDS]
    notes = []
    if alone:
        notes.append(f"Only one run each of {', '.join(alone)}: no interval is possible, train at least one more seed.")
    if few:
        notes.append(
            f"Fewer than {RECOMMENDED_SEEDS} runs of {', '.join(few)}: intervals of so few are narrower than they say."
        )
    return notes
