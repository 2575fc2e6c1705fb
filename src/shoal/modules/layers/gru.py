"""Gated recurrent units over whole sequences, for M independent copies.

On a GPU, PyTorch's own sequence kernel (cuDNN) unrolls each copy in one call. On a CPU that kernel spends most of a
training step on autograd's bookkeeping and on memory: the unroll below has its backward pass written by hand, works in
place on rows that stay in the cache, and forms each weight gradient as one large product over all steps. The maths is
the same; ``tests/modules/test_layers.py`` holds them together and ``benchmarks/training_step.py`` measures them.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class StackedGRU(nn.Module):
    """M independent single-layer GRUs, with the parameters and equations of ``torch.nn.GRU``.

    Shapes: input ``[M, T, R, in_features]``, initial state ``[M, R, H]`` -> states after every step ``[M, T, R, H]``.
    All parameters start uniform in +-1/sqrt(H). Gates are ordered reset, update, new as in PyTorch.
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

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        if x.is_cuda:
            return self.library_unroll(x, h)
        states: Tensor = _Unroll.apply(x, h, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return states

    def library_unroll(self, x: Tensor, h: Tensor) -> Tensor:
        """The same through one call of PyTorch's GRU for each copy."""
        outputs = []
        for k in range(x.shape[0]):
            weights = [self.weight_ih[k], self.weight_hh[k], self.bias_ih[k], self.bias_hh[k]]
            output, _ = torch.gru(
                x[k],
                h[k : k + 1].contiguous(),
                weights,
                has_biases=True,
                num_layers=1,
                dropout=0.0,
                train=self.training,
                bidirectional=False,
                batch_first=False,
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
    ) -> Tensor:
        M, T, R, _ = x.shape
        H = weight_hh.shape[-1]
        states = x.new_empty(M, T + 1, R, H)
        states[:, 0] = h0
        rz, n, m = x.new_empty(M, T, R, 2 * H), x.new_empty(M, T, R, H), x.new_empty(M, T, R, H)
        bias_rz = (bias_ih + bias_hh)[:, : 2 * H]
        for k in range(M):
            x_to_rz, x_to_n = weight_ih[k, : 2 * H].mT, weight_ih[k, 2 * H :].mT
            h_to_rz, h_to_n = weight_hh[k, : 2 * H].mT, weight_hh[k, 2 * H :].mT
            bias_n, bias_m = bias_ih[k, 2 * H :], bias_hh[k, 2 * H :]
            steps = states[k].unbind()
            r, z = rz[k, ..., :H].unbind(), rz[k, ..., H:].unbind()
            each = zip(x[k].unbind(), rz[k].unbind(), n[k].unbind(), m[k].unbind(), strict=True)
            for t, (inputs, gates, new, hidden) in enumerate(each):
                h = steps[t]
                torch.addmm(bias_rz[k], inputs, x_to_rz, out=gates).addmm_(h, h_to_rz).sigmoid_()
                torch.addmm(bias_m, h, h_to_n, out=hidden)
                torch.addmm(bias_n, inputs, x_to_n, out=new).addcmul_(r[t], hidden).tanh_()
                torch.lerp(new, h, z[t], out=steps[t + 1])
        ctx.save_for_backward(x, weight_ih, weight_hh, states, rz, n, m)
        return states[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, states, rz, n, m = ctx.saved_tensors
        M, _, R, H = n.shape
        grad_x, grad_h0 = torch.empty_like(x), x.new_empty(M, R, H)
        grad_weight_ih, grad_weight_hh = torch.zeros_like(weight_ih), torch.zeros_like(weight_hh)
        grad_bias_ih, grad_bias_hh = x.new_zeros(M, 3 * H), x.new_zeros(M, 3 * H)
        into_tanh = torch.ops.aten.tanh_backward.grad_input
        into_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
        # One step's gradients before the nonlinearities: input side, recurrent side (where n's is times r).
        on_x, on_h = x.new_empty(R, 3 * H), x.new_empty(R, 3 * H)
        d_r, d_z, d_n = on_x.split(H, dim=1)
        through, part = x.new_empty(R, H), x.new_empty(R, H)
        for k in range(M):
            grad_h = torch.zeros_like(through)
            steps = zip(
                grad_states[k].unbind(), states[k].unbind()[:-1], x[k].unbind(), grad_x[k].unbind(),
                n[k].unbind(), m[k].unbind(), rz[k, ..., :H].unbind(), rz[k, ..., H:].unbind(), strict=True,
            )  # fmt: skip
            for grad, h, inputs, grad_inputs, new, hidden, r, z in reversed(list(steps)):
                grad_h.add_(grad)
                torch.mul(grad_h, z, out=through)
                torch.sub(grad_h, through, out=part)
                into_tanh(part, new, grad_input=d_n)
                torch.mul(d_n, hidden, out=part)
                into_sigmoid(part, r, grad_input=d_r)
                torch.sub(h, new, out=part).mul_(grad_h)
                into_sigmoid(part, z, grad_input=d_z)
                on_h.copy_(on_x)
                on_h[:, 2 * H :].mul_(r)
                torch.addmm(through, on_h, weight_hh[k], out=grad_h)
                torch.mm(on_x, weight_ih[k], out=grad_inputs)
                grad_weight_ih[k].addmm_(on_x.mT, inputs)
                grad_weight_hh[k].addmm_(on_h.mT, h)
                grad_bias_ih[k].add_(on_x.sum(0))
                grad_bias_hh[k, 2 * H :].add_(on_h[:, 2 * H :].sum(0))
            grad_h0[k] = grad_h
        grad_bias_hh[:, : 2 * H] = grad_bias_ih[:, : 2 * H]
        return grad_x, grad_h0, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh
