"""What a reproduction says at its end: about quick runs, resumed runs, runs that failed and runs that were stopped."""

import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from shoal.recording.reader import Record
from shoal.reproduce import report, running
from shoal.reproduce.__main__ import main
from support import tiny
from support.made import run, trained


def made(tmp_path, starts=1, **config):
    records = tuple(Record(Path(f"runs/{n}"), {}, {}, {}, {}) for n in range(starts))
    one = run({"test_return_mean": [1.0, 7.0]}, name="vdn", env="matrix_game", seed=0, **config)
    return trained(tmp_path, {"vdn": [replace(one, records=records)]})


def test_a_verdict_stands_beside_the_claim(tmp_path):
    verdicts, written = report.write(tiny.TINY, made(tmp_path))
    assert [verdict.holds for verdict in verdicts] == [True]
    assert [path.name for path in written] == ["curves.png", "table.csv", "table.md", "verdict.md"]
    page = (tmp_path / "verdict.md").read_text()
    assert page.startswith("# a paper, figure 0\n\nVDN prefers what is safe. The paper's numbers: 7 of 8.\n")
    assert "| VDN misses the best joint action | returns [7.0] | **holds** |" in page
    assert page.endswith("\nA game of one step.\n")


def test_quick_runs_judge_nothing(tmp_path):
    ((verdict,), _) = report.write(tiny.TINY, made(tmp_path), quick=True)
    assert verdict.holds is None
    assert verdict.found == "returns [7.0] (--quick runs are too short to judge a claim by)"
    assert "**not judged**" in (tmp_path / "verdict.md").read_text()


def test_runs_that_lost_their_replay_memory_are_told_of(tmp_path):
    assert report.interruptions(made(tmp_path, starts=1).all) == ""
    assert report.interruptions(made(tmp_path, starts=2, save_buffer=True).all) == ""
    sentence = report.interruptions(made(tmp_path, starts=2, save_buffer=False).all)
    assert sentence.startswith("1 of 1 runs were stopped and resumed from a checkpoint without their replay memory")
    report.write(tiny.TINY, made(tmp_path, starts=2))
    for name in ("table.md", "verdict.md"):
        assert sentence in (tmp_path / name).read_text()


@pytest.fixture
def ends(monkeypatch, tmp_path):
    """Lets the tiny reproduction's two runs end in given states, by a given signal; returns the exit status."""

    class NoPool:
        def __init__(self, *args):
            pass

        def add(self, jobs):
            self.jobs = jobs

    monkeypatch.setattr(running, "Pool", NoPool)
    monkeypatch.setattr(running, "check_environments", lambda runs: None)
    monkeypatch.setattr(running.cluster, "joined", lambda address: nullcontext())

    def end(states, signum=None):
        def drive(pool, board, stop):
            stop.signum = signum
            for job, state in zip(pool.jobs, states, strict=True):
                job.state, job.note = state, "out of memory."

        monkeypatch.setattr(running, "drive", drive)
        return main(["tiny", "--out", str(tmp_path)], [tiny.TINY])

    return end


def test_a_run_that_failed_for_good_is_named(ends, capsys, tmp_path):
    assert ends(["finished", "failed"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 1 of 2 runs failed (vdn_seed1: out of memory): ")
    assert str(tmp_path / "runs" / "vdn_seed1" / "out.txt") in line
    assert not (tmp_path / "table.md").exists()


def test_a_signal_is_the_exit_status(ends, capsys, tmp_path):
    assert ends(["finished", "stopped"], signal.SIGHUP) == 128 + signal.SIGHUP
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("stopped by SIGHUP with 1 runs to do; resume with: python -m shoal.reproduce tiny --out ")
    assert last.endswith(str(tmp_path))
    assert not (tmp_path / "table.md").exists()
