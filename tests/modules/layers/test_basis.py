"""The basis of Q-functionals: order of its terms, Legendre's values, and the other two kinds."""

import math
from typing import get_args

import pytest
import torch

from shoal.modules.layers.basis import Basis, Kind, legendre, multi_indices

close = torch.testing.assert_close


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0.5, [1, 0.5, -0.125, -0.4375, -0.2890625, 0.08984375]),
        (0.3, [1, 0.3, -0.365, -0.3825, 0.0729375, 0.34538625]),
        (-0.5, [1, -0.5, -0.125, 0.4375, -0.2890625, -0.08984375]),
        (0.0, [1, 0, -0.5, 0, 0.375, 0]),
        (1.0, [1, 1, 1, 1, 1, 1]),
        (-1.0, [1, -1, 1, -1, 1, -1]),
    ],
)
def test_legendre_polynomials(x: float, expected: list[float]) -> None:
    close(legendre(torch.tensor(x), 5), torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


def test_legendre_of_the_lowest_ranks() -> None:
    close(legendre(torch.tensor(0.5), 0), torch.tensor([1.0]))
    close(legendre(torch.tensor(0.5), 1), torch.tensor([1.0, 0.5]))


@pytest.mark.parametrize(("dim", "rank", "terms"), [(1, 5, 6), (2, 5, 21), (3, 5, 56), (4, 5, 126), (6, 5, 462)])
def test_number_of_terms(dim: int, rank: int, terms: int) -> None:
    assert len(multi_indices(dim, rank)) == terms
    assert Basis("legendre", dim, rank).n_terms == terms


def test_order_of_terms_is_in_the_checkpoint() -> None:
    order = [[0, 0], [0, 1], [1, 0], [0, 2], [1, 1], [2, 0]]
    assert Basis("legendre", 2, 2).state_dict()["indices"].tolist() == order


def test_two_dimensions() -> None:
    a = torch.tensor([0.5, -0.25])
    close(Basis("legendre", 2, 2)(a), torch.tensor([1, -0.25, 0.5, -0.40625, -0.125, -0.125]), rtol=0, atol=1e-6)
    five = Basis("legendre", 2, 5)(a)
    assert float(five.sum()) == pytest.approx(0.5540771484, abs=1e-6)
    close(five[6:10], torch.tensor([0.3359375, -0.203125, 0.03125, -0.4375]), rtol=0, atol=1e-6)
    corners = Basis("legendre", 2, 5)(torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0]]))
    close(corners.sum(-1), torch.tensor([21.0, 1.0, -3.0]), rtol=0, atol=1e-5)


def test_advantages() -> None:
    c = torch.tensor([0.2, -1, 0.5, 0.8, 0.3, -0.4])
    assert float(c @ Basis("legendre", 2, 2)(torch.tensor([0.5, -0.25]))) == pytest.approx(0.3875, abs=1e-6)
    c = torch.tensor([0, 0.2, -1, 0, 0.5, -0.3])
    a = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).unsqueeze(-1)
    found = Basis("legendre", 1, 5)(a) @ c
    close(found, torch.tensor([-0.4, -0.092578125, 0.6875, 0.053515625, -0.6]), rtol=0, atol=1e-6)
    grid = torch.linspace(-1, 1, 2001).unsqueeze(-1)
    values = Basis("legendre", 1, 5)(grid) @ c
    assert float(values.max()) == pytest.approx(0.69688, abs=1e-5)
    assert float(grid[values.argmax()]) == pytest.approx(-0.051, abs=1e-3)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_actions_are_clamped_to_the_box(kind: Kind) -> None:
    basis = Basis(kind, 2, 3)
    close(basis(torch.tensor([3.0, -7.0])), basis(torch.tensor([1.0, -1.0])))


def test_fourier_and_polynomial() -> None:
    a = torch.tensor([0.5, -0.25])
    powers = torch.tensor([1, -0.25, 0.5, 0.0625, -0.125, 0.25])
    close(Basis("polynomial", 2, 2)(a), powers)
    waves = Basis("fourier", 2, 1)(a)
    phases = torch.tensor([0, -math.pi / 8, math.pi / 4])
    close(waves, torch.cat([phases.sin(), phases.cos()]))


def test_coefficients_can_be_scaled_down_with_their_degree() -> None:
    a = torch.tensor([0.5, -0.25])
    ratio = Basis("legendre", 2, 2, exponent=2.0)(a) / Basis("legendre", 2, 2)(a)
    close(ratio, torch.tensor([1, 1, 1, 0.25, 0.5, 0.25]))
    assert Basis("fourier", 2, 2, exponent=2.0)(a).shape == (12,)
