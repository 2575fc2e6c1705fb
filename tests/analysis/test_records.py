"""Reading records, and means over seeds on known numbers."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from shoal.analysis.records import RecordedRun, read_run
from shoal.analysis.seeds import by_label, curves_of, mean_curve
from shoal.analysis.starts import read_runs
from shoal.utils.errors import UserError
from support.record import record


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
    for folder, name in (
        (first, "results/models/a"),
        (second, "/home/me/results/models/a"),
        (other, "results/models/b"),
    ):
        (folder / "info.json").write_text(f'{{"model_dir": "{name}"}}')
    for order in ([first, second, other], [other, second, first]):
        whole, alone = sorted(read_runs(order), key=lambda run: run.folder)
        assert whole.folder == first
        assert [x.tolist() for x in whole.metrics["loss_td"]] == [[0, 10, 20, 30, 40], [0, 1, 12, 13, 14]]
        assert [x.tolist() for x in whole.metrics["only"]] == [[5], [7]]
        assert [x.tolist() for x in whole.metrics["new"]] == [[40], [8]]
        assert alone.metrics["loss_td"][1].tolist() == [5]


def test_what_came_before_the_checkpoint_that_a_record_goes_on_from_stands(tmp_path):
    """Stopped in the midst of the test at 20, after the losses of that step were logged."""
    first = record(tmp_path / "1", {"loss_td": ([0, 10, 20, 22], [0, 1, 2, 9]), "test": ([0, 10], [0, 1])})
    second = record(tmp_path / "2", {"loss_td": ([30], [3]), "test": ([20, 30], [2, 3])})
    third = record(tmp_path / "3", {"test": ([30], [3])})  # killed behind the checkpoint of its last test
    for folder, info in ((first, {}), (second, {"t_env": 20}), (third, {"t_env": 30})):
        (folder / "info.json").write_text(json.dumps({"model_dir": "models/a", "resumed": info}))
    (whole,) = read_runs([first, second, third])
    assert [x.tolist() for x in whole.metrics["loss_td"]] == [[0, 10, 20, 30], [0, 1, 2, 3]]
    assert [x.tolist() for x in whole.metrics["test"]] == [[0, 10, 20, 30], [0, 1, 2, 3]]
    assert [len(whole.clock[name]) for name in ("loss_td", "test")] == [4, 4]


def test_records_without_a_model_folder_stay_apart(tmp_path):
    folders = [record(tmp_path / str(i), {"loss_td": ([0], [i])}) for i in range(2)]
    for folder in folders:
        (folder / "info.json").unlink(missing_ok=True)
    assert len(read_runs(folders)) == 2


# What run.json says.


def test_a_run_says_how_and_when_it_ended(tmp_path):
    run = read_run(record(tmp_path / "7", {"loss_td": ([0, 100], [1, 1])}, status="FAILED", steps_per_second=5))
    assert (run.id, run.status, run.seconds) == ("7", "FAILED", 20.0)
    assert run.failure == "ValueError: too bad"
    assert run.clock["loss_td"].tolist() == [0.0, 20.0]


def test_a_run_that_fell_silent_died(tmp_path):
    now = datetime.now(UTC).replace(tzinfo=None)
    silent = read_run(record(tmp_path / "1", {}, status="RUNNING", started=now - timedelta(minutes=3)))
    alive = read_run(record(tmp_path / "2", {}, status="RUNNING", started=now - timedelta(seconds=30)))
    assert (silent.status, alive.status) == ("DIED", "RUNNING")


def test_a_run_that_ended_before_it_measured_anything_is_a_run(tmp_path):
    folder = record(tmp_path / "1", {}, status="INTERRUPTED")
    (folder / "metrics.json").unlink()
    run = read_run(folder)
    assert (run.metrics, run.status) == ({}, "INTERRUPTED")


def test_the_clock_of_a_resumed_run_leaves_out_the_pause_and_what_was_done_twice(tmp_path):
    first = record(tmp_path / "1", {"loss_td": ([0, 100, 200, 300], [0] * 4)}, "INTERRUPTED", "m")  # 10 steps a second
    later = datetime(2026, 1, 3)
    second = record(tmp_path / "2", {"loss_td": ([200, 300], [1, 1])}, "COMPLETED", "m", later, steps_per_second=50)
    (whole,) = read_runs([second, first])
    assert (whole.id, whole.status) == ("1+2", "COMPLETED")
    assert whole.clock["loss_td"].tolist() == [0.0, 10.0, 10.0, 12.0]  # the second begins with what it records first
    assert whole.seconds == 30.0 + 2.0


def test_two_starts_from_one_checkpoint_are_joined_in_the_order_of_time(tmp_path):
    def start(day, steps, status):
        metrics = {"loss_td": (steps, [day] * len(steps))}
        return record(tmp_path / str(day), metrics, status, "m", datetime(2026, 1, day))

    first = start(1, [0, 60, 90], "INTERRUPTED")
    died = start(2, [64, 80], "FAILED")  # began with a longer episode than the next one
    last = start(3, [61, 200], "COMPLETED")
    (whole,) = read_runs([last, died, first])
    assert whole.metrics["loss_td"][0].tolist() == [0, 60, 61, 200]
    assert whole.metrics["loss_td"][1].tolist() == [1, 1, 3, 3]
    assert whole.status == "COMPLETED"


def start(folder, number, steps, day, *, at=None, of="", status="INTERRUPTED", told=True):
    """The record of a run's start ``number``, from the checkpoint at ``at`` that the record ``of`` wrote.

    Its values are its number. Without ``told``, as before records said what they go on from.
    """
    path = record(
        folder / str(number),
        {"loss_td": (steps, [number] * len(steps))},
        status,
        "m",
        datetime(2026, 1, day),
        test_interval=50,
        runner_log_interval=10,
    )
    entry = json.loads((path / "run.json").read_text()) | {"meta": {"uid": f"u{number}"}}
    (path / "run.json").write_text(json.dumps(entry))
    info = {"model_dir": "m"}
    if at is not None and told:
        info["resumed"] = {"t_env": at, "record": of, "start": number}
    (path / "info.json").write_text(json.dumps(info))
    return path


def joined_loss(folders):
    (whole,) = read_runs(folders)
    steps, values = whole.metrics["loss_td"]
    return dict(zip(steps.tolist(), values.tolist(), strict=True)), whole


@pytest.mark.parametrize("told", [True, False])
def test_a_clock_that_went_back_reorders_nothing(tmp_path, told):
    folders = [
        start(tmp_path, 0, [0, 100, 200, 300], day=20),
        start(tmp_path, 1, [210, 300, 400, 500], day=2, at=200, of="u0", told=told),
        start(tmp_path, 2, [410, 500, 600], day=1, at=400, of="u1", status="COMPLETED", told=told),
    ]
    for order in (folders, folders[::-1]):
        points, whole = joined_loss(order)
        assert points == {0: 0, 100: 0, 200: 0, 210: 1, 300: 1, 400: 1, 410: 2, 500: 2, 600: 2}
        assert (whole.id, whole.status) == ("0+1+2", "COMPLETED")
        clock = whole.clock["loss_td"]
        assert (np.diff(clock) >= 0).all()


def test_a_clock_that_is_set_back_in_a_run_never_runs_backwards(tmp_path):
    folder = record(tmp_path / "1", {"loss_td": ([0, 100, 200, 300], [0] * 4)}, "COMPLETED")  # 10 steps a second
    series = json.loads((folder / "metrics.json").read_text())
    series["loss_td"]["timestamps"][2] = "2025-12-31T00:00:00"
    (folder / "metrics.json").write_text(json.dumps(series))
    assert read_run(folder).clock["loss_td"].tolist() == [0.0, 10.0, 10.0, 30.0]
    entry = json.loads((folder / "run.json").read_text()) | {"stop_time": "2025-12-31T00:00:00"}
    (folder / "run.json").write_text(json.dumps(entry))
    assert read_run(folder).seconds == 0.0


def test_of_two_starts_from_one_checkpoint_the_later_one_counts_whatever_the_clock_says(tmp_path):
    folders = [
        start(tmp_path, 0, [0, 100, 200], day=5),
        start(tmp_path, 1, [110, 200, 250], day=9, at=100, of="u0"),
        start(tmp_path, 2, [120, 300], day=7, at=100, of="u0"),
    ]
    points, whole = joined_loss(folders)
    assert points == {0: 0, 100: 0, 120: 2, 300: 2}
    assert whole.id == "0+1+2"


def test_a_start_goes_on_from_the_record_that_wrote_its_checkpoint(tmp_path):
    """Start 2 went back to step 100 and was given up: start 3 goes on from what start 1 had saved."""
    folders = [
        start(tmp_path, 0, [0, 100, 200], day=1),
        start(tmp_path, 1, [200, 300, 400], day=2, at=200, of="u0"),
        start(tmp_path, 2, [150, 250], day=3, at=100, of="u0"),
        start(tmp_path, 3, [450, 500], day=4, at=400, of="u1"),
    ]
    points, _ = joined_loss(folders)
    assert points == {0: 0, 100: 0, 200: 1, 300: 1, 400: 1, 450: 3, 500: 3}


def test_old_records_and_new_ones_of_one_run(tmp_path):
    folders = [
        start(tmp_path, 0, [0, 100, 200], day=3),
        start(tmp_path, 1, [210, 300], day=4, at=200, told=False),
        start(tmp_path, 2, [310, 400], day=1, at=300),  # the checkpoint of a version that did not mark it
    ]
    points, _ = joined_loss(folders)
    assert points == {0: 0, 100: 0, 200: 0, 210: 1, 300: 1, 310: 2, 400: 2}


def test_a_damaged_record_costs_its_run_alone(tmp_path, capsys):
    run = [start(tmp_path / "a", k, steps, day=k + 1, at=at) for k, steps, at in ((0, [0, 100], None), (1, [110], 100))]
    others = [record(tmp_path / "b" / str(k), {"loss_td": ([0, 100], [k, k])}) for k in (1, 2)]
    text = (run[1] / "metrics.json").read_text()
    (run[1] / "metrics.json").write_text(text[: len(text) // 2])
    assert [one.folder for one in read_runs([*run, *others])] == others
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {run[1]} is not a recorded run")
    assert told.endswith("It is left out, and so are the other records of its run (0).\n")
    (others[0] / "config.json").write_text("[]")
    assert [one.folder for one in read_runs(others)] == others[1:]
    for alone in ([run[1]], [others[0]], run):
        with pytest.raises(UserError, match="is not a recorded run"):
            read_runs(alone)


@pytest.mark.parametrize("text", ['{"model_dir": "m", "resu', "", "[]", '{"model_dir": "m", "resumed": [100]}'])
def test_a_record_that_does_not_say_what_run_it_is_of_is_damaged(tmp_path, capsys, text):
    """Else the second record of a run would be a seed of its own, and the first one a short seed."""
    run = [start(tmp_path / "a", k, steps, day=k + 1, at=at) for k, steps, at in ((0, [0, 100], None), (1, [110], 100))]
    other = record(tmp_path / "b" / "1", {"loss_td": ([0, 100], [1, 1])})
    (run[1] / "info.json").write_text(text)
    (run[1] / "model_dir.txt").write_text("/elsewhere/models/m\n")
    assert [one.folder for one in read_runs([*run, other])] == [other]
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {run[1]} is not a recorded run")
    assert "info.json" in told
    assert told.endswith("It is left out, and so are the other records of its run (0).\n")


def test_what_is_no_number_leaves_a_gap(tmp_path):
    folder = record(tmp_path / "1", {"loss_td": ([0, 1, 2], [0.5, None, {"py/object": "torch.Tensor"}])})
    values = read_run(folder).metrics["loss_td"][1]
    assert np.isnan(values).tolist() == [False, True, True]


def test_an_evaluation_is_no_part_of_the_run_it_evaluates(tmp_path):
    trained = record(tmp_path / "1", {"test_return_mean": ([0, 100], [0, 1])}, model_dir="m")
    tested = record(tmp_path / "2", {"test_return_mean": ([100], [5])}, model_dir="m", evaluate=True)
    assert [run.id for run in read_runs([trained, tested])] == ["1", "2"]


@pytest.mark.parametrize(
    ("env_args", "task"),
    [
        ({"map_name": "3m"}, "3m"),
        ({"key": "lbf:Foraging-v3"}, "lbf:Foraging-v3"),
        ({"env_name": "pursuit"}, "pursuit"),
        ({}, "some_env"),
    ],
)
def test_the_task_of_a_run(env_args, task):
    assert RecordedRun(None, {"env": "some_env", "env_args": env_args}, {}).task == task
