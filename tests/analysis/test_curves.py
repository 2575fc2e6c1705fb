"""Learning curves: pictures that exist, and what cannot be drawn."""

import pytest

from analysis.record import PNG, record
from shoal.analysis.curves import draw, draw_run, main
from shoal.analysis.records import read_run
from shoal.utils.errors import UserError


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


@pytest.mark.parametrize(("name", "reason"), [("missing/curve.png", "cannot be written"), ("curve.text", "format")])
def test_a_picture_that_cannot_be_written_is_refused(tmp_path, name, reason):
    run = read_run(record(tmp_path / "1", {"test_return_mean": ([0, 10], [0, 1])}))
    with pytest.raises(UserError, match=f"{name}.*{reason}"):
        draw([run], "test_return_mean", tmp_path / name)
