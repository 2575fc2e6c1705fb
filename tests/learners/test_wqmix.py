"""WQMIX's weights, centrally and optimistically weighted: a worked example."""

import pytest
import torch

from shoal.learners.wqmix import central_weight, optimistic_weight

Y, Q_TOT = torch.full((4,), 5.0), torch.tensor([3.0, 6, 5, 7])
IS_GREEDY, V_GREEDY = torch.tensor([False, False, False, True]), torch.tensor([6.0, 4, 5, 6])


def test_weights_and_losses_of_a_worked_example() -> None:
    optimistic, central = optimistic_weight(Q_TOT, Y, 0.1), central_weight(IS_GREEDY, Y, V_GREEDY, 0.1)
    assert optimistic.tolist() == pytest.approx([1, 0.1, 0.1, 0.1])
    assert central.tolist() == pytest.approx([0.1, 1, 0.1, 1])
    assert [float((w * (Q_TOT - Y) ** 2).mean()) for w in (optimistic, central)] == pytest.approx([1.125, 1.35])


def test_ties_get_the_small_weight() -> None:
    five = torch.tensor([5.0])
    assert optimistic_weight(five, five, 0.1).item() == pytest.approx(0.1)
    assert central_weight(torch.tensor([False]), five, five, 0.1).item() == pytest.approx(0.1)
