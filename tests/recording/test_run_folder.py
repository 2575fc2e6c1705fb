import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from sacred import Experiment

from shoal.recording import run_folder as recording
from shoal.recording.run_folder import (
    bounded_output,
    file_observer,
    flush_record,
    git_commit,
    guard_output,
    plain,
)
from shoal.utils.errors import UserError

MOMENT = datetime(2024, 1, 2)
CAPTURED = {"--capture": "sys"}  # pytest leaves sacred's "fd" nothing to capture
START = {
    "ex_info": {"base_dir": ".", "sources": []},
    "command": "main",
    "host_info": {},
    "start_time": MOMENT,
    "config": {},
    "meta_info": {},
}


def experiment(main, *observers):
    ex = Experiment("test", save_git_info=False)
    ex.captured_out_filter = bounded_output
    ex.observers += observers
    ex.main(main)
    return ex


def measured(name="loss", values=(1.0,), steps=(1,)):
    return {name: {"name": name, "values": list(values), "steps": list(steps), "timestamps": [MOMENT] * len(steps)}}


def read(folder, name):
    return json.loads((Path(folder) / name).read_text())


class TestPlain:
    def test_scalars_and_arrays(self):
        result = plain(
            {
                "tensor": torch.tensor([[1.0, 2.0]], requires_grad=True),
                "scalar": np.float32(1.5),
                "flag": np.bool_(True),
                "steps": np.int64(3),
                "array": np.arange(2),
                "path": Path("a/b"),
                "tuple": (1, None),
                "set": {"b", "a"},
                3: MOMENT,
            }
        )
        assert result == {
            "tensor": [[1.0, 2.0]],
            "scalar": 1.5,
            "flag": True,
            "steps": 3,
            "array": [0, 1],
            "path": "a/b",
            "tuple": [1, None],
            "set": ["a", "b"],
            "3": "2024-01-02T00:00:00",
        }
        assert json.loads(json.dumps(result)) == result
        assert [type(result[key]) for key in ("scalar", "flag", "steps")] == [float, bool, int]

    def test_what_bson_has_no_room_for_becomes_text(self):
        assert plain([2**63 - 1, 2**63, -(2**63)]) == [2**63 - 1, "9223372036854775808", -(2**63)]
        assert plain(object)


class TestBoundedOutput:
    @pytest.mark.parametrize(
        ("printed", "shown"),
        [
            ("a\nb", "a\nb"),
            ("10%\r20%\r30%\ndone\n", "30%\ndone\n"),
            ("long line\rshort\n", "shortline\n"),
            ("abc\b\bX\n", "aXc\n"),
            ("\b\ba\n", "a\n"),
            ("windows\r\n", "windows\n"),
        ],
    )
    def test_lines_read_as_on_a_terminal(self, printed, shown):
        assert bounded_output(printed) == shown

    def test_a_line_may_arrive_in_pieces(self):
        text = "ab\rc\b\bdef\r\nxyz\r1"
        for cut in range(len(text)):
            assert bounded_output(bounded_output(text[:cut]) + text[cut:]) == bounded_output(text)

    def test_long_output_keeps_both_ends_and_counts_the_rest(self, monkeypatch):
        monkeypatch.setattr(recording, "_HEAD", 1000)
        monkeypatch.setattr(recording, "_TAIL", 1000)
        lines = [f"line {number}\n" for number in range(2000)]
        whole = "".join(lines)
        text = ""
        for start in range(0, 2000, 7):
            text = bounded_output(text + "".join(lines[start : start + 7]))
            assert len(text) < 2100
        assert text.startswith("line 0\n")
        assert text.endswith("line 1999\n")
        marks = [line for line in text.splitlines() if "left out here" in line]
        assert len(marks) == 1
        kept = len(text) - len(marks[0]) - 2
        assert int(marks[0].split()[1]) == len(whole) - kept
        assert bounded_output(text) == text

    def test_the_real_bound_fits_a_mongo_document(self):
        assert len(bounded_output("€" * 2**23).encode()) < 8 * 2**20


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


SCRIPT = """
import sys, time
from sacred import Experiment, SETTINGS
from shoal.recording.run_folder import bounded_output, file_observer, flush_record
SETTINGS.CAPTURE_MODE = sys.argv[3]
ex = Experiment("test", save_git_info=False)
ex.captured_out_filter = bounded_output
ex.observers.append(file_observer(sys.argv[1]))

@ex.main
def main(_run):
    _run.beat_interval = 0.1
    try:
        print("first line")
        _run.log_scalar("loss", 1.0, 1)
        {body}
    except BaseException:
        print("last line")
        _run.log_scalar("loss", 2.0, 2)
        flush_record(_run)
        raise

if __name__ == "__main__":
    if sys.argv[2] == "quick":
        SETTINGS.DEFAULT_BEAT_INTERVAL = 0.1
    ex.run()
"""


