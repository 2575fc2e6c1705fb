"""Gated recurrent units over whole, packed sequences, for M independent copies.

On a GPU, PyTorch's own sequence kernel (cuDNN) unrolls each copy in one call. On a CPU that kernel spends most of a
training step on autograd's bookkeeping and on memory: the unroll below has its backward pass written by hand, works in
place, and runs all copies in one call. The maths is the same; ``tests/modules/layers/test_gru.py`` holds them together
and ``benchmarks/training_step.py`` measures them.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class StackedGRU(nn.Module):
    """M independent single-layer GRUs, with the parameters and equations of ``torch.nn.GRU``.

    Sequences are packed: rows of all first steps, then of all second steps, ..., ``counts[t]`` rows at step t, never
    more than at the step before. Row i of a step continues row i of the one before.

    Shapes: input ``[M, P, in_features]`` with P = sum(counts), initial state ``[M, counts[0], H]`` -> states after
    every step ``[M, P, H]``. All parameters start uniform in +-1/sqrt(H). Gates are in PyTorch's order: reset, update,
    new.
    """

    def __init__(self, copies: int, in_features: int, hidden_dim: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(hidden_dim)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(copies, *shape).uniform_(-bound, bound))

        self.weight_ih = parameter(3 * hidden_dim, in_features)
        self.weight_hh = parameter(3 * hidden_dim, hidden_dim)
        self.bias_ih = parameter(3 * hidden_dim)
        self.bias_hh = parameter(3 * hidden_dim)

    def forward(self, x: Tensor, h: Tensor, counts: list[int]) -> Tensor:
        if x.is_cuda:
            return self.fused_unroll(x, h, counts)
        parameters = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        states: Tensor = _Unroll.apply(x, h, *parameters, counts)
        return states

    def fused_unroll(self, x: Tensor, h: Tensor, counts: list[int]) -> Tensor:
        """The same through one call of PyTorch's GRU for each copy."""
        outputs = []
        for k in range(x.shape[0]):
            weights = [self.weight_ih[k], self.weight_hh[k], self.bias_ih[k], self.bias_hh[k]]
            output, _ = torch.gru(
                x[k],
                torch.tensor(counts),
                h[k : k + 1].contiguous(),
                weights,
                has_biases=True,
                num_layers=1,
                dropout=0.0,
                train=self.training,
                bidirectional=False,
            )
            outputs.append(output)
        return torch.stack(outputs)


class _Unroll(torch.autograd.Function):
    """r = s(W_ir x + b_ir + W_hr h + b_hr), z likewise, m = W_hn h + b_hn, n = tanh(W_in x + b_in + r m),
    h' = n + z (h - n).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
        counts: list[int],
    ) -> Tensor:
        M, P, _ = x.shape
        H = weight_hh.shape[-1]
        states, n, m = (x.new_empty(M, P, H) for _ in range(3))
        rz = x.new_empty(M, P, 2 * H)
        bias_rz, bias_n, bias_m = (
            (bias_ih + bias_hh)[:, None, : 2 * H],
            bias_ih[:, None, 2 * H :],
            bias_hh[:, None, 2 * H :],
        )
        x_to_rz, x_to_n = weight_ih.mT.split([2 * H, H], dim=-1)
        h_to_rz, h_to_n = weight_hh.mT.split([2 * H, H], dim=-1)
        h = h0
        for rows, inputs, gates, new, hidden, state in zip(
            counts, *(tensor.split(counts, dim=1) for tensor in (x, rz, n, m, states)), strict=True
        ):
            h = h[:, :rows]
            torch.baddbmm(bias_rz, inputs, x_to_rz, out=gates).baddbmm_(h, h_to_rz).sigmoid_()
            torch.baddbmm(bias_m, h, h_to_n, out=hidden)
            torch.baddbmm(bias_n, inputs, x_to_n, out=new).addcmul_(gates[..., :H], hidden).tanh_()
            h = torch.lerp(new, h, gates[..., H:], out=state)
        ctx.save_for_backward(x, h0, weight_ih, weight_hh, states, rz, n, m)
        ctx.counts = counts
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        x, h0, weight_ih, weight_hh, states, rz, n, m = ctx.saved_tensors
        counts: list[int] = ctx.counts
        M, R, H = h0.shape
        grad_x, grad_h0 = torch.empty_like(x), torch.zeros_like(h0)
        grad_weight_ih, grad_weight_hh = torch.zeros_like(weight_ih), torch.zeros_like(weight_hh)
        grad_bias_ih, grad_bias_hh = x.new_zeros(M, 3 * H), x.new_zeros(M, 3 * H)
        into_tanh = torch.ops.aten.tanh_backward.grad_input
        into_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
        # One step's gradients before the nonlinearities: input side, recurrent side (where n's is times r).
        buffers = [x.new_empty(M, R, width) for width in (3 * H, 3 * H, H, H)]
        before = [h0, *states.split(counts, dim=1)[:-1]]
        tensors = (grad_states, x, grad_x, n, m, rz)
        each = list(zip(counts, before, *(tensor.split(counts, dim=1) for tensor in tensors), strict=True))
        for rows, previous, grad, inputs, grad_inputs, new, hidden, gates in reversed(each):
            h, grad_h, r, z = previous[:, :rows], grad_h0[:, :rows], gates[..., :H], gates[..., H:]
            on_x, on_h, through, part = (buffer[:, :rows] for buffer in buffers)
            d_r, d_z, d_n = on_x.split(H, dim=-1)
            grad_h.add_(grad)
            torch.mul(grad_h, z, out=through)
            torch.sub(grad_h, through, out=part)
            into_tanh(part, new, grad_input=d_n)
            torch.mul(d_n, hidden, out=part)
            into_sigmoid(part, r, grad_input=d_r)
            torch.sub(h, new, out=part).mul_(grad_h)
            into_sigmoid(part, z, grad_input=d_z)
            on_h.copy_(on_x)
            on_h[..., 2 * H :].mul_(r)
            torch.baddbmm(through, on_h, weight_hh, out=grad_h)
            torch.bmm(on_x, weight_ih, out=grad_inputs)
            grad_weight_ih.baddbmm_(on_x.mT, inputs)
            grad_weight_hh.baddbmm_(on_h.mT, h)
            grad_bias_ih.add_(on_x.sum(1))
            grad_bias_hh[:, 2 * H :].add_(on_h[..., 2 * H :].sum(1))
        grad_bias_hh[:, : 2 * H] = grad_bias_ih[:, : 2 * H]
        return grad_x, grad_h0, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh, None
