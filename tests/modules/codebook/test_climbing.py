"""How a codebook's slots climb: Adam for each slot, without the released code's drift and restart."""

import pytest
import torch
from torch import nn

from shoal.modules.codebook.codebook import Codebook, CodebookSettings

close = torch.testing.assert_close


def one_slot(start: tuple[float, float]) -> Codebook:
    codebook = Codebook(CodebookSettings(mq_k=1), 1, 2)
    codebook.position.copy_(torch.tensor(start))
    return codebook


def test_slots_climb_to_the_peak_of_a_fixed_critic() -> None:
    """-|a - peak|^2, whose gradient is given; both slots win."""
    codebook, peak = Codebook(CodebookSettings(mq_k=2), 1, 2), torch.tensor([0.4, -0.6])
    for _ in range(2000):
        codebook.climb(torch.ones(1, 2, dtype=torch.int64), -2 * (codebook.actions() - peak), 5e-3)
    close(codebook.actions(), peak.expand(1, 2, 2), rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("updates", "drifted"), [(50, (0.79501, -0.49502)), (1000, (0.7029, -0.4047)), (5000, (0.3547, -0.1028))]
)
def test_a_slot_without_a_gradient_does_not_drift(updates: int, drifted: tuple[float, float]) -> None:
    """The released code's weight decay moves it by a whole step of Adam towards the origin, update after update."""
    theirs = nn.Parameter(torch.tensor([0.8, -0.5]))
    optimiser = torch.optim.Adam([theirs], lr=1e-4, weight_decay=1e-5)
    theirs.grad = torch.zeros(2)
    ours = one_slot((0.8, -0.5))
    for _ in range(updates):
        optimiser.step()
        ours.climb(torch.ones(1, 1, dtype=torch.int64), torch.zeros(1, 1, 2), 1e-4)
    close(theirs.data, torch.tensor(drifted), rtol=0, atol=6e-5)
    assert ours.position.flatten().equal(torch.tensor([0.8, -0.5]))


def test_the_first_step_after_a_restart_is_as_long_as_the_first_of_all() -> None:
    theirs = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([theirs], lr=1e-4)
    theirs.grad = torch.ones(1)
    ours, won = one_slot((0.0, 0.0)), torch.ones(1, 1, dtype=torch.int64)

    def climb() -> float:
        before = ours.position.clone()
        slope = 1 / (1 - before.tanh().square())  # a gradient of 1 in front of the tanh
        ours.climb(won, slope, 1e-4)
        return float((ours.position - before)[0, 0, 0]) / 1e-4

    for _ in range(1000):
        optimiser.step()
        climb()
    state, before = optimiser.state[theirs], theirs.item()
    state["exp_avg"].zero_()
    state["exp_avg_sq"].zero_()
    optimiser.step()
    assert (theirs.item() - before) / -1e-4 == pytest.approx(2.515, abs=2e-3)
    ours._restart(torch.ones(1, 1, dtype=torch.bool))
    ours.frozen_for.zero_()
    ours.position.zero_()
    assert climb() == pytest.approx(1.0, abs=1e-5)
