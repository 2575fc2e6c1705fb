"""M stacked GRUs against torch.nn.GRU: values, gradients, sequences that end early."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from shoal.modules.layers.gru import StackedGRU

close = torch.testing.assert_close


def test_gru_starts_as_pytorchs() -> None:
    stacked = StackedGRU(2, 9, 16)
    bound = 1 / math.sqrt(16)
    for parameter in stacked.parameters():
        for k in range(2):
            assert 0.9 * bound < parameter[k].abs().max() <= bound
        assert not torch.equal(parameter[0], parameter[1])


def torch_gru(stacked: StackedGRU, k: int) -> nn.GRU:
    """PyTorch's GRU with the parameters of copy ``k``."""
    plain = nn.GRU(stacked.weight_ih.shape[-1], stacked.weight_hh.shape[-1]).to(stacked.weight_ih.dtype)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(plain, f"{name}_l0").data = getattr(stacked, name).data[k].clone()
    return plain


def rows_of(sequence: int, counts: list[int]) -> list[int]:
    """Where the steps of one packed sequence lie."""
    return [sum(counts[:t]) + sequence for t, running in enumerate(counts) if sequence < running]


Unroll = Callable[[StackedGRU, Tensor, Tensor, list[int]], Tensor]
UNROLLS = [StackedGRU.forward, StackedGRU.fused_unroll]


@pytest.mark.parametrize("unroll", UNROLLS)
@pytest.mark.parametrize("counts", [[6], [3, 3, 3, 3], [5, 4, 4, 1, 1], [1, 1]])
@pytest.mark.parametrize("copies", [1, 3])
def test_gru_equals_pytorchs(unroll: Unroll, counts: list[int], copies: int) -> None:
    """Values and every gradient, each sequence run by itself through ``torch.nn.GRU``."""
    stacked = StackedGRU(copies, 4, 3).double()
    P, R = sum(counts), counts[0]
    x = torch.randn(copies, P, 4, dtype=torch.float64, requires_grad=True)
    h = torch.randn(copies, R, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(copies, P, 3, dtype=torch.float64)
    states = unroll(stacked, x, h, counts)
    assert states.shape == (copies, P, 3)
    (states * weight).sum().backward()
    for k in range(copies):
        plain = torch_gru(stacked, k)
        own_x, own_h = x.detach()[k].clone().requires_grad_(), h.detach()[k].clone().requires_grad_()
        for i in range(R):
            rows = rows_of(i, counts)
            expected, _ = plain(own_x[rows], own_h[i : i + 1])
            close(states[k, rows], expected, rtol=0, atol=1e-12)
            (expected * weight[k, rows]).sum().backward()
        close(x.grad[k], own_x.grad, rtol=0, atol=1e-10)
        close(h.grad[k], own_h.grad, rtol=0, atol=1e-10)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            close(getattr(stacked, name).grad[k], getattr(plain, f"{name}_l0").grad, rtol=0, atol=1e-10)


def test_gru_gradients_are_the_numerical_ones() -> None:
    stacked = StackedGRU(2, 2, 3).double()
    names = [name for name, _ in stacked.named_parameters()]
    x = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    h = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)

    def states(x: Tensor, h: Tensor, *parameters: Tensor) -> Tensor:
        own = dict(zip(names, parameters, strict=True))
        out: Tensor = torch.func.functional_call(stacked, own, (x, h, [2, 2, 1]))
        return out

    assert torch.autograd.gradcheck(states, (x, h, *stacked.parameters()))


def test_gru_gradient_from_the_last_state_alone() -> None:
    """A loss on one step sends autograd an expanded, mostly zero gradient."""
    stacked, counts = StackedGRU(2, 4, 3).double(), [6] * 5
    x, h = torch.randn(2, 30, 4).double(), torch.zeros(2, 6, 3).double()
    ours = torch.autograd.grad(stacked(x, h, counts)[:, -6:].sum(), tuple(stacked.parameters()))
    library = stacked.fused_unroll(x, h, counts)[:, -6:]
    for one, other in zip(ours, torch.autograd.grad(library.sum(), tuple(stacked.parameters())), strict=True):
        close(one, other, rtol=0, atol=1e-10)


def test_gru_in_single_precision_and_twice_before_one_backward_pass() -> None:
    stacked, counts = StackedGRU(2, 4, 3), [6, 6, 4]
    x, y, h = torch.randn(2, 16, 4), torch.randn(2, 16, 4), torch.zeros(2, 6, 3)
    ours = torch.autograd.grad((stacked(x, h, counts) * stacked(y, h, counts)).sum(), tuple(stacked.parameters()))
    library = stacked.fused_unroll(x, h, counts) * stacked.fused_unroll(y, h, counts)
    for one, other in zip(ours, torch.autograd.grad(library.sum(), tuple(stacked.parameters())), strict=True):
        close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unroll", UNROLLS)
def test_gru_where_the_last_steps_are_empty(unroll: Unroll) -> None:
    """A batch may be wider than its longest episode."""
    stacked = StackedGRU(2, 4, 3)
    x, h = torch.randn(2, 5, 4), torch.randn(2, 3, 3)
    close(unroll(stacked, x, h, [3, 2, 0, 0]), stacked(x, h, [3, 2]))
