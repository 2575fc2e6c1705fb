"""The observer for MongoDB: what sacred's own loses without a word, ours does not."""

import logging
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sacred import Experiment

from shoal.recording.captured_output import bounded_output, guard_output
from shoal.recording.file_record import file_observer
from shoal.recording.heartbeats import flush_record
from shoal.recording.mongo import connect
from shoal.recording.mongo_observer import MongoMirror, mongo_observer
from support.launch import read_json, wait_until
from support.mongo_server import points

PATIENCE = 120


class Said(list):
    """Collects warnings; `wait` returns when one holds the words."""

    def wait(self, words):
        wait_until(lambda: any(words in text for text in list(self)), PATIENCE, f"{words!r} to be said")


def mirror(server, name, said, timeout_s=1.0):
    return MongoMirror(connect(server.target(name), timeout_s), said.append, retry_s=0.1)


def experiment(main, *observers):
    ex = Experiment("test", save_git_info=False)
    ex.captured_out_filter = bounded_output
    ex.observers += observers

    @ex.main
    def run(_run):
        guard_output(_run)
        try:
            return main(_run)
        except BaseException:
            flush_record(_run)
            raise

    return ex


def carry_out(ex):
    """Runs with quick heartbeats, as pytest lets output be captured."""
    return ex.run(options={"--capture": "sys", "--beat-interval": "0.05"})


def in_file(folder):
    series = read_json(Path(folder) / "metrics.json")
    return {name: list(zip(one["steps"], one["values"], strict=True)) for name, one in series.items()}


def log(run, start, end):
    for step in range(start, end):
        run.log_scalar("loss", step / 2, step)


STEPS = {"loss": [(step, step / 2) for step in range(30)]}


@pytest.fixture
def name(request):
    return f"test_{abs(hash(request.node.nodeid))}"


# What sacred loses.


def test_loss_1_a_value_that_is_no_float_ends_no_record(shared_mongo, name, tmp_path):
    (tmp_path / "agent.pt").write_text("weights")

    def main(_run):
        _run.log_scalar("grad_norm", torch.tensor(1.5), 1)
        _run.log_scalar("array", np.array(2.5), 1)
        _run.log_scalar("path", Path("a/b"), 1)
        _run.log_scalar("set", {1}, 1)
        _run.log_scalar("huge", 2**70, 1)
        _run.log_scalar("nan", float("nan"), 1)
        _run.info["array"] = np.arange(2)
        _run.info["odd"] = object
        time.sleep(0.3)  # some heartbeats: sacred's observer is off after the first
        _run.log_scalar("loss", 1.0, 2)
        _run.add_artifact(tmp_path / "agent.pt")
        return np.float32(2.5)

    said = Said()
    observer = mirror(shared_mongo, name, said)
    carry_out(experiment(main, observer))
    database = shared_mongo.database(name)
    document = database.runs.find_one()
    stored = points(database, 1)
    assert (document["status"], document["result"]) == ("COMPLETED", 2.5)
    assert stored["grad_norm"] == [(1, 1.5)]
    assert stored["array"] == [(1, 2.5)]
    assert stored["path"] == [(1, "a/b")]
    assert stored["huge"] == [(1, str(2**70))]
    assert np.isnan(stored["nan"][0][1])
    assert stored["loss"] == [(2, 1.0)]
    assert document["info"]["array"] == [0, 1]
    assert [artifact["name"] for artifact in document["artifacts"]] == ["agent.pt"]
    assert observer.up_to_date
    assert said == []


@pytest.mark.parametrize("memory", [True, False])
def test_loss_2_a_server_that_is_killed_and_comes_back(own_mongo, name, tmp_path, memory):
    (tmp_path / "agent.pt").write_bytes(b"weights" * 100_000)
    said = Said()

    def main(_run):
        log(_run, 0, 10)
        wait_until(lambda: own_mongo.database(name).metrics.count_documents({}) == 1, PATIENCE, "the first points")
        own_mongo.kill()
        log(_run, 10, 20)
        _run.add_artifact(tmp_path / "agent.pt")
        print("said while it was away")
        said.wait("does not answer")
        if not memory:
            own_mongo.forget()
        own_mongo.start()
        said.wait("answers again")
        log(_run, 20, 30)

    files, observer = file_observer(tmp_path / "runs"), mirror(own_mongo, name, said)
    assert carry_out(experiment(main, files, observer)).status == "COMPLETED"
    database = own_mongo.database(name)
    document = database.runs.find_one()
    assert document["status"] == "COMPLETED"
    assert "said while it was away\n" in document["captured_out"]
    assert points(database, document["_id"]) == STEPS == in_file(files.dir)
    (artifact,) = document["artifacts"]
    assert connect(own_mongo.target(name)).files.get(artifact["file_id"]).read() == b"weights" * 100_000
    assert observer.up_to_date
    assert len(said) == 2, said


