"""A game of one step in which only precise actions pay: who learns it, and who cannot.

Four contexts, two agents; agent i is paid most at its own point m of the box for the context, and half of that at -m.
"""

import pytest
import torch

from shoal.modules.layers.basis import Basis
from support.toy_modes import CORNERS, EVOLUTION, MQ, POINTS, STATIC, greedy_reward, reward


def test_the_game_is_the_published_one() -> None:
    contexts = torch.arange(4)
    corners = torch.stack([reward(contexts, c.expand(4, 2, 2)) for c in CORNERS]).amax(0)  # [contexts, N]
    expected = torch.tensor([[0.0164, 0.0556, 0.0164, 0.0117], [0.0071, 0.0007, 0.0046, 0.0046]])
    torch.testing.assert_close(corners.T, expected, rtol=0, atol=1e-4)
    assert float(corners.mean()) == pytest.approx(0.0146, abs=1e-4)
    assert float(reward(contexts, POINTS.transpose(0, 1)).mean()) == pytest.approx(1.0)
    assert float(reward(contexts, torch.zeros(4, 2, 2)).mean()) == pytest.approx(0.187, abs=1e-3)
    many = torch.randint(4, (100_000,))
    assert float(reward(many, torch.rand(len(many), 2, 2) * 2 - 1).mean()) == pytest.approx(0.189, abs=5e-3)


def test_a_higher_rank_finds_the_modes_better() -> None:
    """Least squares of the true reward on the Legendre basis, and its best point."""
    axis = torch.linspace(-1, 1, 61, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    found = {}
    for rank in (3, 5, 8):
        phi = Basis("legendre", 2, rank)(grid)
        total = 0.0
        for context in range(4):
            r = reward(torch.full((len(grid),), context), grid.float().unsqueeze(1).expand(-1, 2, -1)).double()
            fit = phi @ torch.linalg.lstsq(phi, r).solution  # [points, N]
            total += float(r.gather(0, fit.argmax(0, keepdim=True)).mean()) / 4
        found[rank] = total
    assert found[3] == pytest.approx(0.759, abs=0.03)
    assert found[5] == pytest.approx(0.946, abs=0.03)
    assert found[8] == pytest.approx(0.996, abs=0.03)


@pytest.mark.slow
def test_a_codebook_finds_the_modes() -> None:
    moving = sum(greedy_reward(seed, **MQ) for seed in range(3)) / 3
    assert moving >= 0.93
    assert moving > sum(greedy_reward(seed, **STATIC) for seed in range(3)) / 3 + 0.1


@pytest.mark.slow
def test_evolution_finds_them_too() -> None:
    assert greedy_reward(0, **EVOLUTION) >= 0.88


@pytest.mark.slow
def test_anchored_slots_find_them_too() -> None:
    assert greedy_reward(0, **MQ, mq_copies=0.2) >= 0.85


@pytest.mark.slow
def test_q_functionals_find_them_too() -> None:
    assert greedy_reward(0, updates=1000, mac="qf_mac") >= 0.8


@pytest.mark.slow
def test_corners_cannot() -> None:
    assert greedy_reward(0, discrete=True, updates=300) <= 0.06
