"""What a sweep reads from the folders of its runs."""

import json

import pytest
import yaml

from shoal.config import files
from shoal.sweeps.folder import RunFolder, SweepFolder, held
from shoal.sweeps.plan import Cell, planned
from shoal.utils.errors import UserError

SIZES = {"batch_size": 4, "buffer_size": 40}


def run_of(tmp_path, **settings):
    given = [files.Layer("command line", SIZES | settings)]
    return planned(Cell("qmix", "matrix_game", 3), given, tmp_path / "runs")


def record(folder, number, run, status="COMPLETED", model_dir="m", metrics=None, hour=None):
    """A record as sacred leaves it; the hour of its start is its number unless it is given."""
    path = folder.path / "sacred" / str(number)
    path.mkdir(parents=True)
    start = f"2026-01-01T{number if hour is None else hour:02}:00:00"
    (path / "run.json").write_text(json.dumps({"status": status, "start_time": start}))
    (path / "config.json").write_text(json.dumps(run.values))
    (path / "info.json").write_text(json.dumps({"model_dir": model_dir}))
    series = {
        name: {
            "steps": [step for step, _ in points],
            "values": [value for _, value in points],
            "timestamps": [start for _ in points],
        }
        for name, points in (metrics or {}).items()
    }
    (path / "metrics.json").write_text(json.dumps(series))
    return path


def checkpoint(folder, models, *steps):
    path = folder.path / "models" / models
    path.mkdir(parents=True)
    for step in steps:
        (path / f"{step}.pt").touch()
    return path


@pytest.fixture
def sweep(tmp_path):
    return SweepFolder(tmp_path)


def test_a_run_keeps_its_folder_and_another_run_of_its_name_gets_one_of_its_own(sweep, tmp_path):
    first = sweep.of(run_of(tmp_path))
    assert first.path.name == "qmix_matrix_game_seed3"
    assert yaml.safe_load(first.settings_file.read_text())["local_results_path"] == str(first.path)
    other = sweep.of(run_of(tmp_path, t_max=99))
    assert other.path.name == "qmix_matrix_game_seed3-2"
    assert yaml.safe_load(other.settings_file.read_text())["local_results_path"] == str(other.path)
    assert sweep.of(run_of(tmp_path)).path == first.path
    assert sweep.of(run_of(tmp_path, t_max=99)).path == other.path
    assert sweep.of(run_of(tmp_path, save_model_interval=9)).path == first.path


def test_a_run_is_finished_when_a_record_of_these_settings_says_so(sweep, tmp_path):
    run = run_of(tmp_path)
    folder = sweep.of(run)
    assert folder.finished(run) is None
    record(folder, 1, run, "RUNNING")
    record(folder, 2, run, "FAILED")
    record(folder, 3, run, "INTERRUPTED")
    record(folder, 4, run_of(tmp_path, t_max=99))
    assert folder.finished(run) is None
    done = record(folder, 10, run)
    record(folder, 11, run, "RUNNING")
    assert folder.finished(run) == done
    (done / "run.json").write_text('{"status": "COMP')
    assert folder.finished(run) is None


def test_it_goes_on_from_the_checkpoint_that_is_furthest(sweep, tmp_path):
    folder = sweep.of(run_of(tmp_path))
    assert (folder.to_go_on_with(), folder.last_step()) == (None, -1)
    checkpoint(folder, "empty")
    assert (folder.to_go_on_with(), folder.last_step()) == (None, -1)
    checkpoint(folder, "b", 9, 90)
    furthest = checkpoint(folder, "a", 100)
    assert (folder.to_go_on_with(), folder.last_step()) == (furthest, 100)


def test_records_of_starts_that_a_run_goes_on_from_belong_to_it_and_others_do_not(sweep, tmp_path):
    run = run_of(tmp_path)
    folder = sweep.of(run)
    record(folder, 1, run, "FAILED", "lost", {"test_return_mean": [(0, 9.0), (50, 9.0)]})
    first = record(folder, 2, run, "RUNNING", "kept", {"test_return_mean": [(0, 1.0), (10, 2.0), (20, 3.0)]})
    last = record(folder, 3, run, "COMPLETED", "kept", {"test_return_mean": [(20, 4.0), (30, None)]})
    assert folder.chain(last) == [first, last]
    values = folder.series(last, "test_return_mean")
    assert values[:3] == [1.0, 2.0, 4.0]
    assert values[3] != values[3]
    assert folder.series(last, "test_battle_won_mean") == []


def test_how_far_it_is_stands_in_the_newest_record(sweep, tmp_path):
    run = run_of(tmp_path)
    folder = sweep.of(run)
    assert folder.seen().t_env == 0
    record(folder, 9, run, "RUNNING", "m", {"episode": [(5, 1.0)]})
    record(folder, 10, run, "RUNNING", "m", {"episode": [(30, 2.0)], "test_return_mean": [(0, 1.0), (20, 2.5)]})
    seen = folder.seen()
    assert (seen.t_env, seen.metrics["test_return_mean"]) == (30, (20, 2.5))
    checkpoint(folder, "m", 40)
    assert folder.seen().t_env == 40


@pytest.mark.parametrize(
    ("printed", "last"),
    [
        ("a\nerror: No room.\nfinished at 3\n", "error: No room."),
        ("Traceback (most recent call last):\n  x\nValueError: bad\n", "ValueError: bad"),
        ("Traceback\ntorch.cuda.OutOfMemoryError: full\n\n", "torch.cuda.OutOfMemoryError: full"),
        ("t_env 3\nt_env 4\n\n", "t_env 4"),
    ],
)
def test_the_last_words_say_what_was_wrong(tmp_path, printed, last):
    (tmp_path / "out.txt").write_text(printed)
    assert RunFolder(tmp_path).last_words() == last


def test_a_second_sweep_is_kept_out(sweep):
    with sweep.locked(), pytest.raises(UserError, match="Another sweep"), sweep.locked():
        pass
    with sweep.locked():
        pass


def test_a_lock_is_free_when_its_holder_has_ended(tmp_path):
    with held(tmp_path / "lock", wait=False) as ours:
        assert ours
        with held(tmp_path / "lock", wait=False) as theirs:
            assert not theirs
    with held(tmp_path / "lock", wait=True) as ours:
        assert ours


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        SweepFolder(tmp_path / "file" / "x")


def test_records_whose_numbers_come_from_a_mongodb_are_read_in_the_order_of_time(sweep, tmp_path):
    run = run_of(tmp_path)
    folder = sweep.of(run)
    first = record(folder, 137, run, "RUNNING", metrics={"test_return_mean": [(0, 1.0)]}, hour=1)
    second = record(folder, 1, run, "FAILED", metrics={"test_return_mean": [(10, 2.0)]}, hour=2)
    last = record(folder, "1-2", run, metrics={"test_return_mean": [(20, 3.0)]}, hour=3)
    assert [one.folder for one in folder.records()] == [first, second, last]
    assert folder.finished(run) == last
    assert folder.series(last, "test_return_mean") == [1.0, 2.0, 3.0]


def test_a_repeated_sweep_may_store_its_runs_otherwise(sweep, tmp_path):
    folder = sweep.of(run_of(tmp_path))
    assert sweep.of(run_of(tmp_path, save_model_interval=9, save_buffer=True)).path == folder.path
    settings = folder.settings()
    assert (settings["save_model_interval"], settings["save_buffer"]) == (9, True)
    assert settings["local_results_path"] == str(folder.path)
