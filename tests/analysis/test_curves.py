"""The picture beside a run's record."""

import pytest

from shoal.analysis.curves import draw_run
from support.record import PNG, record


@pytest.mark.parametrize("metric", ["test_battle_won_mean", "test_win_rate", "test_return_mean"])
def test_one_runs_picture_lies_beside_its_record(tmp_path, metric):
    folder = record(tmp_path / "1", {metric: ([0, 10], [0.0, 1.0])})
    assert draw_run(folder) == folder / "learning_curve.png"
    assert (folder / "learning_curve.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("metrics", "label"),
    [
        ({"test_return_mean": [3.0, 4.0], "test_win_rate": [0.25, 0.5]}, "test win rate"),
        ({"test_return_mean": [3.0, 4.0], "test_score_mean": [0.25, 0.5]}, "test return"),
    ],
)
def test_the_picture_is_of_what_judges_the_run(tmp_path, monkeypatch, metrics, label):
    drawn = []
    monkeypatch.setattr("shoal.analysis.curves.save_figure", lambda figure, out: drawn.append(figure) or out)
    draw_run(record(tmp_path / "1", {name: ([0, 10], values) for name, values in metrics.items()}))
    (axes,) = drawn[0].axes
    assert axes.get_ylabel() == label
    assert axes.get_lines()[0].get_ydata().tolist() == list(metrics.values())[label == "test win rate"]


def test_a_run_without_tests_has_no_picture(tmp_path):
    folder = record(tmp_path / "1", {"loss_td": ([0], [1.0])})
    assert draw_run(folder) is None
    assert not (folder / "learning_curve.png").exists()
