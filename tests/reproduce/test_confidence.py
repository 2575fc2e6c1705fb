"""Confidence matrices of recorded runs: what is read of the record, when it is drawn, and what cannot be drawn."""

import numpy as np
import pytest

from shoal.analysis.records import read_run
from shoal.reproduce.confidence import confidence, draw, main, moments
from shoal.utils.errors import UserError
from support.record import PNG, record

STEPS = [0, 100, 200, 300]
TESTS = {"test_return_mean": ([0, 300], [1.0, 5.0]), "test_teacher_return_mean": ([0, 300], [2.0, 5.0])}


def confidences(shift=0.0):
    own = [0.5, 0.5, 0.8, 1.0]
    entries = {
        f"confidence_{i}_{j}": (STEPS, [c + shift if i == j else 1 - c - shift for c in own])
        for i in (0, 1)
        for j in (0, 1)
    }
    return entries | {"confidence_self": (STEPS, own)}


@pytest.fixture
def run(tmp_path):
    def make(metrics, seed=1, **config):
        return read_run(record(tmp_path / f"run_{seed}", metrics, name="qmix_cadp", seed=seed, **config))

    return make


def test_matrices_are_means_over_the_seeds(run):
    steps, matrices = confidence([run(confidences()), run(confidences(-0.1), seed=2)])
    assert steps.tolist() == STEPS
    np.testing.assert_allclose(matrices[0], [[0.45, 0.55], [0.55, 0.45]])
    np.testing.assert_allclose(matrices[-1], [[0.95, 0.05], [0.05, 0.95]])


def test_of_a_large_team_there_is_the_diagonal(run):
    metrics = {f"confidence_{i}_{i}": (STEPS, [0.1, 0.2, 0.3, 0.4]) for i in range(11)}
    _, matrices = confidence([run(metrics | {"confidence_self": (STEPS, [0.1, 0.2, 0.3, 0.4])})])
    assert matrices.shape == (4, 11, 11)
    np.testing.assert_allclose(np.diagonal(matrices[2]), 0.3)
    assert np.isnan(matrices[2]).sum() == 11 * 10


@pytest.mark.parametrize(
    ("steps", "breakpoint", "expected"),
    [
        (range(0, 1000, 100), 500, [0, 5, 7, 9]),  # the record at the breakpoint is still of the time before
        (range(0, 1000, 100), 450, [0, 4, 7, 9]),
        (range(0, 1000, 100), 5000, [0, 3, 6, 9]),
        (range(0, 1000, 100), None, [0, 3, 6, 9]),
        ([100], 50, [0]),
    ],
)
def test_moments_are_on_both_sides_of_the_breakpoint(steps, breakpoint, expected):
    assert moments(np.array(steps), breakpoint) == expected


def test_the_command_line_draws_and_says_where(run, tmp_path, capsys):
    folders = [str(run(confidences() | TESTS, seed=seed, breakpoint=150).folder) for seed in (1, 2)]
    out = tmp_path / "mine.png"
    assert main([*folders, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)
    assert out.stat().st_size > 20_000
    assert capsys.readouterr().out.strip() == str(out)


def test_a_run_without_tests_and_breakpoint_is_drawn_too(run, tmp_path):
    assert draw([run(confidences())], tmp_path / "some.png").exists()


@pytest.mark.parametrize("metrics", [TESTS, {"confidence_self": ([], [])}])
def test_a_run_without_confidences_is_refused_by_name(run, metrics, tmp_path):
    good, bad = run(confidences()), run(metrics, seed=2)
    with pytest.raises(UserError, match=r"run_2 recorded no confidence_self: .*agent=att_rnn"):
        draw([good, bad], tmp_path / "some.png")


def test_the_command_line_refuses_in_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {tmp_path} is not a recorded run")
