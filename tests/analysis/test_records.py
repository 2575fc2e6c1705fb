"""Reading records, and means over seeds on known numbers."""

import numpy as np
import pytest

from analysis.record import record
from shoal.analysis.records import RecordedRun, by_label, curves_of, mean_curve, read_run, read_runs
from shoal.utils.errors import UserError


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


def test_runs_of_one_algorithm_and_map_are_seeds(tmp_path):
    maps = ["3m", "8m", "3m"]
    runs = [read_run(record(tmp_path / str(i), {}, env_args={"map_name": name})) for i, name in enumerate(maps)]
    assert by_label(runs) == {"s2q on 3m": [runs[0], runs[2]], "s2q on 8m": [runs[1]]}


def test_curves_are_of_those_that_recorded_the_metric(tmp_path):
    metrics = [{"loss_td": ([5], [2.0])}, {}, {"loss_td": ([], [])}]
    runs = [read_run(record(tmp_path / str(i), recorded)) for i, recorded in enumerate(metrics)]
    assert [(steps.tolist(), values.tolist()) for steps, values in curves_of(runs, "loss_td")] == [([5], [2.0])]


def test_a_run_that_was_resumed_is_one_run(tmp_path):
    first = record(tmp_path / "1", {"loss_td": ([0, 10, 20, 30], [0, 1, 2, 3]), "only": ([5], [7])})
    second = record(tmp_path / "2", {"loss_td": ([20, 30, 40], [12, 13, 14]), "new": ([40], [8])})
    other = record(tmp_path / "3", {"loss_td": ([0], [5])})
    for folder, name in ((first, "a"), (second, "a"), (other, "b")):
        (folder / "info.json").write_text(f'{{"model_dir": "results/models/{name}"}}')
    for order in ([first, second, other], [other, second, first]):
        whole, alone = sorted(read_runs(order), key=lambda run: run.model_dir)
        assert whole.folder == first
        assert [x.tolist() for x in whole.metrics["loss_td"]] == [[0, 10, 20, 30, 40], [0, 1, 12, 13, 14]]
        assert [x.tolist() for x in whole.metrics["only"]] == [[5], [7]]
        assert [x.tolist() for x in whole.metrics["new"]] == [[40], [8]]
        assert alone.metrics["loss_td"][1].tolist() == [5]


def test_records_without_a_model_folder_stay_apart(tmp_path):
    folders = [record(tmp_path / str(i), {"loss_td": ([0], [i])}) for i in range(2)]
    for folder in folders:
        (folder / "info.json").unlink(missing_ok=True)
    assert len(read_runs(folders)) == 2
