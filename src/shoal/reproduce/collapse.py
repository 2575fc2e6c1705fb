"""Whether a run lost what it had learnt: the largest drop of its tests, as a share of its gain over random play."""

from dataclasses import dataclass

import numpy as np

SMOOTHED = 3
"""Tests that are averaged, so that one unlucky test is no collapse."""


@dataclass(frozen=True)
class Collapse:
    """What became of the gains of the runs of one method on one task."""

    drawdown: np.ndarray
    """Share of its gain that a run had lost at worst ``[R]``; above 1 it was below where it would be at random."""
    at_the_end: np.ndarray
    """The same at its last test ``[R]``."""
    collapsed: np.ndarray
    """Whether it lost more than half of a gain worth the name ``[R]``."""


def collapse(tests: np.ndarray, anchor: float) -> Collapse:
    """Drops in the tests of one method's seeds.

    The drawdown at a test is (best so far - now) / (best so far - anchor). A run collapsed if that exceeded 0.5 after
    its best so far had come more than half of the way from the anchor to the method's own final best (the mean over its
    seeds of the best test of each), so that noise near the start does not count.

    Args:
        tests: of each seed, ``[R, P]``, on common steps.
        anchor: what acting at random scores.
    """
    width = min(SMOOTHED, tests.shape[1])
    smooth = np.lib.stride_tricks.sliding_window_view(tests, width, axis=1).mean(-1)
    best = np.maximum.accumulate(smooth, axis=1)
    gain = best - anchor
    lost = np.divide(best - smooth, gain, out=np.zeros_like(gain), where=gain > 0)
    worth_the_name = gain > 0.5 * (best[:, -1].mean() - anchor)
    return Collapse(lost.max(1), lost[:, -1], ((lost > 0.5) & worth_the_name & (gain > 0)).any(1))
