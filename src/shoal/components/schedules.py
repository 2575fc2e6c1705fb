"""Values that change with the number of environment steps done so far."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearSchedule:
    """From ``start`` to ``finish`` in a straight line over ``duration`` environment steps, then constant."""

    start: float
    finish: float
    duration: int

    def __call__(self, t_env: int) -> float:
        progress = min(1.0, t_env / self.duration) if self.duration > 0 else 1.0
        return self.start + (self.finish - self.start) * progress
