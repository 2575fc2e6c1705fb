"""sacred's record in files, when something around it breaks."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from shoal.recording.file_record import file_observer
from shoal.utils.errors import UserError
from support.sacred_run import CAPTURED, MOMENT, START, experiment, measured, read


class TestFiles:
    def test_runs_are_numbered_and_recorded_plainly(self, tmp_path):
        def main(_run):
            _run.log_scalar("tensor", torch.tensor(1.5), 1)
            _run.log_scalar("nan", float("nan"), 1)
            _run.info["array"] = np.arange(2)
            print("hello")
            return {"best": np.float32(2.5)}

        observer = file_observer(tmp_path / "made" / "here")
        for number in ("1", "2"):
            experiment(main, observer).run(options=CAPTURED)
            assert observer.dir == str(tmp_path / "made" / "here" / number)
        run = read(observer.dir, "run.json")
        assert (run["status"], run["result"]) == ("COMPLETED", {"best": 2.5})
        assert read(observer.dir, "info.json") == {"array": [0, 1]}
        metrics = read(observer.dir, "metrics.json")
        assert metrics["tensor"]["values"] == [1.5]
        assert metrics["tensor"]["steps"] == [1]
        assert np.isnan(metrics["nan"]["values"][0])
        assert "hello\n" in (Path(observer.dir) / "cout.txt").read_text()

    def test_an_unwritable_folder_is_said_at_once(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="choose a folder"):
            file_observer(tmp_path / "file" / "sacred")

    def test_an_id_whose_folder_exists_gets_a_free_one(self, tmp_path):
        observer = file_observer(tmp_path)
        (tmp_path / "7").mkdir()
        (tmp_path / "7-2").mkdir()
        assert observer.started_event(**START, _id=7) == 7
        assert observer.dir == str(tmp_path / "7-3")
        assert read(observer.dir, "run.json")["status"] == "RUNNING"
        assert file_observer(tmp_path).started_event(**START, _id=None) == "8"

    def test_metrics_are_replaced_never_half_written(self, tmp_path, monkeypatch):
        observer = file_observer(tmp_path)
        observer.started_event(**START, _id=None)
        observer.log_metrics(measured(steps=[1]), {})

        def killed(*args):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            patch.setattr(os, "fsync", killed)
            observer.log_metrics(measured(steps=[2]), {})
            assert read(observer.dir, "metrics.json")["loss"]["steps"] == [1]
        observer.log_metrics({}, {})  # what could not be saved is saved at the next heartbeat
        assert read(observer.dir, "metrics.json")["loss"]["steps"] == [1, 2]
        assert not list(Path(observer.dir).glob("*.tmp"))

    def test_output_changed_by_the_filter_is_recorded_as_changed(self, tmp_path):
        observer = file_observer(tmp_path)
        observer.started_event(**START, _id=None)
        for text in ("one\n10%", "one\n99%\ntwo\n", "one\n99%\ntwo\nthree\n"):
            observer.heartbeat_event({}, text, MOMENT, None)
            assert (Path(observer.dir) / "cout.txt").read_text() == text

    def test_an_artifact_that_is_not_there_does_not_end_the_record(self, tmp_path):
        def main(_run):
            _run.add_artifact(tmp_path / "missing.pt")
            _run.log_scalar("loss", 1.0, 1)

        observer = file_observer(tmp_path / "runs")
        experiment(main, observer).run()
        assert read(observer.dir, "metrics.json")["loss"]["values"] == [1.0]