def launch(tmp_path, body, beat="slow", capture="sys"):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("{body}", body))
    environment = {**os.environ, "PYTHONPATH": str(Path(recording.__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "runs"), beat, capture],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        # Tests that a shell put into the background inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(ready, seconds=60):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class TestSubprocess:
    @pytest.mark.parametrize("capture", ["sys", "fd"])
    def test_a_failing_run_keeps_its_last_line_and_metric(self, tmp_path, capture):
        process = launch(tmp_path, "raise RuntimeError('boom')", capture=capture)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "boom" in output
        folder = tmp_path / "runs" / "1"
        assert read(folder, "run.json")["status"] == "FAILED"
        assert "first line\nlast line\n" in (folder / "cout.txt").read_text()
        assert read(folder, "metrics.json")["loss"]["values"] == [1.0, 2.0]

    def test_an_interrupted_run_too(self, tmp_path):
        process = launch(tmp_path, "print('ready', flush=True); time.sleep(60)")
        for line in process.stdout:
            if line == "ready\n":
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        folder = tmp_path / "runs" / "1"
        assert read(folder, "run.json")["status"] == "INTERRUPTED"
        assert "last line\n" in (folder / "cout.txt").read_text()
        assert read(folder, "metrics.json")["loss"]["steps"] == [1, 2]

    def test_kill_9_keeps_everything_up_to_the_last_heartbeat(self, tmp_path):
        body = "[(time.sleep(0.001), _run.log_scalar('q', 1.0, step)) for step in range(10**6)]"
        process = launch(tmp_path, body, beat="quick")
        metrics = tmp_path / "runs" / "1" / "metrics.json"
        try:
            wait_for(lambda: metrics.exists() and len(json.loads(metrics.read_text())["q"]["steps"]) > 300)
        finally:
            process.kill()
            process.communicate(timeout=60)
        series = json.loads(metrics.read_text())["q"]
        assert series["steps"] == list(range(len(series["steps"])))
        assert len(series["values"]) == len(series["timestamps"]) == len(series["steps"]) > 300
        assert "first line\n" in (metrics.parent / "cout.txt").read_text()


def test_flush_record_twice_records_what_came_between(tmp_path):
    def main(_run):
        flush_record(_run)
        print("after the first")
        flush_record(_run)
        return (Path(observer.dir) / "cout.txt").read_text()

    observer = file_observer(tmp_path)
    ex = experiment(main, observer)
    assert "after the first\n" in ex.run(options=CAPTURED).result


def test_flush_record_never_adds_an_error_to_the_one_at_hand():
    flush_record(object())


class SlowBuffer:
    """A run's output in which a heartbeat takes its time, after one of the two calls that reading consists of."""

    def __init__(self, buffer, slow):
        self._buffer, self._slow, self.reading = buffer, slow, threading.Event()

    def __getattr__(self, name):
        call = getattr(self._buffer, name)
        if name != self._slow or threading.current_thread() is threading.main_thread():
            return call

        def slowly(*args):
            result = call(*args)
            self.reading.set()
            time.sleep(0.2)
            return result

        return slowly


@pytest.mark.parametrize("slow", ["seek", "read"])
def test_output_printed_and_read_while_a_heartbeat_reads_is_recorded_in_its_place(tmp_path, slow):
    def main(_run):
        buffer = _run._output_file.buffer = SlowBuffer(_run._output_file.buffer, slow)
        guard_output(_run)
        print("first")
        heartbeat = threading.Thread(target=_run._get_captured_output)
        heartbeat.start()
        buffer.reading.wait()
        print("second")
        _run._get_captured_output()
        heartbeat.join()

    observer = file_observer(tmp_path)
    experiment(main, observer).run(options=CAPTURED)
    assert (Path(observer.dir) / "cout.txt").read_text() == "first\nsecond\n"


def test_what_is_printed_after_the_last_read_is_recorded(tmp_path):
    def main(_run):
        guard_output(_run)
        read = _run._get_captured_output

        def read_and_print():
            read()
            if not _run._output_file.closed:
                print("the last word")

        _run._get_captured_output = read_and_print

    observer = file_observer(tmp_path)
    experiment(main, observer).run(options=CAPTURED)
    assert (Path(observer.dir) / "cout.txt").read_text().count("the last word\n") == 1


class TestGit:
    @staticmethod
    def git(folder, *words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)

    def test_commit_and_dirt(self, tmp_path):
        self.git(tmp_path, "init")
        assert git_commit(tmp_path) is None
        (tmp_path / "file.py").write_text("a")
        self.git(tmp_path, "add", ".")
        self.git(tmp_path, "commit", "-m", "first")
        (tmp_path / "untracked").write_text("")
        found = git_commit(tmp_path / "file.py")
        assert len(found["commit"]) == 40
        assert found["dirty"] is False
        (tmp_path / "file.py").write_text("b")
        assert git_commit(tmp_path) == {"commit": found["commit"], "dirty": True}

    def test_no_repository_and_no_git(self, tmp_path, monkeypatch):
        assert git_commit(tmp_path / "nowhere") is None
        monkeypatch.setenv("PATH", str(tmp_path))
        assert git_commit(Path(__file__)) is None
