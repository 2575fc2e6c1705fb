"""A run's record in MongoDB, from the command line: servers that die, runs that die, and `sync` afterwards."""

import json
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from shoal.command_line.main import main
from shoal.recording import reader
from shoal.recording.mongo import connect
from shoal.recording.mongo_address import MONGO_VARIABLE
from support.launch import curves, in_process, read_json, start, wait_until
from support.mongo_server import MongoServer, contents, points

PATIENCE = 240
GAME = ["--config=vdn", "--env-config=matrix_game", "with", "runner=episode", "seed=3", "t_max=40", "batch_size=4"]
QUICK = [*GAME, "buffer_size=40", "test_nepisode=2", "test_interval=10", "runner_log_interval=5"]
SAVE = ["learner_log_interval=5", "save_model_interval=10"]
HELD = [*QUICK, *SAVE, "env=support.held_game:HeldGame"]
RUN = Path("results") / "sacred" / "1"


@pytest.fixture
def held(tmp_path):
    """Starts the command line on a game that waits half way; ends it whatever happens."""
    processes = []

    def launch(*options):
        process = start(tmp_path, "--beat-interval=0.2", *options, *HELD)
        processes.append(process)
        wait_until(lambda: (tmp_path / "half").exists() or process.poll() is not None, PATIENCE, "half of the run")
        assert process.poll() is None, (tmp_path / "err.txt").read_text()
        return process

    yield launch
    for process in processes:
        process.kill()
        process.wait()


def go_on(tmp_path, process):
    (tmp_path / "go").touch()
    assert process.wait(PATIENCE) == 0, (tmp_path / "err.txt").read_text()


def assert_whole(folder, database):
    """MongoDB says what the files say."""
    record = read_json(folder / "run.json")
    document = database.runs.find_one({"meta.uid": record["meta"]["uid"]})
    assert document["status"] == record["status"]
    assert document["result"] == record["result"]
    assert document["config"] == read_json(folder / "config.json")
    assert document["captured_out"] == (folder / "cout.txt").read_text()
    assert document["experiment"]["name"] == document["config"]["name"] == record["experiment"]["name"]
    assert points(database, document["_id"]) == (curves(folder) if (folder / "metrics.json").exists() else {})
    files = connect(f"127.0.0.1:{database.client.address[1]}:{database.name}").files
    stored = {artifact["name"]: files.get(artifact["file_id"]).read() for artifact in document["artifacts"]}
    assert set(record["artifacts"]) <= set(stored)
    for name in record["artifacts"]:
        assert stored[name] == (folder / name).read_bytes()
    sources = {name: files.get(identity).read() for name, identity in document["experiment"]["sources"]}
    assert b"class QLearner" in sources["learners/q_learner.py"]
    assert len(sources) == len(record["experiment"]["sources"])
    return document, stored


def test_a_run_is_in_mongodb_with_its_settings_model_and_figure(shared_mongo, tmp_path):
    assert in_process(tmp_path, "-m", shared_mongo.target("whole"), *QUICK, *SAVE) == 0
    document, stored = assert_whole(tmp_path / RUN, shared_mongo.database("whole"))
    assert document["status"] == "COMPLETED"
    assert set(stored) == {"settings.yaml", "best.pt", "learning_curve.png"}
    assert stored["learning_curve.png"].startswith(b"\x89PNG")
    # The settings run the same run again, and the model plays.
    (tmp_path / "mine.yaml").write_bytes(stored["settings.yaml"])
    (tmp_path / "model.pt").write_bytes(stored["best.pt"])
    assert yaml.safe_load(stored["settings.yaml"])["seed"] == 3
    again = ["--config=qmix", "--env-config=matrix_game", "with", "mine.yaml"]
    assert in_process(tmp_path, *again) == 0
    second = tmp_path / "results" / "sacred" / "2"
    assert read_json(second / "config.json") == read_json(tmp_path / RUN / "config.json")
    assert curves(second) == curves(tmp_path / RUN)
    evaluate = ["save_model=False", "checkpoint_path=model.pt", "evaluate=True"]
    assert in_process(tmp_path, *again, *evaluate) == 0


