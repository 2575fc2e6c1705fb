"""NaN and infinity in a nested state are found and named."""

import pytest
import torch

from shoal.utils.errors import NonFiniteError
from shoal.utils.finite import non_finite_in, require_finite

BAD = torch.tensor([0.0, float("nan")])
STATE = {
    "agent": {"weight": torch.ones(2), "bias": BAD},
    "steps": torch.tensor([3]),
    "moments": [torch.zeros(1), torch.tensor(-float("inf"))],
    "name": "qmix",
}


def test_the_tensors_are_named_by_their_way_through_the_state():
    assert list(non_finite_in(STATE)) == ["agent.bias", "moments.1"]


def test_a_finite_state_passes():
    require_finite({"agent": torch.ones(2), "steps": 3}, "The checkpoint cannot be loaded")


def test_the_first_tensors_are_in_the_message():
    with pytest.raises(NonFiniteError, match=r"^It is broken: NaN or infinity in m\.0, m\.1, m\.2 and 2 more\.$"):
        require_finite({"m": [BAD] * 5}, "It is broken")
    with pytest.raises(NonFiniteError, match=r"in agent\.bias, moments\.1\.$"):
        require_finite(STATE, "It is broken")
