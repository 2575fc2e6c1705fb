"""A database in sacred's layout: addresses, and an entry that may be written again and again."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import pymongo
import pytest
from bson.errors import BSONError
from pymongo.errors import OperationFailure

from shoal.recording.mongo import check, connect
from shoal.recording.mongo_address import redact
from shoal.recording.mongo_run import Entry, MongoRun
from shoal.utils.errors import UserError
from support.mongo_server import MongoServer, contents, points

MOMENT = datetime(2024, 1, 2)


def series(*steps):
    return {"steps": list(steps), "values": [step / 2 for step in steps], "timestamps": [MOMENT] * len(steps)}


def entry(uid="a", status="RUNNING", metrics=None, artifacts=None, sources=(), resources=()):
    document = {
        "experiment": {"name": "test", "base_dir": "/code", "sources": []},
        "meta": {"uid": uid},
        "status": status,
        "info": {"note": 1},
    }
    return Entry(document, metrics or {}, artifacts or {}, sources, resources)


class TestAddress:
    @pytest.mark.parametrize(
        "target",
        [
            "",
            "me:s3cret@localhost:27017:shoal",
            "localhost:notaport:shoal",
            "mongodb://",
            "mongodb://me:s3c@ret@localhost/shoal",
            "mongodb://me:s3cret/x@localhost:1/shoal",
            "mongodb://localhost:notaport/shoal",
        ],
    )
    def test_what_cannot_be_understood_is_refused_without_the_password(self, target):
        with pytest.raises(UserError, match="cannot understand the MongoDB address") as caught:
            connect(target)
        assert "s3c" not in str(caught.value)
        assert "ret" not in str(caught.value)
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize(
        ("target", "runs"),
        [
            ("db.example:1:shoal", "shoal.runs"),
            ("db.example:1", "sacred.runs"),
            ("shoal", "shoal.runs"),
            ("db.example:1:shoal.mine", "shoal.mine"),
            ("mongodb://me:s3cret@db.example:1/shoal?authSource=admin", "shoal.runs"),
            ("mongodb://db.example:1", "sacred.runs"),
        ],
    )
    def test_which_collection_it_names(self, target, runs):
        database = connect(target)
        assert database.runs.full_name == runs
        assert "s3cret" not in database.shown
        assert database.overwrite is None

    def test_a_run_to_overwrite(self):
        assert connect("db.example:1:shoal.runs:7").overwrite == 7

    @pytest.mark.parametrize("collection", ["metrics", "fs.files"])
    def test_a_collection_of_something_else_is_refused(self, collection):
        with pytest.raises(UserError, match=r"fs\.files|metrics|understand"):
            connect(f"db.example:1:shoal.{collection}")

    def test_refused_rights_are_the_users_to_mend(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise OperationFailure("no", 18, {"codeName": "AuthenticationFailed"})

        monkeypatch.setattr(pymongo.collection.Collection, "find_one", refuse)
        with pytest.raises(UserError, match=r"refuses us \(AuthenticationFailed\)") as caught:
            check(connect("mongodb://me:s3cret@db.example:1/shoal"))
        assert "s3cret" not in str(caught.value)

    def test_a_missing_pymongo_is_said(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pymongo", None)
        with pytest.raises(UserError, match=r"pip install .*\[mongo\]"):
            connect("shoal")

    @pytest.mark.parametrize(
        ("target", "shown"),
        [
            ("host:27017:db", "host:27017:db"),
            ("mongodb://u:p@host/db?tls=true", "mongodb://***@host/db"),
            ("mongodb://u:p@ss?/@host/db", "mongodb://***@host/db"),
            ("u:p@host:1:db", "***@host:1:db"),
        ],
    )
    def test_what_is_shown_of_it(self, target, shown):
        assert redact(target) == shown


@pytest.fixture
def place(shared_mongo, request):
    """A database of the test's own: what the code sees, and what a client of the server sees."""
    name = f"test_{abs(hash(request.node.nodeid))}"
    yield connect(shared_mongo.target(name)), shared_mongo.database(name)
    shared_mongo.database(name).client.drop_database(name)


