"""What counts as a number in an environment's info."""

import numpy as np
import pytest
import torch

from shoal.envs.reading import number_in
from shoal.envs.team import EPISODE_FAILED, plain_numbers

NUMBERS = [
    (True, 1),
    (3, 3),
    (2.5, 2.5),
    (np.True_, 1),
    (np.float32(2.5), 2.5),
    (np.longdouble(2.5), 2.5),
    (np.array(True), 1),
    (np.array(3.0), 3.0),
    (np.array(3, dtype=np.uint8), 3),
    (torch.tensor(1.0), 1.0),
    (torch.tensor(True), 1),
    (torch.tensor(2.5, dtype=torch.bfloat16, requires_grad=True), 2.5),
]
OTHERS = [
    None,
    "3",
    1j,
    10**400,
    np.array([3.0]),
    np.array("3"),
    np.array(None),
    np.array(1j),
    np.timedelta64(5, "ns"),
    torch.ones(1),
    {"a": 1},
    [1],
]


@pytest.mark.parametrize(("value", "number"), NUMBERS)
def test_whatever_holds_one_number_is_that_number(value, number):
    read = number_in(value)
    assert read == number
    assert type(read) is (float if isinstance(number, float) else int)


@pytest.mark.parametrize("value", OTHERS)
def test_anything_else_is_none(value):
    assert number_in(value) is None


def test_jax_arrays_of_one_number():
    jnp = pytest.importorskip("jax.numpy")
    assert number_in(jnp.array(True)) == 1
    assert number_in(jnp.array(2.5)) == 2.5
    assert number_in(jnp.ones(1)) is None


def test_an_info_keeps_what_can_be_averaged():
    info = {"battle_won": np.array(True), 7: torch.tensor(2.0), "words": "none", EPISODE_FAILED: 1}
    assert plain_numbers(info) == {"battle_won": 1, "7": 2.0}
