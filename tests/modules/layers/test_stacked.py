"""M stacked linear layers and MLPs against separate ones."""

import math

import pytest
import torch
from torch import nn

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


def test_mlp_has_a_relu_between_layers_only() -> None:
    mlp = StackedMLP(2, [3, 4, 5])
    first, second = (layer for layer in mlp if isinstance(layer, StackedLinear))
    x = torch.randn(1, 6, 3)
    close(mlp(x), second(first(x).relu()))
    assert (mlp(x) < 0).any()


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
