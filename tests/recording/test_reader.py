"""What a record says of one start of a run, and what it says where it is damaged."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shoal.recording.reader import SILENCE, checkpoints_of, read_record
from shoal.utils.errors import UserError
from support.record import record


def written(path, **files):
    path.mkdir()
    for name, content in files.items():
        (path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_a_record_says(tmp_path):
    entry = {
        "status": "FAILED",
        "start_time": "2026-01-01T12:00:00",
        "heartbeat": "2026-01-01T12:00:50",
        "stop_time": "2026-01-01T12:01:00",
        "fail_trace": ["Traceback\n", "ValueError: too bad\n", "\n"],
        "host": {"hostname": "node7"},
        "meta": {"uid": "abc"},
    }
    info = {
        "model_dir": "results/models/m",
        "git": {"commit": "0123456789", "dirty": False},
        "resumed": {"t_env": 50, "record": "def", "start": 2},
    }
    read = read_record(written(tmp_path / "7", run=entry, config={"name": "vdn"}, info=info))
    assert (read.id, read.uid, read.status, read.seconds) == ("7", "abc", "FAILED", 60.0)
    assert (read.failure, read.host, read.commit) == ("ValueError: too bad", "node7", "0123456")
    assert (read.resumed_at, read.resumed_from, read.start) == (50, "def", 2)
    assert read.run == (tmp_path, "m")
    assert read.series == {}


def test_a_record_of_its_first_seconds_says_little(tmp_path):
    read = read_record(written(tmp_path / "1", run={"status": "QUEUED"}, config={}))
    assert (read.status, read.uid, read.failure, read.host, read.commit, read.model_dir) == (
        "QUEUED",
        "",
        "",
        "",
        "",
        "",
    )
    assert (read.resumed_at, read.resumed_from, read.start) == (None, "", None)
    assert read.seconds != read.seconds
    assert read.run == (tmp_path / "1", "")


@pytest.mark.parametrize(
    ("started", "heartbeat", "status"),
    [
        (timedelta(hours=1), timedelta(seconds=5), "RUNNING"),
        (timedelta(hours=1), SILENCE, "DIED"),
        (timedelta(seconds=5), None, "RUNNING"),
        (timedelta(hours=1), None, "DIED"),  # killed before its first heartbeat
    ],
)
def test_a_run_lives_as_long_as_it_says_so(tmp_path, started, heartbeat, status):
    now = datetime.now(UTC).replace(tzinfo=None)
    entry = {"status": "RUNNING", "start_time": (now - started).isoformat()}
    entry["heartbeat"] = None if heartbeat is None else (now - heartbeat).isoformat()
    assert read_record(written(tmp_path / "1", run=entry, config={})).status == status


def test_an_evaluation_is_a_run_of_its_own(tmp_path):
    trained = read_record(record(tmp_path / "1", {}, model_dir="a/m"))
    resumed = read_record(record(tmp_path / "2", {}, model_dir="/home/me/a/m"))
    tested = read_record(record(tmp_path / "3", {}, model_dir="a/m", evaluate=True))
    assert trained.run == resumed.run != tested.run


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"run": {}}, "it has no config.json"),
        ({"run": "{ half", "config": {}}, "it has no metrics.json"),
        ({"run": {"status": "RUNNING"}, "config": "{ half"}, r"config.json cannot be read \("),
        ({"run": {"status": "RUNNING"}, "config": []}, "config.json does not hold values by name"),
        ({"run": {"status": "RUNNING"}, "config": {}, "metrics": "{"}, r"its metrics cannot be read \("),
        ({"config": {}, "metrics": {}, "info": {"resumed": [3]}}, "info.json does not say what run this is"),
    ],
)
def test_a_damaged_record_is_refused_with_what_is_wrong(tmp_path, files, said):
    with pytest.raises(UserError, match=f"1 is not a recorded run: {said}"):
        read_record(written(tmp_path / "1", **files))


def test_how_a_run_went_may_be_missing_unless_it_is_asked_for(tmp_path):
    folder = written(tmp_path / "1", run="{ half", config={}, metrics={})
    assert read_record(folder).status == "?"
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        read_record(folder, strict=True)


def test_metrics_can_be_left_unread(tmp_path):
    folder = written(tmp_path / "1", run={"status": "FAILED"}, config={}, metrics="{ half")
    assert read_record(folder, with_series=False).status == "FAILED"


def test_where_the_checkpoints_of_a_run_are(tmp_path):
    assert checkpoints_of(tmp_path) == tmp_path
    (tmp_path / "model_dir.txt").write_text("/elsewhere/models/m\n")
    assert checkpoints_of(tmp_path) == Path("/elsewhere/models/m")
