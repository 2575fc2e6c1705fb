"""What a run that fails, is stopped or is killed has recorded."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import shoal.recording
from shoal.recording.file_record import file_observer
from shoal.recording.heartbeats import flush_record
from support.sacred_run import CAPTURED, experiment, read

SCRIPT = """
import sys, time
from sacred import Experiment, SETTINGS
from shoal.recording.captured_output import bounded_output
from shoal.recording.heartbeats import flush_record
from shoal.recording.file_record import file_observer
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
    environment = {**os.environ, "PYTHONPATH": str(Path(shoal.recording.__file__).parents[2])}
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
