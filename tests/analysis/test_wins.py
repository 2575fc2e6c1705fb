"""Win rates of environments that tell of wins alone."""

import math

import pytest

from shoal.analysis.records import read_run
from shoal.analysis.study import study
from shoal.analysis.wins import with_all_wins
from support.record import record

RETURN, WON = "test_return_mean", "test_battle_won_mean"
STEPS = [0, 100, 200]


@pytest.fixture
def run(tmp_path):
    """Makes a run that was tested at 0, 100 and 200 and recorded these win rates, at the last of those steps."""
    made = []

    def make(*won, env="some_env", win_rate=WON, more=None, **config):
        metrics = {RETURN: (STEPS, [1.0, 2.0, 3.0])} | (more or {})
        metrics |= {win_rate: (STEPS[-len(won) :], list(won))} if won else {}
        number = len(made) + 1
        made.append(
            record(tmp_path / str(number), metrics, "COMPLETED", env=env, seed=number, test_interval=100, **config)
        )
        return read_run(made[-1])

    return make


def won(run):
    steps, values = run.metrics[WON]
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def test_tests_before_the_first_win_count_zero(run):
    (whole,) = with_all_wins([run(0.5)])
    assert won(whole) == {0: 0.0, 100: 0.0, 200: 0.5}
    assert whole.clock[WON].tolist() == whole.clock[RETURN].tolist()


def test_a_run_that_never_won_counts_beside_those_that_did(run):
    always, never, other = run(0.0, 0.5, 1.0), run(), run(env="another_env")
    assert [won(one) for one in with_all_wins([always, never])] == [won(always), dict.fromkeys(STEPS, 0.0)]
    assert WON not in with_all_wins([always, other])[1].metrics  # where nobody wins, nothing is known of winning
    assert with_all_wins([never])[0].metrics.keys() == never.metrics.keys()
    made = study([always, never])
    assert made.metric == WON
    assert not made.left_out
    (seeds,) = made.cells.values()
    assert sorted(seeds.scores.tolist()) == [0.0, 1.0]


def test_the_absolute_metric_of_a_run_that_never_won_is_zero(run):
    def more(win_rate=None):
        return {"absolute_test_return_mean": ([200], [3.0])} | (
            {f"absolute_{WON}": ([200], [win_rate])} if win_rate else {}
        )

    made = study([run(0.0, 0.5, 1.0, more=more(0.75)), run(more=more())], score="absolute")
    (seeds,) = made.cells.values()
    assert sorted(seeds.scores.tolist()) == [0.0, 0.75]


def test_football_is_judged_by_its_win_rate(run):
    made = study([run(0.0, 0.25, 0.5, win_rate="test_win_rate", more={"test_score_reward_mean": (STEPS, [0, 1, 2])})])
    assert made.metric == "test_win_rate"
    (scale,) = made.scales.values()
    assert (scale.is_share, scale.low, scale.high) == (True, 0.0, 1.0)
    (seeds,) = made.cells.values()
    assert seeds.scores.tolist() == [0.5]


def test_what_only_sounds_like_a_share_is_scaled(run):
    made = study([run(0.0, 2.0, 4.0, win_rate="test_success_mean")])
    (scale,) = made.scales.values()
    assert (scale.is_share, scale.high) == (False, 4.0)


def test_runs_of_a_suite_without_that_win_rate_are_named_with_the_reason(run):
    made = study([run(0.0, 0.5, 1.0), run(env="another_env", env_args={"map_name": "x"})])
    assert [left.reason for left in made.left_out] == [
        f"it has tests, but no {WON}: compare it on its own, or by another --metric"
    ]


def test_nan_stays_nan(run):
    (whole,) = with_all_wins([run(math.nan, 0.5)])
    assert math.isnan(won(whole)[100])
