"""Linear schedules over a fraction of a run."""

import pytest

from shoal.components.schedules import LinearSchedule, anneal_steps


@pytest.mark.parametrize(
    ("N", "at", "fraction", "start", "finish", "expected"),
    [
        (10_000, 1_000, 0.33333334, 1.0, 0.05, 0.714971),
        (10_000, 3_333, 0.33333334, 1.0, 0.05, 0.05),
        (10_000, 1_000, 0.66666667, 1e-4, 1e-5, 8.64986e-5),
        (10_000, 1_000, 1.0, 5e-4, 5e-5, 4.55e-4),
        (50_000, 5_000, 0.33333334, 1.0, 0.05, 0.714989),
        (50_000, 30_000, 0.66666667, 1e-4, 1e-5, 1.89992e-5),
        (50_000, 30_000, 1.0, 5e-4, 5e-5, 2.3e-4),
    ],
)
def test_a_schedule_ends_after_its_fraction_of_the_run(
    N: int, at: int, fraction: float, start: float, finish: float, expected: float
) -> None:
    schedule = LinearSchedule(start, finish, anneal_steps(fraction, N, 0))
    assert schedule(at) == pytest.approx(expected, rel=1e-5)


def test_schedule_without_duration_is_finished() -> None:
    assert LinearSchedule(1.0, 0.2, 0)(0) == pytest.approx(0.2)
