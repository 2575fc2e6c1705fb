"""How a metric's values become scores: shares are their own, others lie between given or recorded bounds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoal.recording import metric_names
from shoal.utils.errors import UserError


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


def scale_of(metric: str, values: np.ndarray, given: tuple[float, float] | None) -> Scale:
    """The scale of a metric on one task, of all its recorded ``values``; ``given`` bounds win."""
    if given:
        low, high = given
        return Scale(low, high, f"{metric}: {low:g} is 0 and {high:g} is 1 (given bounds)")
    if metric_names.is_share(metric, values):
        return Scale(0.0, 1.0, f"{metric} as it is (a share, 0 to 1)", is_share=True)
    low, high = float(values.min()), float(values.max())
    if low == high:  # nothing to stretch
        high = low + 1
    return Scale(low, high, f"{metric}: {low:.4g} is 0 and {high:.4g} is 1 (least and greatest of these runs)")


def given_bounds(bounds: Sequence[str], tasks: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What ``--bounds`` says of each task.

    Raises:
        UserError: a bound was not understood, or is of another task.
    """
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