def test_a_server_that_dies_in_mid_run_and_stays_away(own_mongo, tmp_path, held, capsys):
    process = held("-m", own_mongo.target("shoal"))
    wait_until(lambda: own_mongo.database("shoal").metrics.count_documents({}) > 3, PATIENCE, "metrics in MongoDB")
    own_mongo.kill()
    go_on(tmp_path, process)
    said = (tmp_path / "err.txt").read_text()
    assert f"python src/main.py sync {tmp_path / RUN}" in said
    assert "Traceback" not in said
    assert read_json(tmp_path / RUN / "run.json")["status"] == "COMPLETED"
    assert curves(tmp_path / RUN)["test_return_mean"][-1][0] == 40
    assert "does not answer" in (tmp_path / RUN / "cout.txt").read_text()

    own_mongo.start()
    database = own_mongo.database("shoal")
    assert database.runs.find_one()["status"] == "RUNNING"
    for _ in range(2):
        assert main(["src/main.py", "sync", str(tmp_path / RUN), "-m", own_mongo.target("shoal")]) == 0
        assert_whole(tmp_path / RUN, database)
        assert database.runs.count_documents({}) == 1
    before = contents(database)
    assert main(["src/main.py", "sync", str(tmp_path / RUN), "-m", own_mongo.target("shoal")]) == 0
    assert contents(database) == before
    assert "run 1 in MongoDB" in capsys.readouterr().out


def test_a_server_that_dies_in_mid_run_and_comes_back(own_mongo, tmp_path, held):
    process = held("-m", own_mongo.target("shoal"))
    wait_until(lambda: own_mongo.database("shoal").metrics.count_documents({}) > 3, PATIENCE, "metrics in MongoDB")
    own_mongo.kill()
    own_mongo.start()
    go_on(tmp_path, process)
    assert "sync" not in (tmp_path / "err.txt").read_text()
    document, _ = assert_whole(tmp_path / RUN, own_mongo.database("shoal"))
    assert document["status"] == "COMPLETED"


def test_a_run_that_was_killed(own_mongo, tmp_path, held, monkeypatch, capsys):
    process = held("-m", own_mongo.target("shoal"))
    folder, models = tmp_path / RUN, tmp_path / "results" / "models"
    wait_until(lambda: (folder / "metrics.json").exists() and list(models.glob("*/best.pt")), PATIENCE, "a record")
    process.send_signal(signal.SIGKILL)
    process.wait()
    target = ["-m", own_mongo.target("shoal")]
    assert main(["src/main.py", "sync", str(folder), *target]) == 1
    assert "still running" in capsys.readouterr().err
    monkeypatch.setattr(reader, "SILENCE", timedelta(0))
    assert main(["src/main.py", "sync", str(folder), *target]) == 0
    document, stored = assert_whole(folder, own_mongo.database("shoal"))
    assert document["status"] == "RUNNING"
    (best,) = models.glob("*/best.pt")
    assert stored["best.pt"] == best.read_bytes()


def test_a_file_record_that_was_cut_short_takes_nothing_from_mongodb(shared_mongo, tmp_path, monkeypatch):
    target = shared_mongo.target("cut_short")
    assert in_process(tmp_path, "-m", target, *QUICK, *SAVE) == 0
    whole = contents(shared_mongo.database("cut_short"))
    record = read_json(tmp_path / RUN / "run.json")  # a disk that was full from early on
    earlier = {"status": "RUNNING", "heartbeat": record["start_time"], "stop_time": None, "result": None}
    (tmp_path / RUN / "run.json").write_text(json.dumps(record | earlier))
    (tmp_path / RUN / "cout.txt").write_text("cut")
    series = read_json(tmp_path / RUN / "metrics.json")
    short = {name: {key: values[:1] for key, values in one.items()} for name, one in series.items()}
    (tmp_path / RUN / "metrics.json").write_text(json.dumps(short))
    monkeypatch.setattr(reader, "SILENCE", timedelta(0))
    assert main(["src/main.py", "sync", str(tmp_path / RUN), "-m", target]) == 0
    assert contents(shared_mongo.database("cut_short")) == whole


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_is_recorded_so_everywhere(shared_mongo, tmp_path, held, signum):
    process = held("-m", shared_mongo.target(f"stopped_{int(signum)}"))
    process.send_signal(signum)
    (tmp_path / "go").touch()
    assert process.wait(PATIENCE) == 128 + signum
    document, _ = assert_whole(tmp_path / RUN, shared_mongo.database(f"stopped_{int(signum)}"))
    assert document["status"] == "INTERRUPTED"


def test_a_run_that_fails_is_recorded_so_everywhere(shared_mongo, tmp_path):
    args = ["-m", shared_mongo.target("failed"), *GAME, "buffer_size=1000000000000"]
    assert in_process(tmp_path, *args) == 1
    document, _ = assert_whole(tmp_path / RUN, shared_mongo.database("failed"))
    assert document["status"] == "FAILED"
    assert "replay buffer" in "".join(document["fail_trace"])


