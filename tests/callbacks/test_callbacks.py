"""Callbacks: when they are called, that they change nothing, how they fail, and the two that ship."""

import csv
import json
import struct

import pytest

from shoal.callbacks.callback import Callback, build
from shoal.utils.errors import UserError
from support.launch import curves, in_process
from support.watching import Watch

GAME = [
    "--config=vdn",
    "--env-config=matrix_game",
    "with",
    "runner=episode",
    "seed=3",
    "t_max=20",
    "batch_size=4",
    "buffer_size=16",
    "test_interval=10",
    "test_nepisode=2",
    "runner_log_interval=5",
    "learner_log_interval=5",
    "save_model_interval=10",
    "save_buffer=True",
]


def record(folder, number=1):
    return folder / "results" / "sacred" / str(number)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The curves of the run without callbacks."""
    folder = tmp_path_factory.mktemp("plain")
    assert in_process(folder, *GAME) == 0
    return curves(record(folder))


def test_every_hook_is_called_in_its_place_and_the_run_stays_the_same(tmp_path, plain):
    assert in_process(tmp_path, *GAME, "callbacks=[support.watching:Watch]") == 0
    assert curves(record(tmp_path)) == plain
    hooks = [hook for hook, _, _ in Watch.events]
    assert hooks[:3] == ["start", "test", "rollout"]
    assert hooks[-3:] == ["test", "checkpoint", "end"]
    of = {hook: [(t_env, what) for name, t_env, what in Watch.events if name == hook] for hook in hooks}
    assert of["start"] == [(0, None)]
    assert of["rollout"] == [(t_env, 1) for t_env in range(1, 21)]
    assert [t_env for t_env, _ in of["update"]] == list(range(4, 21))
    assert of["test"] == plain["test_return_mean"]
    assert of["checkpoint"] == [(10, 10), (20, 20)]
    (end,) = of["end"]
    assert end[0] == 20
    assert end[1]["test_return_mean"] == plain["test_return_mean"][-1][1]


@pytest.mark.parametrize("kind", ["Stumble", "Enough"])
def test_a_callback_that_fails_stops_the_run_at_a_point_that_it_can_go_on_from(tmp_path, plain, capfd, kind):
    args = [*GAME, f"callbacks=[support.watching:{kind},support.watching:Watch]"]
    if kind == "Stumble":
        with pytest.raises(RuntimeError, match="it stumbled") as caught:
            in_process(tmp_path, *args)
        notes = " ".join(caught.value.__notes__)
        assert "raised by the callback Stumble, in on_rollout" in notes
        assert "Go on later with resume=results/models/" in notes
    else:
        assert in_process(tmp_path, *args) == 1
        assert "error: That is enough. Go on later with resume=results/models/" in capfd.readouterr().err
    assert Watch.events[-1] == ("end", 12, None)
    resume = f"resume={record(tmp_path)}"
    assert in_process(tmp_path, "with", resume, "callbacks=[]") == 0
    later = curves(record(tmp_path, 2))
    for name, points in plain.items():
        assert later.get(name, []) == [point for point in points if point[0] > 12], name


def test_csv_holds_what_the_record_holds(tmp_path, plain):
    assert in_process(tmp_path, *GAME, "callbacks=[shoal.callbacks:CSV]") == 0
    with open(record(tmp_path) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        found.setdefault(row["metric"], []).append((int(row["t_env"]), float(row["value"])))
    assert found == plain
    assert curves(record(tmp_path)) == plain
    assert in_process(tmp_path, "-u", *GAME, "callbacks=[shoal.callbacks:CSV]") == 1


def test_wandb_gets_what_the_record_gets(tmp_path, plain, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert in_process(tmp_path, *GAME, "callbacks=[shoal.callbacks:Wandb]") == 0
    assert wandb.run is None
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    points, config, project, status = _stored_by_wandb(file)
    assert points == plain
    assert (config["seed"], config["t_max"], config["env_args"]["payoff"][0]) == (3, 20, [8, 0, -12])
    assert project == "shoal"
    assert status == 0


def _entries(data):
    """The entries of a log in LevelDB's format, behind W&B's own header of 7 bytes."""
    place, parts, block = 7, [], 32768
    while place + 7 <= len(data):
        if block - place % block < 7:  # no room for a header in this block
            place += block - place % block
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield b"".join(parts)
            parts = []


def _stored_by_wandb(file):
    """The curves, settings, project and exit status in W&B's own file."""
    from wandb.proto import wandb_internal_pb2

    points, config, project, status = {}, {}, "", None
    for data in _entries(file.read_bytes()):
        entry = wandb_internal_pb2.Record()
        entry.ParseFromString(data)
        kind = entry.WhichOneof("record_type")
        if kind == "run":
            project = entry.run.project
            config |= {item.key: json.loads(item.value_json) for item in entry.run.config.update}
        elif kind == "exit":
            status = entry.exit.exit_code
        elif kind == "history":
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in entry.history.item}
            for name, value in row.items():
                if name != "t_env" and not name.startswith("_"):
                    points.setdefault(name, []).append((row["t_env"], value))
    return points, config, project, status


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nothing", "is no import path"),
        ("support.watching:Nobody", "cannot be loaded"),
        ("nowhere_at_all:Watch", "cannot be loaded"),
        ("support.watching:NeedsOne", "cannot be made without arguments"),
        ("support.watching:no_callback", "derive its class from that"),
    ],
)
def test_what_is_no_callback_is_refused_in_a_sentence(path, sentence):
    with pytest.raises(UserError, match=sentence):
        build([path])


def test_a_path_that_names_nothing_starts_no_run(tmp_path, capsys):
    assert (
        in_process(tmp_path, "--config=vdn", "--env-config=matrix_game", "with", "callbacks=[nowhere_at_all:Watch]")
        == 1
    )
    assert "The callback nowhere_at_all:Watch cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_misspelt_hook_is_refused():
    class Watching(Callback):
        def on_tset(self, experiment, metrics):
            """Never called."""

    with pytest.raises(UserError, match="did you mean on_test"):
        build([Watching])
