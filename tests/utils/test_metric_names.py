"""One place says what judges a run, and which names are Shoal's own."""

import math

import pytest

from shoal.utils import metric_names
from shoal.utils.metric_names import environment_key, is_better, judge, key_of, label, metric_of, score, shown


@pytest.mark.parametrize(
    ("recorded", "judged"),
    [
        ({"test_return_mean"}, "test_return_mean"),
        ({"test_return_mean", "test_win_rate", "test_score_reward_mean"}, "test_win_rate"),  # football
        ({"test_return_mean", "test_win_rate", "test_battle_won_mean"}, "test_battle_won_mean"),
        ({"test_return_mean", "test_success_mean", "battle_won_mean"}, "test_success_mean"),
        ({"test_return_mean", "test_teacher_battle_won_mean"}, "test_return_mean"),  # another execution
        (set(), "test_return_mean"),
    ],
)
def test_the_win_rate_judges_where_there_is_one(recorded, judged):
    assert judge(recorded) == judged


def test_scores_with_and_without_a_win_rate_compare():
    before = score({"test_return_mean": 30.0})
    after = score({"test_return_mean": 2.0, "test_win_rate": 0.1})
    assert (before, after) == ([0.0, 30.0], [0.1, 2.0])
    assert is_better(after, before)
    assert not is_better(before, after)
    assert is_better(before, [])
    for broken in (math.nan, math.inf):
        assert not is_better([0.0, broken], [])
        assert not is_better([broken, 1.0], before)


@pytest.mark.parametrize(
    ("key", "metric"), [("return", "test_return_mean"), ("win_rate", "test_win_rate"), ("mean", "test_mean_mean")]
)
def test_a_metric_has_the_name_of_its_key(key, metric):
    assert metric_of(key, "test_") == metric
    assert key_of(metric) == key


def test_names_for_people():
    assert label("test_battle_won_mean") == label("test_win_rate") == "test win rate"
    assert label("absolute_test_return_mean") == "absolute test return"
    assert label("test_teacher_solved_mean") == "test teacher success rate"
    assert label("loss_td") == "loss td"
    assert shown("test_win_rate", 0.25) == shown("collision_rate", 0.25) == "25.0%"
    assert shown("test_success_mean", 3.0) == "3.00"  # a number of successes
    assert shown("test_return_mean", 0.25) == "0.25"
    assert shown("test_win_rate", math.nan) == "nan"


@pytest.mark.parametrize(
    "key",
    ["battle_won", "win_rate", "score", "seed", "dead_allies", "episode", "epsilon", "optimal", "env_score", "returns"],
)
def test_what_is_not_shoals_keeps_its_name(key):
    assert environment_key(key) == key


@pytest.mark.parametrize(
    "key", ["return", "ep_length", "action_move", "q_taken", "test_score", "absolute_test_x", "teacher_x"]
)
def test_what_is_shoals_does_not(key):
    once = environment_key(key)
    assert once == f"env_{key}"
    assert environment_key(once) == f"env_{once}"  # so that two keys never become one


def test_no_environment_key_gives_a_name_of_shoals():
    """Whatever the name, in training and in every kind of test."""
    names = [
        "return_mean",
        "ep_length_mean",
        "q_taken_mean",
        "target_mean",
        "v_mean",
        "action_x_mean",
        "loss_td",
        "episode",
    ]
    prefixes = ["", "test_", "absolute_test_", "teacher_", "test_teacher_", "env_", "env_test_"]
    for bare in (prefix + name.removesuffix("_mean") for name in names for prefix in prefixes):
        key = environment_key(bare)
        for prefix in ("", "test_", "test_teacher_", "absolute_test_"):
            assert not metric_names.is_own(metric_of(key, prefix)), (bare, prefix)
