"""What is compared with what: seeds, horizons, scales, scores, and runs that do not count."""

import math

import numpy as np
import pytest

from shoal.analysis.comparison import compare
from shoal.analysis.methods import name_algorithms
from shoal.analysis.records import read_run
from shoal.analysis.starts import read_runs
from shoal.analysis.study import study
from shoal.declare import Role
from shoal.roles import role_of
from shoal.utils.errors import UserError
from support.record import record

WON, RETURN = "test_battle_won_mean", "test_return_mean"


@pytest.fixture
def run(tmp_path):
    """Makes a run that tests at 0, 100, 200, ... and won so many of its battles there."""
    made = []

    def make(won, name="qmix", map_name="3m", seed=None, status="COMPLETED", more=None, **config):
        number = len(made) + 1
        metrics = {WON: ([100 * k for k in range(len(won))], won)} if len(won) else {}
        config = {"name": name, "env": "smax", "seed": number if seed is None else seed, "test_interval": 100} | config
        config["env_args"] = {"map_name": map_name} | config.get("env_args", {})
        made.append(record(tmp_path / str(number), metrics | (more or {}), status, **config))
        return read_run(made[-1])

    return make


def reasons(made):
    return {left.run.id: left.reason for left in made.left_out}


def test_runs_are_compared_where_the_shortest_completed_one_ends(run):
    runs = [
        run([0, 0.2, 0.4]),
        run([0, 0.1, 0.3, 0.9]),
        run([0, 0.5, 0.7, 0.8], status="INTERRUPTED"),
        run([0, 1], status="FAILED"),
    ]
    made = study(runs)
    assert made.grids["3m"].tolist() == [0, 100, 200]
    seeds = made.cells["qmix", "3m"]
    assert [r.id for r in seeds.runs] == ["1", "2", "3"]
    np.testing.assert_allclose(seeds.values, [[0, 0.2, 0.4], [0, 0.1, 0.3], [0, 0.5, 0.7]])
    assert seeds.scores.tolist() == [0.4, 0.3, 0.7]
    assert reasons(made) == {"4": "it ended at 100 of 200 steps"}


def test_without_a_completed_run_those_that_stopped_early_cut_nobody_short(run):
    made = study([run([0] * 9, status="RUNNING"), run([0] * 6, status="RUNNING"), run([0, 0], status="FAILED")])
    assert made.horizon("3m") == 500
    assert list(reasons(made)) == ["3"]


def test_where_to_compare_can_be_said(run):
    made = study([run([0, 0.2, 0.4]), run([0, 0.1, 0.3, 0.9])], t_max=300)
    assert made.horizon("3m") == 300
    assert reasons(made) == {"1": "it ended at 200 of 300 steps"}


def test_runs_shorter_than_a_test_interval_are_compared_at_their_end(run):
    assert study([run([0, 0.5], test_interval=10_000)]).grids["3m"].tolist() == [0, 100]


def test_a_step_to_compare_at_that_is_none_is_refused(run):
    with pytest.raises(UserError, match="--t-max 0 is out of range"):
        study([run([0, 1])], t_max=0)


def test_tests_at_slightly_different_steps_meet_on_the_grid(run):
    made = study([run([], more={WON: ([0, 104, 208], [0, 0.52, 1.04])})])
    np.testing.assert_allclose(made.cells["qmix", "3m"].values, [[0, 0.5, 1.0]])


def test_every_run_that_does_not_count_has_a_reason(run):
    runs = [
        run([0, 1]),
        run([], status="FAILED"),
        run([0.5], evaluate=True),
        run([], more={WON: ([500, 600], [1, 1])}),
        run([0, math.nan], status="FAILED"),
    ]
    assert reasons(study(runs)) == {
        "2": f"it ended before its first value of {WON}",
        "3": "it only evaluates a checkpoint",
        "4": "its record begins at 500 steps: give the record of the run that it resumed, too",
        "5": f"it ended before its second value of {WON}",
    }


def test_a_seed_that_was_tried_again_counts_once(run):
    runs = [run([0, 0.3, 0.4], seed=1, status="FAILED"), run([0, 0.1, 0.2], seed=1), run([0, 0.5, 0.6], seed=2)]
    made = study(runs)
    assert reasons(made) == {"1": "seed 1 once more: run 2 counts"}
    assert made.cells["qmix", "3m"].scores.tolist() == [0.2, 0.6]


def test_runs_that_differ_in_a_setting_of_the_method_are_two_algorithms(run):
    runs = [
        run([0, 1], lr=0.1, t_max=100),
        run([0, 0], lr=0.2, t_max=500),
        run([0, 0], lr=0.1, map_name="8m"),
        run([0, 0], name="vdn", lr=0.3),
    ]
    names, differing = name_algorithms(runs)
    assert list(names.values()) == ["qmix (lr=0.1)", "qmix (lr=0.2)", "qmix (lr=0.1)", "vdn"]
    assert differing == ["lr"]


