"""The picture beside a run's record."""

import pytest

from analysis.record import PNG, record
from shoal.analysis.curves import draw_run


@pytest.mark.parametrize("metric", ["test_battle_won_mean", "test_return_mean"])
def test_one_runs_picture_lies_beside_its_record(tmp_path, metric):
    folder = record(tmp_path / "1", {metric: ([0, 10], [0.0, 1.0])})
    assert draw_run(folder) == folder / "learning_curve.png"
    assert (folder / "learning_curve.png").read_bytes().startswith(PNG)


def test_a_run_without_tests_has_no_picture(tmp_path):
    folder = record(tmp_path / "1", {"loss_td": ([0], [1.0])})
    assert draw_run(folder) is None
    assert not (folder / "learning_curve.png").exists()
