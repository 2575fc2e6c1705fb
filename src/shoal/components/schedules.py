"""Values that change with the number of environment steps done so far."""

from dataclasses import dataclass
from typing import Annotated

from shoal.declare import Range, Role

TMax = Annotated[int, "environment steps of the whole run", Range(1), Role.LENGTH]
"""The setting ``t_max`` as every component declares it whose schedules are fractions of the run."""


@dataclass(frozen=True)
class LinearSchedule:
    """From ``start`` to ``finish`` in a straight line over ``duration`` environment steps, then constant."""

    start: float
    finish: float
    duration: int

    def __call__(self, t_env: int) -> float:
        progress = min(1.0, t_env / self.duration) if self.duration > 0 else 1.0
        return self.start + (self.finish - self.start) * progress


def anneal_steps(fraction: float | None, t_max: int, steps: int) -> int:
    """How long a schedule takes: ``fraction`` of the run, cut to whole steps, or ``steps`` where it is not given."""
    return steps if fraction is None else int(fraction * t_max)
