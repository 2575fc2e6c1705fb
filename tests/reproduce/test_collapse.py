"""What counts as a collapse of training."""

import numpy as np
import pytest

from shoal.reproduce.collapse import collapse

RANDOM = -100.0


def test_a_run_that_only_climbs_lost_nothing():
    lost = collapse(np.linspace(RANDOM, 0, 12)[None], RANDOM)
    assert lost.drawdown.tolist() == [0.0]
    assert lost.at_the_end.tolist() == [0.0]
    assert not lost.collapsed.any()


def test_a_run_that_loses_most_of_its_gain_collapsed_even_if_it_comes_back():
    gone = np.array([-100, -60, -20, 0, 0, 0, -80, -80, -80, -80.0])
    back = np.concatenate([gone, [-40, 0, 0, 0]])
    kept = np.array([-100, -60, -20, 0, 0, 0, -30, -30, -30, -30.0])
    assert collapse(gone[None], RANDOM).drawdown == pytest.approx([0.8])
    assert collapse(gone[None], RANDOM).at_the_end == pytest.approx([0.8])
    assert collapse(gone[None], RANDOM).collapsed.all()
    assert collapse(back[None], RANDOM).collapsed.all()
    assert collapse(back[None], RANDOM).at_the_end == pytest.approx([0.0])
    assert collapse(kept[None], RANDOM).drawdown == pytest.approx([0.3])
    assert not collapse(kept[None], RANDOM).collapsed.any()
    both = collapse(np.stack([gone, kept]), RANDOM)
    assert both.collapsed.tolist() == [True, False]


def test_one_bad_test_and_noise_near_the_start_are_no_collapse():
    one_bad = np.array([-100, -50, 0, 0, -100, 0, 0, 0.0])
    assert collapse(one_bad[None], RANDOM).drawdown == pytest.approx([0.2])
    assert not collapse(one_bad[None], RANDOM).collapsed.any()
    early = np.array([-80, -80, -80, -110, -110, -110, -50, 0, 0, 0.0])
    lost = collapse(early[None], RANDOM)
    assert lost.drawdown[0] > 0.5
    assert not lost.collapsed.any()


def test_a_run_that_was_never_above_random_has_nothing_to_lose():
    lost = collapse(np.array([[-100.0, -120.0, -150.0, -110.0]]), RANDOM)
    assert lost.drawdown.tolist() == [0.0]
    assert not lost.collapsed.any()


def test_shorter_than_the_smoothing():
    assert collapse(np.array([[0.0, -75.0]]), RANDOM).drawdown == pytest.approx([0.0])
