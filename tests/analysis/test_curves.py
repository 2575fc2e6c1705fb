"""Learning curves: means over seeds on known numbers, and pictures that exist."""

import json

import numpy as np
import pytest

from shoal.analysis.curves import RecordedRun, draw, draw_run, main, mean_curve, read_run
from shoal.utils.errors import UserError

PNG = b"\x89PNG\r\n"


def record(folder, metrics, **config):
    """A run as sacred's file observer leaves it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": "s2q", "env": "matrix_game", **config}))
    series = {
        name: {"steps": steps, "values": values, "timestamps": ["now"] * len(steps)}
        for name, (steps, values) in metrics.items()
    }
    (folder / "metrics.json").write_text(json.dumps(series))
    return folder


def curve(steps, values):
    return np.array(steps), np.array(values, dtype=float)


def test_the_mean_of_runs_that_tested_at_different_steps():
    grid, mean, low, high = mean_curve([curve([0, 10, 20], [0, 1, 2]), curve([0, 5, 20], [4, 4, 4])])
    assert grid.tolist() == [0, 5, 10, 20]
    assert mean.tolist() == [2.0, 2.25, 2.5, 3.0]
    assert low.tolist() == [0.0, 0.5, 1.0, 2.0]
    assert high.tolist() == [4.0, 4.0, 4.0, 4.0]


def test_the_mean_ends_where_the_shortest_run_ends():
    grid, mean, _, _ = mean_curve([curve([0, 10, 20, 30], [0, 0, 0, 9]), curve([0, 15], [2, 2])])
    assert grid.tolist() == [0, 10, 15]
    assert mean.tolist() == [1.0, 1.0, 1.0]


def test_one_run_is_its_own_mean_and_band():
    grid, *lines = mean_curve([curve([3, 4], [1.5, -1])])
    assert grid.tolist() == [3, 4]
    assert all(line.tolist() == [1.5, -1.0] for line in lines)


def test_a_record_is_read_with_its_gaps(tmp_path):
    run = read_run(record(tmp_path / "1", {"loss_td": ([5, 9], [None, 2])}, env_args={"map_name": "3m"}))
    steps, values = run.metrics["loss_td"]
    assert steps.tolist() == [5, 9]
    assert np.isnan(values[0])
    assert values[1] == 2.0
    assert run.label == "s2q on 3m"


def test_without_a_map_the_suite_is_the_label():
    assert RecordedRun(None, {"name": "vdn", "env": "matrix_game"}, {}).label == "vdn on matrix_game"


@pytest.mark.parametrize("broken", ["missing", "half"])
def test_what_is_no_record_is_refused(tmp_path, broken):
    folder = record(tmp_path / "1", {})
    if broken == "missing":
        (folder / "metrics.json").unlink()
    else:
        (folder / "metrics.json").write_text('{"loss_td": ')
    with pytest.raises(UserError, match="is not a recorded run"):
        read_run(folder)


def test_several_seeds_are_drawn_into_one_png(tmp_path):
    runs = [read_run(record(tmp_path / str(i), {"test_return_mean": ([0, 10], [i, i + 1])}, seed=i)) for i in range(3)]
    out = draw(runs, "test_return_mean", tmp_path / "curve.png", title="three seeds")
    assert out.read_bytes().startswith(PNG)
    assert out.stat().st_size > 5000


def test_a_metric_nobody_recorded_is_refused_with_those_that_are(tmp_path):
    run = read_run(record(tmp_path / "1", {"return_mean": ([0], [1])}))
    with pytest.raises(UserError, match=r"'test_return_mean'.*return_mean"):
        draw([run], "test_return_mean", tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


@pytest.mark.parametrize("metric", ["test_battle_won_mean", "test_return_mean"])
def test_one_runs_picture_lies_beside_its_record(tmp_path, metric):
    folder = record(tmp_path / "1", {metric: ([0, 10], [0.0, 1.0])})
    assert draw_run(folder) == folder / "learning_curve.png"
    assert (folder / "learning_curve.png").read_bytes().startswith(PNG)


def test_a_run_without_tests_has_no_picture(tmp_path):
    folder = record(tmp_path / "1", {"loss_td": ([0], [1.0])})
    assert draw_run(folder) is None
    assert not (folder / "learning_curve.png").exists()


def test_the_command_line_draws_and_says_where(tmp_path, capsys):
    folder = record(tmp_path / "1", {"test_return_mean": ([0, 10], [0, 1])})
    out = tmp_path / "mine.png"
    assert main([str(folder), "--metric", "test_return_mean", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)
    assert str(out) in capsys.readouterr().out


def test_the_command_line_refuses_in_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