class TestEntry:
    def test_it_is_there_as_sacred_would_have_written_it(self, place, tmp_path):
        code, picture, table = tmp_path / "code.py", tmp_path / "curve.png", tmp_path / "table.csv"
        for file in (code, picture, table):
            file.write_bytes(file.name.encode() * 70_000)  # more than one chunk
        run = MongoRun(place[0], "a")
        run.bring(
            entry(
                metrics={"loss": series(1, 2)},
                artifacts={"curve.png": picture},
                sources=[("code.py", code)],
                resources=[(str(table), table)],
                status="COMPLETED",
            )
        )
        document = place[1].runs.find_one()
        assert (run.id, document["_id"], document["status"]) == (1, 1, "COMPLETED")
        assert document["info"]["note"] == 1
        assert points(place[1], 1) == {"loss": [(1, 0.5), (2, 1.0)]}
        (artifact,) = document["artifacts"]
        (source,) = document["experiment"]["sources"]
        files = place[0].files
        assert artifact["name"] == "curve.png"
        assert files.get(artifact["file_id"]).read() == picture.read_bytes()
        assert files.get(artifact["file_id"]).filename == "artifact://runs/1/curve.png"
        assert files.get(artifact["file_id"]).metadata is None
        assert source[0] == "code.py"
        assert files.get(source[1]).read() == code.read_bytes()
        assert files.get(source[1]).filename == "/code/code.py"
        assert files.find_one({"filename": str(table)}).read() == table.read_bytes()

    def test_again_changes_nothing_whoever_does_it(self, place, tmp_path):
        (tmp_path / "model").write_text("weights")
        whole = entry(metrics={"loss": series(1, 2, 3)}, artifacts={"model": tmp_path / "model"})
        first = MongoRun(place[0], "a")
        first.bring(whole)
        before = contents(place[1])
        for run in (first, MongoRun(place[0], "a"), first):
            run.bring(whole)
            assert contents(place[1]) == before
        assert len(before["metrics"]) == 1
        assert len(before["fs.files"]) == 1

    def test_points_are_appended(self, place):
        run = MongoRun(place[0], "a")
        for end in (1, 2, 5):
            run.bring(entry(metrics={"loss": series(*range(end))}))
        assert [step for step, _ in points(place[1], 1)["loss"]] == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("there", [[], [0], [0, 1, 2, 3], [7, 8]])
    def test_a_server_with_other_points_than_we_believe_is_put_right(self, place, there):
        run = MongoRun(place[0], "a")
        run.bring(entry(metrics={"loss": series(0, 1, 2)}))
        place[1].metrics.update_one({}, {"$set": series(*there)})
        if len(there) == 0:
            place[1].metrics.delete_many({})
        run.bring(entry(metrics={"loss": series(0, 1, 2, 3)}))
        assert [step for step, _ in points(place[1], 1)["loss"]] == [0, 1, 2, 3]

    def test_a_server_that_has_forgotten_everything_gets_everything(self, place, tmp_path):
        (tmp_path / "model").write_text("weights")
        whole = entry(metrics={"loss": series(1, 2)}, artifacts={"model": tmp_path / "model"})
        run = MongoRun(place[0], "a")
        run.bring(whole)
        before = contents(place[1])
        place[1].client.drop_database(place[1].name)
        MongoRun(place[0], "other").bring(entry(uid="other"))  # takes the number that ours had
        run.bring(whole)
        after = contents(place[1])
        assert run.id == 2
        assert points(place[1], 2) == {"loss": [(1, 0.5), (2, 1.0)]}
        assert [f["length"] for f in after["fs.files"]] == [f["length"] for f in before["fs.files"]]

    def test_an_upload_that_was_cut_off_is_done_again(self, place, tmp_path):
        (tmp_path / "model").write_bytes(b"x" * 600_000)
        run = MongoRun(place[0], "a")
        run.bring(entry(artifacts={"model": tmp_path / "model"}))
        place[1]["fs.files"].delete_many({})  # written last, so a server that dies before has the chunks alone
        place[1]["fs.chunks"].delete_one({"n": 2})
        MongoRun(place[0], "a").bring(entry(artifacts={"model": tmp_path / "model"}))
        (artifact,) = place[1].runs.find_one()["artifacts"]
        assert place[0].files.get(artifact["file_id"]).read() == b"x" * 600_000
        assert place[1]["fs.chunks"].count_documents({}) == 3

    def test_a_newer_artifact_replaces_the_older(self, place, tmp_path):
        run = MongoRun(place[0], "a")
        for text in ("old", "newer"):
            (tmp_path / "model").write_text(text)
            run.bring(entry(artifacts={"model": tmp_path / "model"}))
        (artifact,) = place[1].runs.find_one()["artifacts"]
        assert place[0].files.get(artifact["file_id"]).read() == b"newer"
        assert place[1]["fs.files"].count_documents({}) == 1

    def test_runs_share_their_sources(self, place, tmp_path):
        (tmp_path / "code.py").write_text("pass")
        for uid in "abc":
            MongoRun(place[0], uid).bring(entry(uid=uid, sources=[("code.py", tmp_path / "code.py")]))
        assert place[1]["fs.files"].count_documents({}) == 1
        (tmp_path / "code.py").write_text("pass  # changed")
        MongoRun(place[0], "d").bring(entry(uid="d", sources=[("code.py", tmp_path / "code.py")]))
        assert place[1]["fs.files"].count_documents({}) == 2

    def test_runs_that_start_together_get_numbers_of_their_own(self, place):
        def start(number):
            run = MongoRun(place[0], str(number))
            run.bring(entry(uid=str(number)))
            return run.id

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(start, range(8))) == list(range(1, 9))

    def test_two_who_bring_one_run_make_one_entry(self, place):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: MongoRun(place[0], "a").bring(entry(metrics={"loss": series(1)})), range(4)))
        assert place[1].runs.count_documents({}) == 1
        assert points(place[1], 1) == {"loss": [(1, 0.5)]}

    def test_a_number_that_is_wanted_and_free(self, place):
        for uid, wanted, given in (("a", 7, 7), ("b", 7, 8), ("c", None, 9), ("d", 3, 3)):
            run = MongoRun(place[0], uid, wanted)
            run.bring(entry(uid=uid))
            assert run.id == given

    def test_two_collections_keep_their_metrics_apart(self, place, shared_mongo):
        other = connect(shared_mongo.target(f"{place[1].name}.mine"))
        MongoRun(place[0], "a").bring(entry(metrics={"loss": series(1)}))
        MongoRun(other, "b").bring(entry(uid="b", metrics={"loss": series(5)}))
        assert {(m["uid"], *m["steps"]) for m in place[1].metrics.find()} == {("a", 1), ("b", 5)}

    def test_overwriting_leaves_nothing_of_the_old_run(self, place, shared_mongo):
        MongoRun(place[0], "a").bring(entry(metrics={"loss": series(1), "old": series(1)}, status="FAILED"))
        target = connect(shared_mongo.target(f"{place[1].name}.runs:1"))
        assert check(target)
        MongoRun(target, "b").bring(entry(uid="b", metrics={"loss": series(5)}))
        assert points(place[1], 1) == {"loss": [(5, 2.5)]}
        assert place[1].runs.find_one()["status"] == "RUNNING"
        assert place[1].metrics.count_documents({}) == 1
        with pytest.raises(UserError, match="no run 9 to overwrite"):
            check(connect(shared_mongo.target(f"{place[1].name}.runs:9")))

    def test_what_cannot_be_stored_keeps_nothing_else_away(self, place, tmp_path):
        bad = {**series(1), "values": [object()]}
        (tmp_path / "there").write_text("x")
        artifacts = {"missing": tmp_path / "missing", "there": tmp_path / "there"}
        with pytest.raises((BSONError, OSError)):
            MongoRun(place[0], "a").bring(entry(metrics={"bad": bad, "loss": series(1)}, artifacts=artifacts))
        assert points(place[1], 1) == {"loss": [(1, 0.5)]}
        assert [artifact["name"] for artifact in place[1].runs.find_one()["artifacts"]] == ["there"]

    def test_the_status_comes_last(self, place, monkeypatch):
        def die(*args, **kwargs):
            raise pymongo.errors.AutoReconnect("gone")

        run = MongoRun(place[0], "a")
        done = entry(metrics={"loss": series(1)}, status="COMPLETED")
        with monkeypatch.context() as patch:
            patch.setattr(pymongo.collection.Collection, "find_one_and_update", die)
            with pytest.raises(pymongo.errors.AutoReconnect):
                run.bring(done)
        assert place[1].runs.find_one()["status"] == "RUNNING"
        run.bring(replace(done))
        assert place[1].runs.find_one()["status"] == "COMPLETED"


def test_a_password_is_asked_for_and_taken(tmp_path):
    server = MongoServer(tmp_path / "mongo")
    try:
        server.start().database("admin").command("createUser", "me", pwd="s3cret/1", roles=["root"])
        server.stop()
        server.auth = True
        server.start()
        for password in ("wrong", "s3cret"):
            with pytest.raises(UserError, match="refuses us") as caught:
                check(connect(f"mongodb://me:{password}@127.0.0.1:{server.port}/shoal?authSource=admin"))
            assert "wrong" not in str(caught.value)
        with pytest.raises(UserError, match="refuses us"):
            check(connect(server.target("shoal")))
        database = connect(f"mongodb://me:s3cret%2F1@127.0.0.1:{server.port}/shoal?authSource=admin")
        assert check(database)
        MongoRun(database, "a").bring(entry())
        assert database.runs.count_documents({}) == 1
    finally:
        server.close()