def test_loss_3_more_output_than_a_document_holds(shared_mongo, name):
    def main(_run):
        print("the beginning")
        for _ in range(20):
            print("x" * 2**20)
        print("the end")

    carry_out(experiment(main, mirror(shared_mongo, name, Said())))
    document = shared_mongo.database(name).runs.find_one()
    assert document["status"] == "COMPLETED"
    assert document["captured_out"].lstrip().startswith(("the beginning", "INFO"))
    assert "the end\n" in document["captured_out"]
    assert "characters of output left out here" in document["captured_out"]
    assert len(document["captured_out"]) < 4 * 2**20


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "INTERRUPTED")])
def test_loss_4_the_last_words_of_a_run_that_did_not_end_well(shared_mongo, name, tmp_path, error, status):
    def main(_run):
        _run.log_scalar("loss", 0.5, 1)
        print("last words")
        raise error("boom")

    files = file_observer(tmp_path)
    with pytest.raises(error):
        experiment(main, files, mirror(shared_mongo, name, Said())).run(options={"--capture": "sys"})
    document = shared_mongo.database(name).runs.find_one()
    assert document["status"] == status == read_json(Path(files.dir) / "run.json")["status"]
    assert "last words\n" in document["captured_out"]
    assert "last words\n" in (Path(files.dir) / "cout.txt").read_text()
    assert points(shared_mongo.database(name), 1) == {"loss": [(1, 0.5)]}
    assert ("boom" in "".join(document.get("fail_trace", []))) is (error is RuntimeError)


def test_loss_6_a_server_that_stays_away_holds_no_run_up(own_mongo, name, tmp_path):
    said = Said()

    def main(_run):
        log(_run, 0, 15)
        own_mongo.kill()
        log(_run, 15, 30)
        print("the end")

    files, observer = file_observer(tmp_path / "runs"), mirror(own_mongo, name, said)
    start = time.monotonic()
    assert carry_out(experiment(main, files, observer)).status == "COMPLETED"
    assert time.monotonic() - start < 60
    assert in_file(files.dir) == STEPS
    assert "the end\n" in (Path(files.dir) / "cout.txt").read_text()
    assert read_json(Path(files.dir) / "run.json")["status"] == "COMPLETED"
    assert not observer.up_to_date
    assert len(said) == 1
    assert "does not answer" in said[0]
    assert not [thread for thread in threading.enumerate() if thread.name == "mongo"]


def test_loss_6_a_value_that_cannot_be_encoded_holds_no_run_up(shared_mongo, name, tmp_path, monkeypatch):
    monkeypatch.setattr("shoal.recording.mongo_observer.plain", lambda value: value)
    said = Said()

    def main(_run):
        _run.log_scalar("bad", 2**70, 1)
        _run.log_scalar("good", 1.0, 1)

    observer = mirror(shared_mongo, name, said)
    assert carry_out(experiment(main, observer, file_observer(tmp_path))).status == "COMPLETED"
    assert points(shared_mongo.database(name), 1) == {"good": [(1, 1.0)]}
    assert not observer.up_to_date
    assert "does not take all of this run (OverflowError)" in said[0]


def test_loss_7_resources_and_sources_are_stored_and_sources_once(shared_mongo, name, tmp_path):
    (tmp_path / "table.csv").write_text("1,2")
    for _ in range(2):
        ex = experiment(lambda _run: _run.add_resource(tmp_path / "table.csv"), mirror(shared_mongo, name, Said()))
        ex.add_source_file(__file__)
        carry_out(ex)
    database, files = shared_mongo.database(name), connect(shared_mongo.target(name)).files
    assert files.find_one({"filename": str(tmp_path / "table.csv")}).read() == b"1,2"
    runs = list(database.runs.find())
    assert [[resource for resource, _ in run["resources"]] for run in runs] == [[str(tmp_path / "table.csv")]] * 2
    assert runs[0]["experiment"]["sources"] == runs[1]["experiment"]["sources"]
    stored = {Path(source).name: files.get(identity) for source, identity in runs[0]["experiment"]["sources"]}
    assert stored[Path(__file__).name].read() == Path(__file__).read_bytes()
    assert database["fs.files"].count_documents({}) == len(stored) + 1