def test_many_runs_those_that_cannot_be_read_named(shared_mongo, tmp_path, capsys):
    assert in_process(tmp_path, *QUICK) == 0
    assert in_process(tmp_path, *QUICK, "seed=4") == 0
    sacred = tmp_path / "results" / "sacred"
    (sacred / "3").mkdir()
    (sacred / "3" / "run.json").write_text("{ half")
    (sacred / "4").mkdir()
    (sacred / "4" / "run.json").write_text('{"status": "COMPLETED"}')
    (sacred / "4" / "config.json").write_text("{}")
    capsys.readouterr()
    target = ["-m", shared_mongo.target("many")]
    assert main(["src/main.py", "sync", str(sacred), *target]) == 1
    told = capsys.readouterr()
    assert "2 of 4 runs are in MongoDB" in told.out
    assert [line.startswith("error: ") for line in told.err.splitlines()] == [True, True]
    assert "3 is not a recorded run: run.json cannot be read" in told.err
    assert "4 is not a run that sacred has recorded" in told.err
    database = shared_mongo.database("many")
    assert database.runs.count_documents({}) == 2
    assert_whole(sacred / "1", database)
    assert_whole(sacred / "2", database)


def test_a_record_of_before_gets_a_mark_that_stays(shared_mongo, tmp_path):
    assert in_process(tmp_path, *QUICK) == 0
    record = read_json(tmp_path / RUN / "run.json")
    del record["meta"]["uid"]
    (tmp_path / RUN / "run.json").write_text(json.dumps(record))
    for _ in range(2):
        assert main(["src/main.py", "sync", str(tmp_path / RUN), "-m", shared_mongo.target("before")]) == 0
    assert shared_mongo.database("before").runs.count_documents({}) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "sync needs recorded runs"),
        (["nowhere", "-m", "127.0.0.1:9:x"], "nowhere is not a recorded run"),
        ([str(RUN)], "to which MongoDB?"),
        ([str(RUN), "-m"], "-m needs an address"),
        ([str(RUN), "--fast"], "no option --fast"),
        ([str(RUN), "-m", "a:b:c:d"], "cannot understand the MongoDB address"),
        ([str(RUN), "-m", "127.0.0.1:9:x"], "127.0.0.1:9:x does not answer"),
        ([str(RUN), "-m", "127.0.0.1:9:x.runs:3"], "never overwrites runs"),
    ],
)
def test_what_sync_cannot_do_is_said_in_a_sentence(tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(MONGO_VARIABLE, raising=False)
    RUN.mkdir(parents=True)
    record = {"status": "COMPLETED", "meta": {}, "host": {}, "command": "train", "experiment": {"base_dir": "."}}
    (RUN / "run.json").write_text(json.dumps(record))
    (RUN / "config.json").write_text("{}")
    assert main(["src/main.py", "sync", *args]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_the_password_is_neither_shown_nor_recorded(tmp_path, monkeypatch, capsys):
    server = MongoServer(tmp_path / "mongo")
    try:
        server.start().database("admin").command("createUser", "me", pwd="s3cret", roles=["root"])
        server.stop()
        server.auth = True
        server.start()
        url = "mongodb://me:{}@127.0.0.1:" + f"{server.port}/shoal?authSource=admin"
        monkeypatch.setenv(MONGO_VARIABLE, url.format("wr0ng"))
        assert in_process(tmp_path, *QUICK) == 1
        assert not (tmp_path / RUN).exists()
        monkeypatch.setenv(MONGO_VARIABLE, url.format("s3cret"))
        assert in_process(tmp_path, *QUICK) == 0
        assert main(["src/main.py", "sync", str(tmp_path / RUN)]) == 0
        database = connect(url.format("s3cret"))
        assert database.runs.find_one()["status"] == "COMPLETED"
        told = "".join(capsys.readouterr())
        for secret in ("s3cret", "wr0ng"):
            assert secret not in told
            assert secret not in repr(list(database.runs.find()))
            for path in (tmp_path / "results").rglob("*"):
                assert path.is_dir() or secret.encode() not in path.read_bytes()
    finally:
        server.close()


def test_a_queued_run_is_complete_and_can_be_run_from_its_record(shared_mongo, tmp_path):
    assert in_process(tmp_path, "--queue", "-m", shared_mongo.target("queued"), *QUICK) == 0
    document = shared_mongo.database("queued").runs.find_one()
    assert (document["status"], document["experiment"]["name"]) == ("QUEUED", "vdn")
    assert read_json(tmp_path / RUN / "run.json")["status"] == "QUEUED"
    again = ["--config=vdn", "--env-config=matrix_game", "with", str(tmp_path / RUN / "config.json")]
    assert in_process(tmp_path, *again) == 0
    assert read_json(tmp_path / "results" / "sacred" / "2" / "config.json") == document["config"]
