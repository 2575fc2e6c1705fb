"""Stacked layers against PyTorch's own, one module a copy."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from shoal.modules.layers.gru import StackedGRU
from shoal.modules.layers.latent import Decoder, Encoder
from shoal.modules.layers.stacked import StackedLinear, StackedMLP, copy_state_dict

close = torch.testing.assert_close


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_linear_equals_separate_layers(copies: int, shared: bool) -> None:
    stacked = StackedLinear(copies, 5, 4).double()
    x = torch.randn(1 if shared else copies, 7, 5, dtype=torch.float64, requires_grad=True)
    y = stacked(x)
    assert y.shape == (copies, 7, 4)
    y.square().sum().backward()
    grad_x = torch.zeros_like(x)
    for k in range(copies):
        plain = nn.Linear(5, 4).double()
        plain.weight.data, plain.bias.data = stacked.weight.data[k].clone(), stacked.bias.data[k].clone()
        own = x.detach()[0 if shared else k].clone().requires_grad_()
        expected = plain(own)
        expected.square().sum().backward()
        close(y[k], expected, rtol=0, atol=1e-12)
        close(stacked.weight.grad[k], plain.weight.grad, rtol=0, atol=1e-10)
        close(stacked.bias.grad[k], plain.bias.grad, rtol=0, atol=1e-10)
        grad_x[0 if shared else k] += own.grad
    close(x.grad, grad_x, rtol=0, atol=1e-10)


def test_linear_starts_as_pytorchs() -> None:
    """Every slice by its own fan-in, not by the stacked tensor's."""
    stacked = StackedLinear(3, 16, 200)
    bound = 1 / math.sqrt(16)
    plain = nn.Linear(16, 200)
    for slices, own in ((stacked.weight, plain.weight), (stacked.bias, plain.bias)):
        for k in range(3):
            assert 0.95 * bound < slices[k].abs().max() <= bound
            assert slices[k].std().item() == pytest.approx(own.std().item(), rel=0.1)
    assert not torch.equal(stacked.weight[0], stacked.weight[1])


def test_gru_starts_as_pytorchs() -> None:
    stacked = StackedGRU(2, 9, 16)
    bound = 1 / math.sqrt(16)
    for parameter in stacked.parameters():
        for k in range(2):
            assert 0.9 * bound < parameter[k].abs().max() <= bound
        assert not torch.equal(parameter[0], parameter[1])


def test_mlp_has_a_relu_between_layers_only() -> None:
    mlp = StackedMLP(2, [3, 4, 5])
    first, second = (layer for layer in mlp if isinstance(layer, StackedLinear))
    x = torch.randn(1, 6, 3)
    close(mlp(x), second(first(x).relu()))
    assert (mlp(x) < 0).any()


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


def test_copy_state_dict_takes_a_snapshot_of_one_copy() -> None:
    stacked, single = StackedMLP(3, [4, 5, 2]), StackedMLP(1, [4, 5, 2])
    snapshot = copy_state_dict(stacked, 2)
    single.load_state_dict(snapshot)
    x = torch.randn(1, 6, 4)
    close(single(x)[0], stacked(x)[2])
    before = single(x)
    with torch.no_grad():
        stacked[0].weight.zero_()
    assert snapshot["0.weight"].any()
    assert torch.equal(single(x), before)


def test_encoder_decoder_shapes_and_distribution() -> None:
    z = Encoder(history_dim=6, hidden_dim=8, latent_dim=2)(torch.randn(5, 7, 6))
    assert z.shape == (5, 7, 2)
    state_hat, log_p = Decoder(latent_dim=2, hidden_dim=8, state_dim=4, n_candidates=3)(z)
    assert state_hat.shape == (5, 7, 4)
    assert log_p.shape == (5, 7, 3)
    close(log_p.exp().sum(-1), torch.ones(5, 7))
    assert (state_hat < 0).any()  # no ReLU behind the heads
    assert Decoder(latent_dim=2, hidden_dim=8, state_dim=4, n_candidates=0)(z)[1] is None