def test_the_length_of_a_run_is_the_methods_where_schedules_are_fractions_of_it(run):
    runs = [run([0, 1], lr_anneal_frac=1.0, t_max=t_max) for t_max in (100, 500, 500)]
    runs += [run([0, 1], name="vdn", lr_anneal_frac=None, t_max=t_max) for t_max in (100, 500)]
    names = list(name_algorithms(runs)[0].values())
    assert names == ["qmix (t_max=100)", "qmix (t_max=500)", "qmix (t_max=500)", "vdn", "vdn"]


def test_settings_of_a_map_and_settings_of_another_version_are_no_difference(run):
    runs = [run([0, 1], lr=0.1), run([0, 1], lr=0.1, new_setting=True), run([0, 0], lr=0.2, map_name="8m")]
    assert set(name_algorithms(runs)[0].values()) == {"qmix"}


def test_what_scores_0_and_1(run):
    returns = [([0, 100], [-5.0, 10.0]), ([0, 100], [-10.0, 0.0])]
    runs = [run([], more={RETURN: series}) for series in returns]
    made = study(runs)
    assert made.cells["qmix", "3m"].scores.tolist() == [1.0, 0.5]
    assert made.scales["3m"].text == f"{RETURN}: -10 is 0 and 10 is 1 (least and greatest of these runs)"
    for bounds in (["-10:30"], ["3m=-10:30", "0:1"], ["0:1", "3m=-10:30"]):
        assert study(runs, bounds=bounds).cells["qmix", "3m"].scores.tolist() == [0.5, 0.25]
    assert study([run([0, 0.3])]).cells["qmix", "3m"].scores.tolist() == [0.3]  # a win rate is its own score


@pytest.mark.parametrize(
    ("bounds", "said"), [("x", "LOW:HIGH or TASK"), ("1:0", "below the second"), ("8m=0:1", "no task 8m, but 3m")]
)
def test_bounds_that_mean_nothing_are_refused(run, bounds, said):
    with pytest.raises(UserError, match=said):
        study([run([0, 1])], bounds=[bounds])


def test_which_value_is_a_runs_score(run):
    absolute = {f"absolute_{WON}": ([200], [0.6])}
    runs = [run([0, 0.9, 0.4], more=absolute), run([0, 0.7, 0.8], more=absolute)]
    scores = {
        kind: study(runs, score=kind).cells["qmix", "3m"].scores.tolist() for kind in ("absolute", "final", "best")
    }
    assert scores == {"absolute": [0.6, 0.6], "final": [0.4, 0.8], "best": [0.9, 0.8]}
    assert study(runs).score == "absolute"
    runs.append(run([0, 0.1, 0.2]))
    assert study(runs).score == "final"
    with pytest.raises(UserError, match="Run 3 has no absolute metric: train with absolute_test_nepisode"):
        study(runs, score="absolute")


def test_an_absolute_metric_of_a_longer_training_does_not_compare(run):
    runs = [
        run([0, 0.5], more={f"absolute_{WON}": ([100], [0.6])}),
        run([0] * 6, more={f"absolute_{WON}": ([500], [1])}),
    ]
    assert study(runs).score == "final"
    with pytest.raises(UserError, match=r"absolute metric of run 2 is of its whole training, 500 steps, .* at 100"):
        study(runs, score="absolute")


def test_steps_and_hours_to_a_score(run):
    made = study([run([0, 0.2, 0.6]), run([0, 0.5, 0.1]), run([0, 0, 0.4])])
    steps, hours = made.reached("qmix", "3m", 0.5)
    assert steps.tolist() == [200, 100, math.inf]
    np.testing.assert_allclose(hours, [20 / 3600, 10 / 3600, math.inf])  # ten steps a second


def test_a_metric_nobody_recorded_is_refused_with_those_that_are(run):
    with pytest.raises(UserError, match=f"No run recorded 'test_wins'; recorded are: {WON}"):
        study([run([0, 1])], metric="test_wins")
    with pytest.raises(UserError, match="no metrics at all"):
        study([run([], status="FAILED")])
    with pytest.raises(UserError, match="No run can be compared: run 3: it only evaluates a checkpoint"):
        study([run([0.5], evaluate=True)])


# Algorithms against each other.


