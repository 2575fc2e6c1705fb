"""What a sweep consists of, and when a recorded run is one of its runs."""

from pathlib import Path

import pytest

from shoal.config import files
from shoal.sweeps import plan
from shoal.sweeps.cli import main as sweep
from shoal.sweeps.options import parsed
from shoal.sweeps.plan import Cell, cells, planned, read_grid, read_seeds
from shoal.sweeps.request import read
from shoal.utils.errors import UserError

GIVEN = [files.Layer("command line", {"batch_size": 4, "buffer_size": 40, "t_max": 100})]
CELL = Cell("qmix", "matrix_game", 3)


@pytest.mark.parametrize(
    ("text", "seeds"), [("5", [0, 1, 2, 3, 4]), ("1", [0]), ("3,7", [3, 7]), ("7,", [7]), ("5-8", [5, 6, 7, 8])]
)
def test_seeds_are_a_number_a_list_or_a_range(text, seeds):
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "-3", "x", "3,3", "9-5", "1-2-3", "1,-2"])
def test_other_seeds_are_refused(text):
    with pytest.raises(UserError, match="--seeds="):
        read_seeds(text)


def test_every_combination_is_run_and_the_first_seed_of_all_comes_first():
    found = list(cells(["qmix", "s2q"], ["smax"], ["3m", "2s3z"], [0, 1], {"lr": [0.1, 0.2], "env_args.x": [True]}))
    assert len(found) == len({(c.config, c.map_name, c.seed, c.tag) for c in found}) == 16
    assert [c.seed for c in found] == [0] * 8 + [1] * 8
    assert {c.tag for c in found} == {"lr0.1_xTrue", "lr0.2_xTrue"}
    assert found[0].changes == {"lr": 0.1, "env_args.x": True}
    assert [c.map_name for c in cells(["qmix"], ["smax"], [], [0], {})] == [None]


def test_a_planned_run_has_the_settings_that_the_command_line_would_give_it(tmp_path):
    changes = {"lr": 0.002, "env_args.reward_scale": 5}
    run = planned(Cell("qmix", "smax", 3, "6h_vs_8z", changes, "lr0.002_reward_scale5"), GIVEN, tmp_path)
    assert run.name == "qmix_smax_6h_vs_8z_lr0.002_reward_scale5_seed3"
    expected = {"seed": 3, "lr": 0.002, "batch_size": 4, "name": "qmix", "epsilon_anneal_time": 500_000}
    assert {key: run.values[key] for key in expected} == expected
    assert run.values["local_results_path"] == str(tmp_path / run.name)
    assert (run.values["env_args"]["map_name"], run.values["env_args"]["reward_scale"]) == ("6h_vs_8z", 5)
    assert run.t_max == 100


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Cell("qmx", "matrix_game", 0), "'qmix'"),
        (Cell("qmix", "smax", 0, "3n"), "'3m'"),
        (Cell("qmix", "matrix_game", 0, "3m"), "map_name"),
        (Cell("qmix", "matrix_game", 0, None, {"lrr": 1}), "'lrr'"),
    ],
)
def test_a_run_that_could_not_start_is_refused_beforehand(tmp_path, cell, words):
    with pytest.raises(UserError, match=words):
        planned(cell, GIVEN, tmp_path)


def test_a_grid_is_read_with_the_settings_of_the_environment(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("lr: [1e-3, 0.002]\nenv_args:\n  payoff: [[[1, 2], [3, 4]]]\nenv_args.time_limit: [1, 2]\n")
    expected = {"lr": ["1e-3", 0.002], "env_args.payoff": [[[1, 2], [3, 4]]], "env_args.time_limit": [1, 2]}
    assert read_grid(path) == expected


@pytest.mark.parametrize("text", ["lr: 0.1", "lr: []", "lr: [1, 1]", "env_args: {map_name: 3m}"])
def test_a_grid_without_alternatives_is_refused(tmp_path, text):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(UserError, match=r"grid\.yaml"):
        read_grid(tmp_path / "grid.yaml")


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 3},
        {"resume": "x"},
        {"evaluate": True},
        {"env_args": {"map_name": "3m"}},
        {"local_results_path": "elsewhere"},
    ],
)
def test_what_cannot_be_said_for_all_runs_is_refused(settings):
    (key,) = settings
    with pytest.raises(UserError, match=key):
        plan.check_given([files.Layer("command line", settings)], ["3m"])


def test_a_grid_cannot_say_it_either(tmp_path):
    (tmp_path / "grid.yaml").write_text("seed: [1, 2]\n")
    arguments = ["--configs=qmix", "--env-configs=matrix_game", f"--grid={tmp_path / 'grid.yaml'}"]
    with pytest.raises(UserError, match="--seeds says"):
        read(*parsed(arguments))


def test_a_password_is_refused_before_it_is_written_anywhere(tmp_path, capsys):
    command = ["src/sweep.py", "--configs=qmix", "--env-configs=matrix_game", f"--results={tmp_path}", "with"]
    assert sweep([*command, "mongo_url=mongodb://me:s3cret@localhost/db"]) == 1
    printed = capsys.readouterr()
    assert "SHOAL_MONGO_URL" in printed.err
    assert "s3cret" not in printed.err + printed.out
    assert not any(tmp_path.iterdir())


# When is it the same run?


@pytest.fixture
def run(tmp_path):
    return planned(CELL, GIVEN, tmp_path)


def test_where_and_how_often_a_run_is_stored_does_not_make_it_another(run):
    assert run.is_same(run.values)
    elsewhere = {"local_results_path": "other", "resume": "x", "save_model_interval": 7, "use_tensorboard": True}
    assert run.is_same(run.values | elsewhere)


@pytest.mark.parametrize("change", [{"seed": 4}, {"t_max": 200}, {"lr": 0.1}, {"mixer": None}, {"gone": 1}])
def test_another_setting_makes_it_another_run(run, change):
    assert not run.is_same(run.values | change)


def test_so_does_one_of_the_environment(run):
    env_args = run.values["env_args"]
    assert not run.is_same(run.values | {"env_args": env_args | {"payoff": [[1.0, 0.0], [0.0, 2.0]]}})
    assert not run.is_same(run.values | {"env_args": env_args | {"gone": 1}})


def test_a_record_older_than_a_setting_is_the_same_run_only_at_its_default(run, tmp_path):
    older = {key: value for key, value in run.values.items() if key != "double_q"}
    assert run.is_same(older)
    other = planned(Cell("qmix", "matrix_game", 3, None, {"double_q": not run.values["double_q"]}), GIVEN, Path("x"))
    assert not other.is_same(older)


def test_a_record_that_calls_a_setting_by_its_old_name_is_the_same_run(run):
    env_args = dict(run.values["env_args"])
    env_args["episode_limit"] = env_args.pop("time_limit")
    assert run.is_same(run.values | {"env_args": env_args})
    assert not run.is_same(run.values | {"env_args": env_args | {"episode_limit": 7}})


def test_a_run_that_was_resumed_no_longer_names_what_it_began_with(run):
    begun = planned(CELL, [*GIVEN], Path("r"))
    begun.values["checkpoint_path"] = "results/models/pre"
    record = {**begun.values, "checkpoint_path": ""}
    assert not begun.is_same(record)
    assert begun.is_same({**record, "resume": "r/models/x"})
