"""Policies that learn nothing, in the real environments, against figures measured with a program of their own."""

import csv
import sys
from functools import cache

import numpy as np
import pytest

from shoal.envs.sisl import INSTALL, NEEDS
from shoal.reproduce.sisl_baselines import POLICIES, bang_bang, forage, idle, kick, main, make_env, play, uniform


@cache
def env(name, max_cycles):
    for package in NEEDS[name]:
        pytest.importorskip(package, reason=INSTALL)
    return make_env(name, max_cycles)


def assert_within(score, published, spread, episodes, errors=3.0):
    """Ours and theirs are means of samples: their difference against the standard error of the difference."""
    allowed = errors * np.hypot(score.error, spread / np.sqrt(episodes))
    assert abs(score.mean - published) < allowed, f"{score.mean:.1f} +- {score.error:.1f}, not {published}"


@pytest.mark.slow
def test_doing_nothing_in_waterworld_earns_what_was_measured():
    assert_within(play(env("waterworld", 500), idle, range(40)), 9.8, 14.0, 40)


@pytest.mark.parametrize(("policy", "published"), [(idle, 1.4), (uniform, -53.7), (bang_bang, -73.3)])
def test_waterworld_in_a_hundred_steps(policy, published):
    score = play(env("waterworld", 100), policy, range(12))
    assert (score.lengths == 100).all()
    assert_within(score, published, 7.0, 40)  # the spread of 500 steps, by the square root of their number


def test_idle_beats_random_and_full_thrust_has_a_floor():
    means = {policy: play(env("waterworld", 60), policy, range(6)).mean for policy in (idle, kick, uniform, bang_bang)}
    assert means[bang_bang] < means[uniform] < min(means[idle], means[kick])
    assert means[bang_bang] == pytest.approx(-0.75 * 60, abs=15)


@pytest.mark.parametrize(("policy", "published"), [(idle, -103), (uniform, -104), (bang_bang, -118)])
def test_multiwalkers_walkers_fall_whatever_is_done(policy, published):
    score = play(env("multiwalker", 500), policy, range(10))
    assert_within(score, published, 35.0, 100)  # our own spread over 100 seeds
    assert np.median(score.lengths) < 150


def test_foraging_goes_towards_the_nearest_food_that_is_sensed():
    obs = np.ones((2, 242), dtype=np.float32)
    obs[0, 60 + 15] = 0.6  # the sixteenth of thirty sensors looks back
    obs[0, 60 + 3] = 0.9
    act = forage(np.random.default_rng(0), (2, 2))
    np.testing.assert_allclose(act(0, obs), [[-0.2, 0.0], [0.0, 0.0]], atol=1e-6)


def test_command(tmp_path, capsys):
    env("waterworld", 5)
    path = tmp_path / "new" / "scores.csv"
    assert main(["--env", "waterworld", "--episodes", "2", "--max-cycles", "5", "--csv", str(path)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in POLICIES)
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == 2 * len(POLICIES)
    assert {row["length"] for row in rows} == {"5"}
    nothing = [float(row["return"]) for row in rows if row["policy"] == "always zero"]
    assert f"{np.mean(nothing):8.1f}" in printed
    with pytest.raises(SystemExit):
        main(["--episodes", "1"])


def test_command_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pymunk", None)
    assert main(["--env", "waterworld"]) == 1
    assert "pip install" in capsys.readouterr().err
