"""One place says what judges a run, and which names are Shoal's own."""

import math
import re

import pytest

from shoal import registry
from shoal.components.action_selectors import GaussianNoise, GaussianNoiseSettings
from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.recording import metric_names
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.recording.metric_names import environment_key, is_better, judge, key_of, label, metric_of, score, shown
from support.launch import Recorder


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
    ("key", "metric"),
    [
        ("return", "test_return_mean"),
        ("win_rate", "test_win_rate"),
        ("mean", "test_mean_mean"),
        ("two\nlines", "test_two\nlines_mean"),
    ],
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


# The list of Shoal's own names.

SMALL = {
    "env": "support.team_env:SortedTeamEnv",
    "runner": "episode",
    "seed": 3,
    "batch_size": 2,
    "buffer_size": 8,
    "rnn_hidden_dim": 8,
    "save_model": False,
    "test_nepisode": 1,
    "absolute_test_nepisode": 1,
    "drop_nonfinite_episodes": True,
    "t_max": 30,
    "test_interval": 15,
    "runner_log_interval": 5,
    "learner_log_interval": 5,
}
"""Every setting that makes a run record more."""


def recorded_by(raw, folder):
    """The metrics of a whole run."""
    with Console(raw["t_max"], live=False) as console:
        recorder = Recorder()
        run = Experiment(RunSettings(raw, ExperimentSettings), Logger(recorder, console), console, folder)
        try:
            run.run()
        finally:
            run.close()
    return set(recorder.points)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """What short runs of every algorithm file record, but for the environment's own numbers."""
    names = set(GaussianNoise(GaussianNoiseSettings()).metrics(0))  # which no algorithm explores with yet
    names |= recorded_by(SMALL | {"learner": "q_learner", "env_args": {"clock": 5.0}}, tmp_path_factory.mktemp("alarm"))
    for alg in files.names("algs"):
        raw = {key: value for key, value in files.load("algs", alg).items() if key != "env_args"} | SMALL
        if registry.find("mac", raw.get("mac", "basic_mac")).chooses_vectors:
            raw |= {"env_args": {"continuous": True}, "env": "support.team_env:TeamEnv"}
        raw |= {"mq_manage_interval": 1} if raw.get("mac") == "mq_mac" else {}
        raw |= {"breakpoint": 5} if raw.get("agent") == "att_rnn" else {}
        names |= recorded_by(raw, tmp_path_factory.mktemp(alg))
    return {name for name in names if metric_names.key_of(name) not in ("score", "seed")}


def test_all_that_shoal_records_is_on_the_list(recorded):
    assert {name for name in recorded if not metric_names.is_own(name)} == set()


@pytest.mark.parametrize("pattern", metric_names.OWN)
def test_the_list_names_nothing_that_is_not_recorded(recorded, pattern):
    assert any(re.fullmatch(pattern, name) for name in recorded)


def test_no_execution_of_a_test_is_forgotten(recorded):
    tested = {name for name in recorded if name.startswith("test_")}
    assert {metric_names._parts(name)[1] for name in tested} == {"", *metric_names.EXECUTIONS}
