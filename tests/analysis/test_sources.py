"""Where runs are found: folders, folders of folders, MongoDB; and what is refused."""

from datetime import datetime, timedelta

import mongomock
import numpy as np
import pytest

from shoal.analysis.__main__ import main
from shoal.analysis.records import run_from
from shoal.analysis.sources import gather
from shoal.recording import mongo
from shoal.recording.reader import records_in
from shoal.utils.errors import UserError
from support.launch import in_process
from support.record import record

TESTS = {"test_return_mean": ([0, 10], [0.0, 1.0])}


@pytest.fixture
def results(tmp_path):
    for number, name in (("10", "qmix"), ("2", "s2q"), ("1", "qmix")):
        record(
            tmp_path / "results" / "sacred" / number, TESTS, name=name, seed=int(number), env_args={"map_name": "3m"}
        )
    (tmp_path / "results" / "sacred" / "_sources").mkdir()
    return tmp_path / "results"


def test_folders_of_runs_are_read_in_the_order_of_their_numbers(results):
    for source in (results, results / "sacred"):
        assert [run.id for run in gather([str(source)])] == ["1", "2", "10"]
    assert [run.id for run in gather([str(results / "sacred" / "10"), str(results / "sacred" / "2")])] == ["10", "2"]


def test_a_source_given_twice_counts_once(results):
    assert len(gather([str(results), str(results)])) == 3


def test_only_runs_with_a_setting(results):
    assert [run.id for run in gather([str(results)], ["name=qmix"])] == ["1", "10"]
    assert [run.id for run in gather([str(results)], ["seed=2,10", "env_args.map_name=3m"])] == ["2", "10"]


@pytest.mark.parametrize(
    ("where", "said"),
    [("name", "KEY=VALUE"), ("nmae=qmix", "no run has a setting nmae"), ("name=vdn", "No run has name=vdn")],
)
def test_a_condition_that_cannot_hold_is_refused(results, where, said):
    with pytest.raises(UserError, match=said):
        gather([str(results)], [where])


def test_no_runs_and_no_folder_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"No recorded run in .*: give a folder such as"):
        gather([str(tmp_path)])
    with pytest.raises(UserError, match="There is no folder nowhere"):
        gather(["nowhere"])
    monkeypatch.delenv("SHOAL_MONGO_URL", raising=False)
    with pytest.raises(UserError, match="SHOAL_MONGO_URL, which is not set"):
        gather(["mongo"])


def test_a_server_that_is_down_is_said_without_its_password(monkeypatch):
    connect = mongo.connect
    monkeypatch.setattr(mongo, "connect", lambda target: connect(target, timeout_s=0.2))
    monkeypatch.setenv("SHOAL_MONGO_URL", "mongodb://me:secret@127.0.0.1:9/db")
    with pytest.raises(UserError, match=r"MongoDB at mongodb://\*\*\*@127.0.0.1:9/db does not answer") as caught:
        gather(["mongo"])
    assert "secret" not in str(caught.value)


def test_runs_of_a_database_are_runs_like_others():
    database = mongomock.MongoClient().db
    start = datetime(2026, 1, 1)
    for _id, status, steps in ((4, "INTERRUPTED", [0, 10]), (12, "COMPLETED", [10, 20]), (13, "FAILED", [])):
        model_dir = "models/a" if steps else "models/b"
        entry = {"_id": _id, "config": {"name": "s2q", "env": "smax"}, "status": status, "start_time": start}
        entry |= {
            "info": {"model_dir": model_dir},
            "stop_time": start + timedelta(seconds=30),
            "host": {"hostname": "h"},
        }
        database.runs.insert_one(entry)
        if steps:
            stamps = [start + timedelta(seconds=step) for step in steps]
            values = [float(_id)] * len(steps)
            metric = {"run_id": _id, "name": "test_return_mean", "steps": steps, "values": values, "timestamps": stamps}
            database.metrics.insert_one(metric)
    runs = [run_from(record) for record in records_in(database.runs, database.metrics, "host:1:db")]
    assert [(run.id, run.status, run.host) for run in runs] == [
        ("4", "INTERRUPTED", "h"),
        ("12", "COMPLETED", "h"),
        ("13", "FAILED", "h"),
    ]
    assert runs[1].clock["test_return_mean"].tolist() == [10.0, 20.0]
    assert runs[2].metrics == {}
    assert str(runs[0].folder) == "host:1:db/4"


def test_runs_of_one_number_in_two_collections_have_their_own_metrics():
    database = mongomock.MongoClient().db
    for uid, collection in (("a", database.runs), ("b", database.others)):
        collection.insert_one({"_id": 1, "config": {}, "status": "COMPLETED", "meta": {"uid": uid}})
        points = {"steps": [0], "values": [float(ord(uid))], "timestamps": [datetime(2026, 1, 1)]}
        database.metrics.insert_one({"run_id": 1, "name": "m", "uid": uid, **points})
    (record_of_b,) = records_in(database.others, database.metrics, "host:1:db.others")
    assert record_of_b.series["m"]["values"] == [float(ord("b"))]


def test_a_run_in_files_and_in_a_database_is_one_run_and_the_same(shared_mongo, tmp_path):
    target = shared_mongo.target("analysis")
    settings = ["runner=episode", "t_max=40", "batch_size=4", "test_interval=20", "test_nepisode=2", "save_model=False"]
    command = ["--config=vdn", "--env-config=matrix_game", "with", *settings, "runner_log_interval=20", "seed=3"]
    assert in_process(tmp_path, "-m", target, *command) == 0
    (file,), (entry,) = gather([str(tmp_path / "results")]), gather([target])
    assert (entry.status, entry.commit, entry.label) == (file.status, file.commit, file.label)
    assert entry.metrics.keys() == file.metrics.keys()
    for name, (steps, values) in file.metrics.items():
        assert entry.metrics[name][0].tolist() == steps.tolist()
        np.testing.assert_array_equal(entry.metrics[name][1], values)
        np.testing.assert_allclose(entry.clock[name], file.clock[name], atol=0.01)  # BSON's dates have milliseconds
    assert [run.folder for run in gather([str(tmp_path / "results"), target])] == [file.folder]


def test_a_damaged_run_among_many_is_left_out_and_the_report_stands(results, tmp_path, capsys):
    (results / "sacred" / "2" / "metrics.json").write_text('{"test_return_mean": {"steps": [0, ')
    assert main(["report", str(results), "--out", str(tmp_path / "report.html")]) == 0
    assert (tmp_path / "report.html").is_file()
    told = capsys.readouterr().err
    assert f"warning: {results / 'sacred' / '2'} is not a recorded run" in told
    assert main(["report", str(results / "sacred" / "2"), "--out", str(tmp_path / "one.html")]) == 1
    assert "error: " in capsys.readouterr().err
