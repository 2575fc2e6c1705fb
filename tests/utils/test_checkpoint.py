"""Checkpoint files: whole or not at all, found by step, refused with a way out."""

import resource
import subprocess
import sys

import pytest
import torch

from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import NonFiniteError, UserError
from support.launch import environment


def saved(folder, *steps):
    for step in steps:
        checkpoints.save({"step": step}, folder, step)
    return folder


def test_a_round_trip(tmp_path):
    content = {"weights": torch.arange(3.0), "n": 2**40, "nested": {"none": None, "list": [1.5, "x"]}}
    path = checkpoints.save(content, tmp_path / "new" / "folder", 120)
    assert path == tmp_path / "new" / "folder" / "120.pt"
    loaded = checkpoints.load(path)
    assert loaded.pop("format") == checkpoints.FORMAT
    assert loaded.pop("weights").equal(content.pop("weights"))
    assert loaded == content


def test_saving_again_replaces(tmp_path):
    checkpoints.save({"try": 1}, tmp_path, 5)
    checkpoints.save({"try": 2}, tmp_path, 5)
    assert checkpoints.load(tmp_path / "5.pt")["try"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["5.pt"]


@pytest.mark.parametrize("cause", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch, cause):
    saved(tmp_path, 5)

    def half(content, file):
        file.write(b"half a checkpoint")
        raise cause

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(type(cause)):
        checkpoints.save({"step": 6}, tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["5.pt"]
    assert checkpoints.load(tmp_path / "5.pt")["step"] == 5


def test_a_full_disk_is_named(tmp_path):
    # torch says that its file has another length than it wrote; why, it does not say.
    saved(tmp_path, 5)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoints.save({"many": [torch.zeros(30_000) for _ in range(5)]}, tmp_path, 6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["5.pt"]


NAN, INF = torch.tensor([0.0, float("nan")]), torch.tensor(float("inf"))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"learner": {"agent.weight": NAN}}, "learner.agent.weight"),
        ({"learner": {"_extra_state": {"state": {0: {"exp_avg": INF}}}}}, "learner._extra_state.state.0.exp_avg"),
        ({"best": {"score": [1.0], "networks": {"w": NAN}}}, "best.networks.w"),
        ({"networks": {"w": [INF]}}, "networks.w.0"),
    ],
)
def test_nothing_with_a_nan_in_its_networks_is_written(tmp_path, content, name):
    saved(tmp_path, 5)
    with pytest.raises(NonFiniteError, match=rf"Nothing is written to .*6\.pt: NaN or infinity in {name}\."):
        checkpoints.save(content, tmp_path, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["5.pt"]


def test_a_nan_in_what_was_measured_is_no_reason(tmp_path):
    checkpoints.save({"progress": {"since_log": {"score": [float("nan")]}}, "learner": {"n": NAN.bool()}}, tmp_path, 6)
    assert checkpoints.load(tmp_path / "6.pt")["learner"]["n"].equal(NAN.bool())


def test_a_checkpoint_is_as_readable_as_other_files(tmp_path):
    (tmp_path / "other").touch()
    path = checkpoints.save({}, tmp_path, 5)
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def with_buffer(folder, *steps):
    for step in steps:
        buffer = {"rng": {"state": step}, "next": 3, "lengths": torch.ones(3), "episodes": {"obs": torch.ones(1000)}}
        checkpoints.save({"step": step, "buffer": buffer}, folder, step)
    return folder


@pytest.mark.parametrize(
    ("newest", "keep", "left"),
    [
        (50, 3, [30, 40, 50]),
        (50, 1, [50]),
        (50, 9, [10, 20, 30, 40, 50]),
        (50, 0, [10, 20, 30, 40, 50]),
        (30, 2, [20, 30, 40, 50]),  # went back to 20: 40 and 50 are not its own yet
        (10, 1, [10, 20, 30, 40, 50]),
    ],
)
def test_the_last_ones_and_the_best_are_kept(tmp_path, newest, keep, left):
    with_buffer(tmp_path, 10, 20, 30, 40, 50)
    checkpoints.write({"step": "best"}, tmp_path / checkpoints.BEST)
    (tmp_path / "killed.part").write_bytes(b"half a checkpoint")
    checkpoints.prune(tmp_path, newest, keep, keep_buffers=0)
    assert not list(tmp_path.glob("*.part"))
    assert checkpoints.steps_in(tmp_path) == left
    assert checkpoints.load(tmp_path / checkpoints.BEST)["step"] == "best"


@pytest.mark.parametrize(("keep_buffers", "held"), [(1, [50]), (2, [40, 50]), (0, [10, 20, 30, 40, 50])])
def test_only_the_newest_hold_their_replay_memory(tmp_path, keep_buffers, held):
    for step in (10, 20, 30, 40, 50):
        with_buffer(tmp_path, step)
        checkpoints.prune(tmp_path, step, keep=0, keep_buffers=keep_buffers)
    contents = {step: checkpoints.load(tmp_path / f"{step}.pt") for step in checkpoints.steps_in(tmp_path)}
    assert [step for step, content in contents.items() if content["buffer"]["episodes"] is not None] == held
    assert {step: content["step"] for step, content in contents.items()} == {
        step: step for step in (10, 20, 30, 40, 50)
    }
    assert contents[10]["buffer"]["rng"] == {"state": 10}
    assert ((tmp_path / "10.pt").stat().st_size < 4000) is bool(keep_buffers)


def test_a_kill_while_the_memory_is_dropped_leaves_the_checkpoint_whole(tmp_path, monkeypatch):
    with_buffer(tmp_path, 10, 20)
    monkeypatch.setattr("os.replace", lambda source, target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        checkpoints.prune(tmp_path, 20, keep=2, keep_buffers=1)
    assert checkpoints.load(tmp_path / "10.pt")["buffer"]["episodes"]["obs"].equal(torch.ones(1000))


def test_steps_are_numbers_not_names(tmp_path):
    saved(tmp_path, 1000, 20, 9)
    (tmp_path / "best.pt").write_bytes(b"")
    (tmp_path / "tmpabc.part").write_bytes(b"")
    assert checkpoints.steps_in(tmp_path) == [9, 20, 1000]


@pytest.mark.parametrize(("load_step", "found"), [(0, 1000), (1, 9), (14, 9), (15, 20), (600, 1000), (10**9, 1000)])
def test_the_newest_or_the_nearest_step(tmp_path, load_step, found):
    assert checkpoints.find(saved(tmp_path, 9, 20, 1000), load_step) == tmp_path / f"{found}.pt"


def test_a_file_is_itself(tmp_path):
    saved(tmp_path, 9, 20)
    assert checkpoints.find(tmp_path / "9.pt", 20) == tmp_path / "9.pt"


def test_nothing_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"There is no checkpoint at .*nowhere"):
        checkpoints.find(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no checkpoint"):
        checkpoints.find(tmp_path)


def test_a_damaged_file_is_refused_and_the_one_before_is_named(tmp_path):
    saved(tmp_path, 9, 20, 30)
    whole = (tmp_path / "20.pt").read_bytes()
    (tmp_path / "20.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match=r"20\.pt cannot be read .*damaged.*The next intact one is .*9\.pt \(load_step=9\)"
    ):
        checkpoints.load(tmp_path / "20.pt")


def test_a_damaged_first_file_has_none_before_it(tmp_path):
    (tmp_path / "9.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="There is no other intact one in its folder"):
        checkpoints.load(tmp_path / "9.pt")


@pytest.mark.parametrize("content", [[1, 2], {"weights": torch.zeros(1)}, {"format": 99}])
def test_a_file_of_another_program_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "3.pt")
    with pytest.raises(UserError, match=r"3\.pt is not a checkpoint that this version of Shoal writes"):
        checkpoints.load(tmp_path / "3.pt")


class Trap:
    """Pickles into a call."""

    def __reduce__(self):
        return print, ("sprung",)


def test_loading_runs_no_code(tmp_path, capsys):
    torch.save({"format": checkpoints.FORMAT, "trap": Trap()}, tmp_path / "3.pt")
    with pytest.raises(UserError, match="cannot be read"):
        checkpoints.load(tmp_path / "3.pt")
    assert "sprung" not in capsys.readouterr().out


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path):
    folder = tmp_path / "models" / "qmix_seed1"
    first, second = checkpoints.claim(folder), checkpoints.claim(folder)
    assert (first, second) == (folder, folder.with_name("qmix_seed1-2"))
    checkpoints.give_back(second)
    saved(first, 10)
    checkpoints.give_back(first)
    assert (first.exists(), second.exists()) == (True, False)


def test_starts_are_counted_where_something_can_be_written(tmp_path):
    assert [checkpoints.count_start(tmp_path) for _ in range(3)] == [1, 2, 3]
    assert checkpoints.count_start(tmp_path / "missing") is None
    (tmp_path / checkpoints.STARTS_FILE).write_text("")
    assert checkpoints.count_start(tmp_path) is None


def test_room_is_made_of_all_but_the_newest_whole_one(tmp_path):
    saved(tmp_path, 9, 20, 30, 40)
    (tmp_path / "30.pt").write_bytes(b"half")
    assert list(checkpoints.make_room(tmp_path, 30)) == [tmp_path / "9.pt", tmp_path / "30.pt"]
    assert checkpoints.steps_in(tmp_path) == [20, 40]


def test_where_no_checkpoint_can_be_read_the_newest_stays(tmp_path, monkeypatch):
    saved(tmp_path, 9, 20, 30)

    def stale(*args, **kwargs):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(torch, "load", stale)
    assert list(checkpoints.make_room(tmp_path, 30)) == [tmp_path / "9.pt", tmp_path / "20.pt"]
    assert checkpoints.steps_in(tmp_path) == [30]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"team": 1, "config": {}, "spec": {}, "networks": {}}, r"run\.pt is an exported team"),
        (
            dict.fromkeys(set(checkpoints.RUN) - {"buffer", "progress"}),
            r"run\.pt is not a complete checkpoint: it lacks progress, buffer\.",
        ),
    ],
)
def test_a_file_without_a_run_is_no_run_to_go_on_with(tmp_path, content, why):
    path = checkpoints.write(content, tmp_path / "run.pt")
    with pytest.raises(UserError, match=why):
        checkpoints.load_for_resume(path, 0, warn=print)


def test_another_process_keeps_runs_out_of_its_folder(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from shoal.utils.checkpoint import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(UserError, match=f"Another run is using .*process {process.pid} on "):
                checkpoints.locked(tmp_path).__enter__()
        finally:
            process.kill()
    with checkpoints.locked(tmp_path):
        pass