def test_loss_7_a_number_whose_folder_exists(shared_mongo, name, tmp_path):
    (tmp_path / "1").mkdir()
    files = file_observer(tmp_path)
    assert carry_out(experiment(lambda _run: None, files, mirror(shared_mongo, name, Said()))).status == "COMPLETED"
    assert Path(files.dir).name == "1-2"
    document = shared_mongo.database(name).runs.find_one()
    assert document["status"] == "COMPLETED"
    assert document["meta"]["uid"] == read_json(Path(files.dir) / "run.json")["meta"]["uid"]


# What else happens.


def test_a_server_that_is_down_when_the_run_starts_gets_all_of_it_later(own_mongo, name, tmp_path):
    own_mongo.kill()
    said = Said()

    def main(_run):
        log(_run, 0, 15)
        own_mongo.start()
        said.wait("answers again")
        log(_run, 15, 30)

    files = file_observer(tmp_path / "runs")
    observer = mongo_observer(own_mongo.target(name), 0.5, warn=said.append)
    assert "does not answer within 0.5 s" in said[0]
    carry_out(experiment(main, observer, files))
    assert points(own_mongo.database(name), 1) == STEPS == in_file(files.dir)
    assert Path(files.dir).name == "1"
    assert observer.up_to_date
    assert len(said) == 2


def test_a_server_that_hangs_is_one_that_is_away(own_mongo, name, tmp_path):
    said = Said()

    def main(_run):
        log(_run, 0, 15)
        own_mongo.pause()
        log(_run, 15, 30)
        said.wait("does not answer")

    files, observer = file_observer(tmp_path / "runs"), mirror(own_mongo, name, said, timeout_s=0.5)
    try:
        start = time.monotonic()
        carry_out(experiment(main, files, observer))
        assert time.monotonic() - start < 90
        assert in_file(files.dir) == STEPS
        assert not observer.up_to_date
    finally:
        own_mongo.resume()


def test_the_heartbeat_goes_on_while_nothing_is_recorded(shared_mongo, name):
    database = shared_mongo.database(name)
    seen = set()

    def main(_run):
        def beats():
            document = database.runs.find_one()
            assert document["status"] == "RUNNING"
            seen.add(document["heartbeat"])
            return len(seen) > 3

        wait_until(beats, PATIENCE, "four heartbeats")

    carry_out(experiment(main, mirror(shared_mongo, name, Said())))


def test_a_queued_run_is_entered_and_not_started(shared_mongo, name, tmp_path):
    files = file_observer(tmp_path)
    ex = experiment(lambda _run: pytest.fail("started"), files, mirror(shared_mongo, name, Said()))
    ex.run(options={"--queue": True})
    document = shared_mongo.database(name).runs.find_one()
    assert document["status"] == "QUEUED" == read_json(Path(files.dir) / "run.json")["status"]
    assert "seed" in document["config"]


def test_an_artifact_that_is_not_there_does_not_end_the_record(shared_mongo, name, tmp_path):
    said = Said()

    def main(_run):
        _run.add_artifact(tmp_path / "missing.pt")
        _run.log_scalar("loss", 1.0, 1)

    observer = mirror(shared_mongo, name, said)
    carry_out(experiment(main, observer))
    assert points(shared_mongo.database(name), 1) == {"loss": [(1, 1.0)]}
    assert observer.up_to_date
    assert "missing.pt" in said[0]


def test_a_file_may_be_deleted_once_it_has_been_added(shared_mongo, name, tmp_path):
    def main(_run):
        (tmp_path / "brief.txt").write_text("brief")
        _run.add_artifact(tmp_path / "brief.txt")
        (tmp_path / "brief.txt").unlink()

    observer = mirror(shared_mongo, name, Said())
    carry_out(experiment(main, observer))
    (artifact,) = shared_mongo.database(name).runs.find_one()["artifacts"]
    assert connect(shared_mongo.target(name)).files.get(artifact["file_id"]).read() == b"brief"
    assert observer.up_to_date


def test_without_a_server_the_observer_says_so_and_costs_seconds(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        target = f"mongodb://me:s3cret@127.0.0.1:{unused.getsockname()[1]}/shoal"
        said, files, start = Said(), file_observer(tmp_path), time.monotonic()
        observer = mongo_observer(target, 0.2, warn=said.append)
        carry_out(experiment(lambda _run: log(_run, 0, 30), observer, files))
    assert time.monotonic() - start < 60
    assert in_file(files.dir) == STEPS
    assert Path(files.dir).name == "1"
    assert len(said) == 1
    assert "s3cret" not in said[0]
    assert not observer.up_to_date


def test_it_warns_through_the_log_unless_told_otherwise(caplog):
    with caplog.at_level(logging.WARNING):
        mongo_observer("127.0.0.1:9:shoal", 0.1)
    assert "does not answer" in caplog.text
