"""Aggregates against numbers worked out by hand, and intervals that hold what they should as often as they should."""

import itertools

import numpy as np
import pytest
from rliable import metrics

from shoal.analysis import intervals
from shoal.analysis.intervals import aggregates, estimate, improvement, iqm_curve, mean_curve, profile

SCORES = np.array([[0.0, 0.5], [0.2, 0.6], [0.4, 0.9], [0.1, 1.2]])  # [R, M]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 200)


def test_aggregates_by_hand():
    by_hand = {
        "IQM": (0.2 + 0.4 + 0.5 + 0.6) / 4,  # the middle four of eight
        "median": (0.7 / 4 + 3.2 / 4) / 2,  # of the two tasks' means
        "mean": 3.9 / 8,
        "optimality gap": 1 - (0.0 + 0.2 + 0.4 + 0.1 + 0.5 + 0.6 + 0.9 + 1.0) / 8,  # 1.2 counts as 1
    }
    found = aggregates(SCORES)
    assert {name: float(e.value) for name, e in found.items()} == pytest.approx(by_hand)
    for name, e in found.items():
        assert e.low < by_hand[name] < e.high


def test_a_profile_by_hand():
    curve = profile(SCORES, np.array([0.0, 0.5, 1.0]))
    assert curve.value.tolist() == [7 / 8, 3 / 8, 1 / 8]  # above, not at
    assert (curve.low <= curve.value).all()
    assert (curve.value <= curve.high).all()


def test_a_probability_of_improvement_by_hand():
    x, y = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 5.0], [3.0, 5.0], [0.0, 5.0]])
    # Task 1: 1 beats one of three; 3 beats two and ties with one. Task 2: all tie.
    assert improvement(x, y).value.tolist() == pytest.approx([((1 + 2.5) / 6 + 0.5) / 2])


X = np.array([[0.9, 0.4], [0.8, 0.5], [1.0, 0.3], [0.7, 0.6]])
Y = np.array([[0.2, 0.7], [0.3, 0.6], [0.1, 0.9], [0.9, 0.8]])


@pytest.mark.parametrize(
    ("scores", "iqm", "median", "mean", "gap"), [(X, 0.65, 0.65, 0.65, 0.35), (Y, 0.6, 0.5625, 0.5625, 0.4375)]
)
def test_aggregates_of_two_tasks(scores, iqm, median, mean, gap):
    found = {name: float(e.value) for name, e in aggregates(scores).items()}
    assert found == pytest.approx({"IQM": iqm, "median": median, "mean": mean, "optimality gap": gap})


def test_profile_improvement_and_an_uneven_trim():
    taus = np.array([0.0, 0.35, 0.5, 0.75, 1.0])
    assert profile(X, taus).value.tolist() == [1, 0.875, 0.625, 0.375, 0]
    assert improvement(X, Y).value[0] == pytest.approx(0.4375)
    per_task = [improvement(X[:, [m]], Y[:, [m]]).value[0] for m in (0, 1)]
    assert per_task == pytest.approx([0.84375, 0.03125])
    assert float(aggregates(np.arange(10.0).reshape(5, 2) / 10)["IQM"].value) == pytest.approx(0.45)


def test_a_probability_of_improvement_is_rliables():
    rng = np.random.default_rng(0)
    for runs, others in ((3, 3), (5, 4)):
        x, y = rng.integers(0, 4, (runs, 3)).astype(float), rng.integers(0, 4, (others, 3)).astype(float)
        assert improvement(x, y).value[0] == pytest.approx(metrics.probability_of_improvement(x, y))


def test_an_interval_of_two_runs_by_hand():
    """Runs 0 and 1 are drawn as 00, 01, 10 and 11, so 0 and 1 are a quarter each of all means: both are in 95%."""
    e = estimate(lambda sample: sample.mean(axis=(0, 1)).reshape(1), np.array([[0.0], [1.0]]))
    assert (e.value[0], e.low[0], e.high[0]) == (0.5, 0.0, 1.0)


def test_runs_are_drawn_within_their_task():
    """A task that scores 0 in all runs and one that scores 1 leave nothing to chance; drawn over all, they would."""
    e = mean_curve(np.zeros((4, 1)))
    assert (e.low[0], e.high[0]) == (0.0, 0.0)
    whole = aggregates(np.array([[0.0, 1.0]] * 4))["mean"]
    assert (whole.low, whole.high) == (0.5, 0.5)


def test_curves_point_by_point():
    values = np.array([[0.0, 1.0], [2.0, 1.0], [7.0, 1.0]])  # [R, P]
    curve = mean_curve(values)
    assert curve.value.tolist() == [3.0, 1.0]
    assert curve.low[1] == curve.high[1] == 1.0
    scores = np.arange(8.0).reshape(2, 4, 1)  # [R, M, P]
    assert iqm_curve(scores).value.tolist() == [3.5]


def test_one_run_has_no_interval():
    for e in (mean_curve(np.ones((1, 3))), improvement(np.ones((1, 1)), np.ones((5, 1)))):
        assert not e.has_interval
        assert np.isnan(e.low).all()
        assert np.isnan(e.high).all()


def test_the_same_figure_twice_and_nobody_elses_chance_changed():
    np.random.seed(7)
    before = np.random.get_state()[1].tolist()
    first, second = profile(SCORES, np.linspace(0, 1, 5)), profile(SCORES, np.linspace(0, 1, 5))
    assert first.low.tolist() == second.low.tolist()
    assert np.random.get_state()[1].tolist() == before


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Thirty runs of two tasks, normal scores of known mean: about 95 of 100 intervals hold it.

    Percentile intervals of thirty runs are a little short (the standard error lacks a factor of sqrt(29 / 30)): 94% is
    what to expect, and 120 samples of that lie outside 86% to 99% once in a thousand times.
    """
    rng = np.random.default_rng(3)
    truth, held, samples = 0.4, 0, 120
    for _ in range(samples):
        e = mean_of_means(rng.normal([truth - 0.2, truth + 0.2], [0.1, 0.3], (30, 2)))
        held += bool(e.low[0] <= truth <= e.high[0])
    assert 0.86 <= held / samples <= 0.99


def mean_of_means(scores):
    return estimate(lambda sample: sample.mean(axis=(0, 1)).reshape(1), scores)


def test_intervals_of_three_runs_are_too_short():
    """What the note about few runs says: of three runs, far fewer than 95% of the intervals hold the truth."""
    rng = np.random.default_rng(4)
    held = [e.low[0] <= 0 <= e.high[0] for e in (mean_of_means(rng.normal(size=(3, 1))) for _ in range(60))]
    assert 0.5 < np.mean(held) < 0.9


def test_all_resamples_of_three_runs():
    """Against every one of the 27 ways to draw three of three, each as likely as the others."""
    scores = np.array([0.1, 0.4, 1.0])
    means = [np.mean(draw) for draw in itertools.product(scores, repeat=3)]
    e = mean_of_means(scores[:, None])
    assert e.low[0] == pytest.approx(np.quantile(means, 0.025, method="inverted_cdf"))
    assert e.high[0] == pytest.approx(np.quantile(means, 0.975, method="inverted_cdf"))