def test_aggregates_are_of_the_maps_that_all_have(run):
    runs = [
        run([0, 0.1]),
        run([0, 0.2]),
        run([0, 0.3], map_name="8m"),
        run([0, 0.4], map_name="8m"),
        run([0, 0.9], "vdn"),
        run([0, 0.8], "vdn"),
    ]
    comparison = compare(study(runs))
    assert comparison.tasks == ["3m"]
    assert {name: scores.tolist() for name, scores in comparison.scores.items()} == {
        "qmix": [[0.1], [0.2]],
        "vdn": [[0.9], [0.8]],
    }
    assert comparison.notes[0] == "Not every algorithm was run on 8m: aggregates are of 3m alone."


def test_as_many_runs_of_each_map(run):
    runs = [run([0, 0.1]), run([0, 0.2]), run([0, 0.3]), run([0, 0.4], map_name="8m"), run([0, 0.5], map_name="8m")]
    comparison = compare(study(runs))
    assert comparison.scores["qmix"].tolist() == [[0.1, 0.4], [0.2, 0.5]]
    assert "qmix has 3 runs on 3m, 2 runs on 8m: aggregates take 2 of each, the first ones." in comparison.notes


def test_algorithms_without_a_common_map_are_refused(run):
    with pytest.raises(UserError, match=r"no task in common \(qmix: 3m; vdn: 8m\): .*--where"):
        compare(study([run([0, 1]), run([0, 1], "vdn", "8m")]))


def test_one_run_alone_is_said_to_have_no_interval(run):
    comparison = compare(study([run([0, 1])]))
    assert comparison.notes == [
        "Only one run each of qmix on 3m: no interval is possible, train at least one more seed."
    ]
    assert not comparison.aggregates["qmix"]["IQM"].has_interval


def test_a_resumed_run_is_one_seed(tmp_path):
    first = record(
        tmp_path / "1", {WON: ([0, 100], [0, 0.1])}, "INTERRUPTED", "m", name="s2q", test_interval=100, seed=1
    )
    second = record(tmp_path / "2", {WON: ([200], [0.7])}, "COMPLETED", "m", name="s2q", test_interval=100, seed=1)
    made = study(read_runs([first, second]))
    assert made.cells["s2q", "matrix_game"].values.tolist() == [[0, 0.1, 0.7]]
    assert not made.left_out


def test_a_pilot_of_a_seed_does_not_say_where_runs_are_compared(run):
    made = study([run([0, 0.1], seed=0), run([0, 0.2, 0.3, 0.4], seed=0), run([0, 0.3, 0.5, 0.9], seed=1)])
    assert made.horizon("3m") == 300
    assert reasons(made) == {"1": "seed 0 once more: run 2 counts"}


def test_metrics_of_training_begin_later_than_tests(run):
    losses = {"loss_td": ([105, 210, 305], [3.0, 2.0, 1.0])}
    made = study([run([0, 0, 0, 0], more=losses), run([0, 0, 0, 0], more=losses)], metric="loss_td")
    assert made.left_out == []


@pytest.mark.parametrize(
    "change",
    [
        {"keep_checkpoints": 9},
        {"keep_buffers": 2},
        {"runner": "ray", "ray_envs_per_worker": 2, "ray_address": "auto", "ray_cpus_per_env": 0.5},
        {"env_timeout_s": 9.0, "env_start_timeout_s": 9.0, "env_restart_every": 3, "max_env_restarts": 2},
        {"mongo_url": "localhost:27017:sacred"},
    ],
)
def test_where_a_run_is_played_and_stored_makes_no_other_algorithm(run, change):
    common = dict.fromkeys(change)
    names, differing = name_algorithms([run([0, 1], **common), run([0, 1], **change)])
    assert (set(names.values()), differing) == ({"qmix"}, [])


ONCE_LISTED = """
absolute_test_nepisode buffer_cpu_only checkpoint_path env_restart_every env_start_timeout_s env_timeout_s evaluate
 keep_buffers keep_checkpoints learner_log_interval load_step local_results_path max_env_restarts mongo_url
ray_address ray_cpus_per_env ray_envs_per_worker resume runner runner_log_interval save_buffer save_model
save_model_interval save_replay seed t_max test_interval test_nepisode torch_threads use_cuda use_tensorboard
env_args.map_name env_args.env_name env_args.key"""


@pytest.mark.parametrize("key", ONCE_LISTED.split())
def test_settings_that_have_never_told_methods_apart_still_do_not(key):
    """Records of before are grouped as they were when this was a list of its own."""
    assert role_of(key) is not Role.METHOD


@pytest.mark.parametrize("key", ["lr", "agent", "env_args.time_limit", "of_another_version", "env_args.of_a_strangers"])
def test_settings_of_the_method_and_unknown_ones_tell_methods_apart(key):
    assert role_of(key) is Role.METHOD
