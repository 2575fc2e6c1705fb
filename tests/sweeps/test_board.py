"""What is shown of a sweep."""

import io
import json

import pytest
from rich.console import Console

from shoal.config import files
from shoal.sweeps import board as boards
from shoal.sweeps.board import Board
from shoal.sweeps.folder import Seen, SweepFolder
from shoal.sweeps.plan import Cell, planned
from shoal.sweeps.pool import Job


@pytest.fixture
def jobs(tmp_path):
    given = [files.Layer("command line", {"batch_size": 4, "buffer_size": 40, "t_max": 200})]
    folder = SweepFolder(tmp_path)
    runs = [planned(Cell("iql", "matrix_game", seed), given, folder.runs) for seed in range(4)]
    jobs = [Job(run, folder.of(run)) for run in runs]
    path = jobs[1].folder.path / "sacred" / "1"
    path.mkdir(parents=True)
    (path / "run.json").write_text("{}")
    (path / "config.json").write_text("{}")
    metrics = {"test_battle_won_mean": (100, 0.25), "test_return_mean": (100, 7.0), "episode": (150, 3.0)}
    (path / "metrics.json").write_text(
        json.dumps(
            {
                name: {"steps": [step], "values": [value], "timestamps": ["2026-01-01T00:00:00"]}
                for name, (step, value) in metrics.items()
            }
        )
    )
    jobs[1].state, jobs[1].starts, jobs[1].machine = "running", 2, "node7"
    jobs[2].state, jobs[2].note = "failed", "killed by SIGKILL"
    return jobs


def board_on(terminal, height=40):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160, height=height, color_system=None)
    return Board("some", console), out


def test_a_terminal_shows_a_table_with_the_running_ones_first(jobs):
    board, out = board_on(True)
    with board:
        board.show(jobs)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    titles = [i for i, line in enumerate(lines) if "some: 0 of 4 finished, 1 running, 2 waiting, 1 failed" in line]
    rows = [line.split() for line in lines[titles[-1] :] if "iql_" in line]
    assert rows[0][:6] == ["iql_matrix_game_seed1", "running", "75%", "won", "25.0%", rows[0][5]]
    assert rows[0][-2:] == ["2", "node7"]
    assert rows[1][:2] == ["iql_matrix_game_seed2", "failed"]
    assert rows[1][-3:] == ["killed", "by", "SIGKILL"]
    assert [row[0][-1] for row in rows] == ["1", "2", "0", "3"]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"test_return_mean": (100, 7.0), "test_win_rate": (100, 0.5)}, "won 50.0%"),
        ({"test_return_mean": (100, 7.0), "test_score_reward_mean": (100, 0.5)}, "return 7.00"),
        ({"episode": (100, 7.0)}, ""),
    ],
)
def test_a_run_shows_what_judges_it(jobs, metrics, said):
    board, _ = board_on(False)
    board._seen[jobs[0].folder.path.name] = Seen(100, metrics)
    assert board._score(jobs[0]) == said


def test_a_table_that_is_too_long_is_cut(jobs):
    board, out = board_on(True, height=8)
    with board:
        board.show(jobs)
    assert "... and 1 more" in out.getvalue()


def test_elsewhere_there_is_a_line_for_each_change_and_one_now_and_then(jobs, monkeypatch):
    board, out = board_on(False)
    with board:
        board.show(jobs)
        assert out.getvalue() == ""
        monkeypatch.setattr(boards, "_LINE_S", 0.0)
        board.show(jobs)
        for job in jobs:
            board.changed(job, jobs)
        jobs[1].state, jobs[1].seconds = "finished", 3700
        board.changed(jobs[1], jobs)
        jobs[3].state = "stopped"
        board.changed(jobs[3], jobs)
    told = [line.split(None, 1) for line in out.getvalue().splitlines()]
    assert " ".join(told[0]) == "0 of 4 finished, 1 running, 2 waiting, 1 failed: iql_matrix_game_seed1 75%"
    assert [words[0] for words in told[1:]] == ["failed", "started", "FAILED", "failed", "finished", "stopped"]
    assert "restarted from the beginning" in told[1][1]
    assert "(start 2)" in told[2][1]
    assert "killed by SIGKILL; its output: " in told[3][1]
    assert "won 25.0% in 1:01:40; 1 of 4 finished, 2 waiting, 1 failed" in told[5][1]
    assert "no checkpoint yet" in told[6][1]
