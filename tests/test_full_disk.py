"""A disk that is full before the end: the last checkpoint finds room, or the exit status and the last line say so."""

import os
import subprocess

import pytest

from shoal.experiment import Experiment
from shoal.recording.file_record import FileRecord
from shoal.utils import checkpoint as checkpoints
from support.launch import curves, in_process, read_json

ARGS = [
    "--config=vdn",
    "--env-config=matrix_game",
    "with",
    "runner=episode",
    "seed=1",
    "batch_size=4",
    "buffer_size=40",
]
TIMES = [
    "t_max=80",
    "save_model_interval=20",
    "test_interval=20",
    "test_nepisode=1",
    "save_buffer=True",
    "keep_buffers=0",
]


@pytest.fixture
def disk(tmp_path):
    """A file system of 40 MB and 200 files, to be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,nr_inodes=200", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount the small file system that this test fills")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk, what):
    try:
        for i in range(1000):
            with open(disk / f"filler{i}", "wb") as file:
                if what == "bytes":
                    os.posix_fallocate(file.fileno(), 0, 4096)
                    while True:
                        file.write(bytes(4096))
                        file.flush()
    except OSError:
        pass
    if what == "bytes":
        with pytest.raises(OSError, match="No space left"), open(disk / "one", "wb") as file:
            file.write(bytes(8192))
        (disk / "one").unlink(missing_ok=True)
    else:
        with pytest.raises(OSError, match="No space left"):
            (disk / "one").touch()


def full_from(monkeypatch, disk, step, what):
    save = Experiment.save

    def full(self, *args, **kwargs):
        if self.progress.t_env >= step:
            fill(disk, what)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Experiment, "save", full)


@pytest.mark.parametrize("what", ["bytes", "files"])
def test_older_checkpoints_make_room_for_the_last_one(disk, tmp_path, monkeypatch, capsys, what):
    full_from(monkeypatch, disk, 80, what)
    assert in_process(tmp_path, *ARGS, *TIMES, f"local_results_path={disk}") == 0
    (models,) = (disk / "models").iterdir()
    steps = checkpoints.steps_in(models)
    assert steps[-1] == 80
    assert 60 in steps  # the newest was never at risk
    assert 20 not in steps
    assert checkpoints.load(models / "80.pt")["buffer"]["episodes"] is not None
    assert "20.pt makes room for the last checkpoint" in " ".join(capsys.readouterr().out.split())
    record = disk / "sacred" / "1"
    assert read_json(record / "run.json")["status"] == "COMPLETED"
    assert curves(record)["test_return_mean"][-1][0] == 80


@pytest.mark.parametrize("what", ["bytes", "files"])
def test_a_run_without_room_for_its_last_checkpoint_says_so(disk, tmp_path, monkeypatch, capsys, what):
    full_from(monkeypatch, disk, 60, what)
    assert in_process(tmp_path, *ARGS, *TIMES, "keep_checkpoints=1", f"local_results_path={disk}") == 1
    (models,) = (disk / "models").iterdir()
    assert checkpoints.steps_in(models) == [40]
    assert checkpoints.load(models / "40.pt")["progress"]["t_env"] == 40
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: The run has come to its end at t_env 80, but its last checkpoint could not be written" in last
    assert "The newest checkpoint is of t_env 40" in last
    record = disk / "sacred" / "1"
    assert read_json(record / "run.json")["status"] == "FAILED"
    assert curves(record)["test_return_mean"][-1][0] == 80
    for filler in disk.glob("filler*"):
        filler.unlink()
    monkeypatch.undo()
    assert in_process(tmp_path, "with", f"resume={models}") == 0
    assert checkpoints.steps_in(models) == [80]


def test_a_record_that_cannot_be_finished_is_an_error(tmp_path, monkeypatch, capsys):
    """Not even the room that was kept helps."""

    def full(self, obj, filename):
        if obj.get("status") == "COMPLETED":
            raise OSError(28, "No space left on device")
        return save(self, obj, filename)

    save = FileRecord.save_json
    monkeypatch.setattr(FileRecord, "save_json", full)
    assert in_process(tmp_path, *ARGS, *TIMES) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: the record in" in last
    assert "lacks its end (COMPLETED; No space left on device)" in last
    assert read_json(tmp_path / "results" / "sacred" / "1" / "run.json")["status"] == "RUNNING"
    assert checkpoints.steps_in(next((tmp_path / "results" / "models").iterdir()))[-1] == 80
