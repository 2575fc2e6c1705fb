"""python -m shoal.reproduce: what it lists and refuses, and a reproduction that is stopped and continued."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shoal.analysis.starts import read_runs
from shoal.reproduce import catalogue, running
from shoal.reproduce.__main__ import main
from shoal.utils import checkpoint as checkpoints
from support import tiny
from support.launch import environment, read_json, wait_until
from support.record import PNG


def start(cwd: Path, *args: str) -> subprocess.Popen[bytes]:
    """The tiny reproduction in a process of its own, its output in cwd/out.txt."""
    with open(cwd / "out.txt", "w") as out:
        command = [sys.executable, tiny.__file__, "tiny", *args]
        return subprocess.Popen(command, cwd=cwd, env=environment(), stdout=out, stderr=out, start_new_session=True)


def statuses(run: Path) -> list[str]:
    return [read_json(path / "run.json")["status"] for path in sorted((run / "sacred").glob("[0-9]*"))]


def is_under_way(run: Path) -> bool:
    """Whether it has a checkpoint, and time to be stopped."""
    return any(checkpoints.steps_in(path) for path in (run / "models").glob("*"))


@pytest.mark.slow
def test_a_stopped_reproduction_goes_on_and_ends_with_picture_table_and_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "tiny"
    first, second = (out / "runs" / f"vdn_seed{seed}" for seed in (0, 1))
    process = start(tmp_path, "--jobs=1")
    try:
        wait_until(lambda: is_under_way(second), 600, "the second run has a checkpoint")
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 128 + signal.SIGTERM
    finally:
        if process.poll() is None:
            process.kill()
    said = (tmp_path / "out.txt").read_text()
    assert "stopped by SIGTERM with 1 runs to do; resume with: python -m shoal.reproduce tiny --jobs=1" in said
    assert [statuses(first), statuses(second)] == [["COMPLETED"], ["INTERRUPTED"]]
    assert not (out / "table.md").exists()

    assert start(tmp_path, "--jobs=1").wait(600) == 0
    said = (tmp_path / "out.txt").read_text()
    assert "2 runs, 1 of them finished before" in said
    assert [statuses(first), statuses(second)] == [["COMPLETED"], ["INTERRUPTED", "COMPLETED"]]
    assert read_json(second / "sacred" / "2" / "info.json")["resumed"]["t_env"] >= 100
    assert (out / "curves.png").read_bytes().startswith(PNG)
    assert (out / "table.csv").read_text().startswith("seed,return\n0,")
    assert "A game of one step." in (out / "table.md").read_text()
    verdict = (out / "verdict.md").read_text()
    assert "| VDN misses the best joint action | returns [" in verdict
    assert "holds** |" in verdict
    for name in ("curves.png", "table.md", "table.csv", "verdict.md"):
        assert str(Path("results") / "tiny" / name) in said

    capsys.readouterr()
    assert main(["tiny", "--out", str(out)], [tiny.TINY]) == 0  # nothing is left to train
    assert "2 runs, 2 of them finished before" in capsys.readouterr().out
    assert [statuses(first), statuses(second)] == [["COMPLETED"], ["INTERRUPTED", "COMPLETED"]]

    # Side by side and never stopped, the runs are the same.
    assert start(tmp_path, "--jobs=2", "--out=whole").wait(600) == 0
    (whole,) = read_runs([tmp_path / "whole" / "runs" / "vdn_seed1" / "sacred" / "1"])
    (stopped,) = read_runs([second / "sacred" / number for number in "12"])
    assert "test_return_mean" in whole.metrics
    for name, (steps, values) in whole.metrics.items():
        np.testing.assert_array_equal(stopped.metrics[name][0], steps, err_msg=name)
        np.testing.assert_array_equal(stopped.metrics[name][1], values, err_msg=name)


def test_the_list_says_what_every_reproduction_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    blocks = {block.partition(":")[0]: " ".join(block.split()) for block in listed.split("\n\n")}
    assert list(blocks) == [one.id for one in catalogue.every()]
    for one in catalogue.every():
        for text in (one.paper, one.figure, one.claim, one.paper_numbers, f"python -m shoal.reproduce {one.id}"):
            assert " ".join(text.split()) in blocks[one.id]
        assert " on two cores (" in blocks[one.id]


def test_a_dry_run_prints_command_lines_and_starts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["tiny", "--dry-run", "--seeds", "1"], [tiny.TINY]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("python src/main.py --config=vdn --env-config=matrix_game with runner=episode batch_size=4")
    assert line.endswith("seed=0")
    assert main(["tiny", "--dry-run", "--quick"], [tiny.TINY]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "t_max=20 " in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["s2q-smaxx"], ["no reproduction 's2q-smaxx'", "'s2q-smax'", "--list"]),
        (["tiny", "--seeds", "0"], ["--seeds 0", "at least one"]),
        (["tiny", "--jobs", "0"], ["--jobs 0", "at least one"]),
        (["tiny", "--out", "a_file"], ["a_file", "cannot be written"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    assert main(arguments, [tiny.TINY, *catalogue.every()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words)


def test_a_missing_environment_is_said_before_anything_is_started(tmp_path, monkeypatch, capsys):
    (tmp_path / "pymunk.py").write_text("raise ImportError('No module named pymunk')")
    monkeypatch.syspath_prepend(tmp_path)  # also of the process that makes the environment
    monkeypatch.setattr(running, "_train", lambda *args: pytest.fail("a run was started"))
    assert main(["mq-lan-codebook", "--out", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "pip install" in line
    assert "pymunk" in line
