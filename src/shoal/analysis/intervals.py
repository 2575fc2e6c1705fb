"""Aggregate scores with stratified bootstrap intervals, by rliable (Agarwal et al., arXiv 2108.13264)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from rliable import library, metrics
from scipy.stats import trim_mean

RESAMPLES = 2000
CONFIDENCE = 0.95

AGGREGATES: dict[str, Callable[[np.ndarray], float]] = {
    "IQM": metrics.aggregate_iqm,
    "median": metrics.aggregate_median,
    "mean": metrics.aggregate_mean,
    "optimality gap": metrics.aggregate_optimality_gap,
}
"""Of scores ``[R, M]``, runs by tasks. The gap is how far scores below 1 are from it: the only one to be small."""


@dataclass(frozen=True)
class Estimate:
    """A number, or one for each point, with its interval; NaN where there is none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def has_interval(self) -> bool:
        return not bool(np.isnan(self.low).all())


def estimate(statistic: Callable[..., np.ndarray], *samples: np.ndarray, resamples: int | None = None) -> Estimate:
    """``statistic(*samples)`` with its percentile interval: runs are drawn anew, with replacement, within each task.

    Args:
        statistic: takes samples of the same shapes and returns one axis of numbers.
        samples: each runs first, then tasks: ``[R, M, ...]``. Several are drawn independently.
        resamples: how often, RESAMPLES without. A sample of one run, which can be drawn in one way, has no interval.
    """
    value = np.asarray(statistic(*samples))
    if min(len(sample) for sample in samples) < 2:
        nothing = np.full_like(value, math.nan, dtype=float)
        return Estimate(value, nothing, nothing)
    with _rliable_seeded():
        _, intervals = library.get_interval_estimates(
            {"": samples[0] if len(samples) == 1 else list(samples)},
            statistic,
            reps=resamples or RESAMPLES,
            confidence_interval_size=CONFIDENCE,
        )
    low, high = intervals[""]
    return Estimate(value, low, high)


@contextmanager
def _rliable_seeded() -> Iterator[None]:
    """rliable 1.2.0 draws from numpy's global generator, whatever random state it is given; the same picture twice."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)


def aggregates(scores: np.ndarray) -> dict[str, Estimate]:
    """Every one of ``AGGREGATES`` of scores ``[R, M]``."""
    together = estimate(lambda sample: np.array([f(sample) for f in AGGREGATES.values()]), scores)
    return {name: Estimate(together.value[k], together.low[k], together.high[k]) for k, name in enumerate(AGGREGATES)}


def profile(scores: np.ndarray, thresholds: np.ndarray) -> Estimate:
    """Share of the runs of all tasks whose score is above each threshold ``[K]`` (a performance profile)."""
    return estimate(lambda sample: (sample[..., None] > thresholds).mean(axis=(0, 1)), scores)


def improvement(scores: np.ndarray, others: np.ndarray) -> Estimate:
    """Probability that a run of the first scores ``[R, M]`` beats one of the second, mean over tasks; a tie is half."""

    def probability(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        above, same = x[:, None] > y[None], x[:, None] == y[None]  # [R, R', M]
        return np.array([(above + 0.5 * same).mean()])

    return estimate(probability, scores, others)


def mean_curve(values: np.ndarray) -> Estimate:
    """Mean over the runs of one task at each of its tests, of values ``[R, P]``."""
    return estimate(lambda sample: sample.mean(axis=(0, 1)), values[:, None])


def iqm_curve(values: np.ndarray) -> Estimate:
    """Interquartile mean over runs and tasks at each test, of values ``[R, M, P]``."""
    return estimate(lambda sample: trim_mean(sample.reshape(-1, sample.shape[-1]), 0.25, axis=0), values)
