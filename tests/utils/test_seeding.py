"""Random states: what is put back goes on exactly as it would have."""

import random

import numpy as np
import pytest
import torch

from shoal.utils import checkpoint as checkpoints
from shoal.utils.seeding import random_state, seed_everything, set_random_state


def draw():
    """Numbers from every global generator; one Gaussian each leaves their cached halves filled."""
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.random(),
        np.random.standard_normal(),
        torch.rand(()).item(),
        torch.randn(()).item(),
    ]


@pytest.fixture(autouse=True)
def leave_the_generators_alone():
    before = random_state()
    yield
    set_random_state(before)


def test_one_seed_decides_every_generator():
    seed_everything(5)
    first = draw()
    seed_everything(5)
    assert draw() == first
    seed_everything(6)
    assert not set(draw()) & set(first)


@pytest.mark.parametrize("seed", [0, 2**31 - 1, 2**40])
def test_every_seed_is_taken(seed):
    seed_everything(seed)
    assert all(np.isfinite(draw()))


def test_a_state_goes_on_where_it_was():
    seed_everything(5)
    draw()
    state = random_state()
    expected = [draw() for _ in range(3)]
    seed_everything(99)
    set_random_state(state)
    assert [draw() for _ in range(3)] == expected


def test_a_state_survives_a_checkpoint(tmp_path):
    seed_everything(5)
    draw()
    path = checkpoints.save({"random": random_state()}, tmp_path, 1)
    expected = draw()
    set_random_state(checkpoints.load(path)["random"])
    assert draw() == expected


def test_taking_the_state_draws_nothing():
    seed_everything(5)
    expected = draw()
    seed_everything(5)
    random_state()
    assert draw() == expected
