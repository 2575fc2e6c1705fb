"""Layers that hold several independent copies of themselves and run them in one call.

S2Q trains K+1 copies of every utility and mixing network. Each parameter here has a leading axis M, one
slice a copy, so that the copies cost one batched matrix product instead of M Python calls. A plain network
is the case M = 1. Tensors carry the copies in front: ``[M, rows, features]``; an input with a leading axis of 1
is shared by all copies.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """M independent linear layers.

    Every slice starts as ``torch.nn.Linear`` does: weights and biases (if any) uniform in +-1/sqrt(in_features).

    Shapes: ``[M or 1, R, in_features] -> [M, R, out_features]``.
    """

    def __init__(self, copies: int, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(in_features)
        self.copies = copies
        self.bias: nn.Parameter | None = None
        self.weight = nn.Parameter(torch.empty(copies, out_features, in_features).uniform_(-bound, bound))
        if bias:
            self.bias = nn.Parameter(torch.empty(copies, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        if self.copies == 1:
            return nn.functional.linear(x, self.weight[0], None if self.bias is None else self.bias[0])
        x = x.expand(self.copies, -1, -1)
        if self.bias is None:
            return x @ self.weight.mT
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)


class StackedMLP(nn.Sequential):
    """M independent multilayer perceptrons with a ReLU between layers.

    ``sizes`` lists the widths from input to output. Shapes: ``[M or 1, R, sizes[0]] -> [M, R, sizes[-1]]``.
    """

    def __init__(self, copies: int, sizes: list[int]) -> None:
        layers: list[nn.Module] = []
        for in_features, out_features in pairwise(sizes):
            layers += [StackedLinear(copies, in_features, out_features), nn.ReLU()]
        super().__init__(*layers[:-1])
        self.copies = copies


def copy_state_dict(module: Any, k: int) -> dict[str, Tensor]:
    """State dict of copy ``k`` alone: loads into the same module with M = 1.

    A parameter's leading axis holds ``module.copies`` equal parts, longer than 1 where a copy has several heads.
    """
    parts = {name: tensor.chunk(module.copies) for name, tensor in module.state_dict().items()}
    return {name: chunks[k].detach().clone() for name, chunks in parts.items()}
