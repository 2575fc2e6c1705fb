"""Exploration: epsilon, the distribution of epsilon-greedy actions, bounded noise."""

import pytest
import torch
from torch import Tensor

from shoal.components.action_selectors import (
    EpsilonGreedy,
    EpsilonGreedySettings,
    GaussianNoise,
    GaussianNoiseSettings,
    greedy,
)


def constant(epsilon: float) -> EpsilonGreedy:
    return EpsilonGreedy(EpsilonGreedySettings(epsilon_start=epsilon, epsilon_finish=epsilon))


def all_available(values: Tensor) -> Tensor:
    return torch.ones_like(values, dtype=torch.bool)


@pytest.mark.parametrize(
    ("anneal", "expected"),
    [
        (50_000, {0: 1.0, 25_000: 0.525, 50_000: 0.05, 60_000: 0.05}),
        (100_000, {0: 1.0, 50_000: 0.525, 100_000: 0.05, 200_000: 0.05}),
        (500_000, {0: 1.0, 100_000: 0.81, 250_000: 0.525, 500_000: 0.05}),
    ],
)
def test_epsilon_anneals_linearly(anneal: int, expected: dict[int, float]) -> None:
    """With the annealing times of S2Q (100,000 and 500,000 steps) and CADP (50,000)."""
    selector = EpsilonGreedy(EpsilonGreedySettings(epsilon_anneal_time=anneal))
    assert {t: selector.epsilon(t) for t in expected} == pytest.approx(expected)
    assert selector.metrics(0) == {"epsilon": 1.0}
    assert selector.epsilon(0, test_mode=True) == 0.0


def test_joint_exploration_law() -> None:
    """Why epsilon-greedy alone seldom leaves a joint action in two agents at once."""
    draws = 400_000
    values = torch.zeros(draws, 2, 3)
    values[..., 0] = 1.0
    actions = constant(0.05).select(values, all_available(values), 0, test_mode=False)
    share = torch.bincount(actions[:, 0] * 3 + actions[:, 1], minlength=9) / draws
    one, two = 0.016111, 0.000278
    expected = torch.tensor([0.934444, one, one, one, two, two, one, two, two])
    assert ((share - expected).abs() < 5 * (expected * (1 - expected) / draws).sqrt()).all()


def test_no_value_is_so_low_that_an_unavailable_action_is_better() -> None:
    values, avail = torch.tensor([[0.0, -1e30, -2e30]]), torch.tensor([[False, True, True]])
    assert greedy(values, avail).tolist() == [1]
    assert greedy(values, torch.zeros_like(avail)).tolist() == [0]  # where nothing is available: the first


def test_random_actions_are_uniform_over_the_available_ones() -> None:
    values = torch.randn(60_000, 1, 4)
    avail = torch.tensor([True, False, True, True]).expand_as(values)
    actions = constant(1.0).select(values, avail, 0, test_mode=False)
    share = torch.bincount(actions.flatten(), minlength=4) / 60_000
    assert share[1] == 0
    assert ((share[[0, 2, 3]] - 1 / 3).abs() < 0.01).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_unavailable_actions_are_never_taken(epsilon: float) -> None:
    values = torch.randn(500, 3, 5)
    avail = torch.rand(500, 3, 5) < 0.5
    avail[..., 2] |= ~avail.any(-1)
    values = values.masked_fill(~avail, 1e5)
    actions = constant(epsilon).select(values, avail, 0, test_mode=False)
    assert actions.dtype == torch.int64
    assert avail.gather(-1, actions.unsqueeze(-1)).all()


def test_greedy_takes_the_best_available_even_where_all_are_bad() -> None:
    values = torch.tensor([[-1e6, -2e6, 7.0], [1.0, 3.0, 2.0]])
    avail = torch.tensor([[True, True, False], [True, True, True]])
    before = values.clone()
    assert greedy(values, avail).tolist() == [0, 1]
    assert torch.equal(values, before)


def test_tests_are_greedy_unless_asked_otherwise() -> None:
    values = torch.randn(2000, 2, 3)
    avail = all_available(values)
    exploring = EpsilonGreedySettings(epsilon_finish=1.0)
    assert torch.equal(EpsilonGreedy(exploring).select(values, avail, 0, True), values.argmax(-1))
    noisy_test = EpsilonGreedy(EpsilonGreedySettings(epsilon_start=0, epsilon_finish=0, evaluation_epsilon=0.3))
    other = (noisy_test.select(values, avail, 0, True) != values.argmax(-1)).float().mean()
    assert 0.15 < other < 0.25  # 0.3 times the two other actions of three


def test_gaussian_noise_is_bounded_and_off_in_tests() -> None:
    selector = GaussianNoise(GaussianNoiseSettings(act_noise=0.1))
    values = torch.zeros(20_000, 1, 2)
    acted = selector.select(values, None, 0, test_mode=False)
    assert acted.std().item() == pytest.approx(0.1, rel=0.03)
    assert acted.mean().abs() < 0.005
    edge = selector.select(values + 0.99, None, 0, test_mode=False)
    assert edge.max() == 1.0
    assert edge.min() < 0.9
    assert selector.select(values - 3.0, None, 0, test_mode=True).unique().tolist() == [-1.0]
    assert torch.equal(selector.select(values + 0.4, None, 0, test_mode=True), values + 0.4)
    assert selector.metrics(0) == {"act_noise": 0.1}
