"""Judging claims of the form "this method scores higher than that one" from a few seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from shoal.reproduce.declaration import Verdict

FEWEST = 3
"""Runs of each method below which nothing is concluded."""


def higher(claim: str, ours: str, scores: Mapping[str, np.ndarray], other: str) -> Verdict:
    """Whether the runs of ``ours`` score higher than those of ``other``, by the probability of improvement.

    It holds if the whole 95% bootstrap interval of that probability lies above 0.5, it does not hold if the interval
    lies below or ``ours`` has the lower mean, and is open otherwise.

    Args:
        claim: what the paper says.
        scores: label -> scores ``[R]`` or ``[R, M]`` (runs by tasks), higher is better.
        ours: the label that should be higher.
        other: the one it is compared with.
    """
    from shoal.analysis import intervals

    mine, theirs = (np.asarray(scores[label], dtype=float) for label in (ours, other))
    mine, theirs = (x[:, None] if x.ndim == 1 else x for x in (mine, theirs))
    found = f"{ours} {mine.mean():.3g}, {other} {theirs.mean():.3g}"
    n = min(len(mine), len(theirs))
    if n < FEWEST:
        return Verdict(
            claim, f"{found}; {n} {'run' if n == 1 else 'runs'} each, {FEWEST} are the fewest to judge by", None
        )
    estimate = intervals.improvement(mine, theirs)
    value, low, high = (float(x[0]) for x in (estimate.value, estimate.low, estimate.high))
    found += f"; probability of improvement {value:.2f} [{low:.2f}, {high:.2f}], {n} runs each"
    if low > 0.5:
        return Verdict(claim, found, True)
    if high < 0.5 or mine.mean() < theirs.mean():
        return Verdict(claim, found, False)
    return Verdict(claim, f"{found}: too few runs to tell them apart", None)
