"""TD(lambda): worked examples, and the scan against plain loops."""

import pytest
import torch
from torch import Tensor

from shoal.components.returns import td_lambda

# Episode A ends at its third step, episode B runs on.
REWARD = torch.tensor([[1.0, 0, 2, 0], [0, 1, 0, 3]])
TERMINATED = torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 0]])
MASK = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1]])
VALUES = torch.tensor([[5.0, 4, 3, 7, 0], [2, 2.5, 3, 3.5, 4]])


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (0.0, [[4.96, 2.97, 2, 0], [2.475, 3.97, 3.465, 6.96]]),
        (0.6, [[3.995344, 2.376, 2, 0], [4.237411, 5.467023, 5.520240, 6.96]]),
        (1.0, [[2.9602, 1.98, 2, 0], [7.743281, 7.821496, 6.8904, 6.96]]),
    ],
)
def test_worked_examples(lam: float, expected: list[list[float]]) -> None:
    y = td_lambda(REWARD, TERMINATED, MASK, VALUES, 0.99, lam)
    torch.testing.assert_close(y, torch.tensor(expected), rtol=0, atol=2e-6)


def test_early_truncation_bootstraps_once_and_ignores_padding() -> None:
    reward, mask = torch.tensor([1.0, 1, 0, 0]), torch.tensor([1.0, 1, 0, 0])
    y = td_lambda(reward, torch.zeros(4), mask, torch.tensor([2.0, 3, 4, 9, 9]), 0.99, 0.6)
    torch.testing.assert_close(y, torch.tensor([5.13424, 4.96, 0, 0]))


def random_episodes(B: int, T: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, ends, masks and values of episodes of random length, some truncated; garbage in the padding."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, T + 1, (B, 1), generator=generator)
    step = torch.arange(T)
    is_true_end = torch.rand(B, 1, generator=generator) < 0.5
    reward = torch.randn(B, T, generator=generator, dtype=torch.float64)
    values = 5 * torch.randn(B, T + 1, generator=generator, dtype=torch.float64)
    return reward, ((step == lengths - 1) & is_true_end).double(), (step < lengths).double(), values


def backwards(reward: Tensor, ended: Tensor, mask: Tensor, values: Tensor, gamma: float, lam: float) -> list[float]:
    """One episode, the textbook way: only its real steps, from the last to the first."""
    length = int(mask.sum())
    y = [0.0] * len(mask)
    for t in reversed(range(length)):
        successor = float(values[t + 1])
        if t + 1 < length:
            successor = (1 - lam) * successor + lam * y[t + 1]
        y[t] = float(reward[t]) + (0.0 if ended[t] else gamma * successor)
    return y


@pytest.mark.parametrize("T", [1, 2, 3, 7, 8, 33])
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_scan_equals_a_backward_loop(T: int, lam: float) -> None:
    reward, ended, mask, values = random_episodes(20, T, seed=T)
    expected = [backwards(*episode, 0.99, lam) for episode in zip(reward, ended, mask, values, strict=True)]
    y = td_lambda(reward, ended, mask, values, 0.99, lam)
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_equals_pymarl2_where_no_episode_is_truncated_early() -> None:
    """PyMARL2's recursion, with its own treatment of the end: G_T = V_T (1 - any end)."""
    reward, ended, mask, values = random_episodes(30, 9, seed=3)
    whole = (ended.sum(1) > 0) | (mask.sum(1) == 9)
    reward, ended, mask, values = reward[whole], ended[whole], mask[whole], values[whole]
    assert whole.sum() > 5
    g, expected = values[:, -1] * (1 - ended.sum(1)), []
    for t in reversed(range(9)):
        g = 0.6 * 0.99 * g + mask[:, t] * (reward[:, t] + 0.4 * 0.99 * values[:, t + 1] * (1 - ended[:, t]))
        expected.append(g)
    y = td_lambda(reward, ended, mask, values, 0.99, 0.6)
    torch.testing.assert_close(y, torch.stack(expected[::-1], 1), rtol=0, atol=1e-12)


def test_values_may_have_more_leading_axes() -> None:
    """Each agent's (or copy's) own bootstrap values on the team's reward."""
    reward, ended, mask, _ = random_episodes(4, 5, seed=0)
    values = torch.randn(3, 4, 6, dtype=torch.float64)
    together = td_lambda(reward, ended, mask, values, 0.99, 0.6)
    apart = torch.stack([td_lambda(reward, ended, mask, v, 0.99, 0.6) for v in values])
    assert together.shape == (3, 4, 5)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-14)


def test_inputs_are_left_alone() -> None:
    inputs = random_episodes(4, 5, seed=0)
    before = [x.clone() for x in inputs]
    td_lambda(*inputs, 0.99, 0.6)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))
