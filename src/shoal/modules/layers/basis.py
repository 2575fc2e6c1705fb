"""Fixed functions of an action, by which a Q-functional describes a value: A(a) = sum_q c_q phi_q(a)."""

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["legendre", "fourier", "polynomial"]


def multi_indices(dim: int, rank: int) -> list[tuple[int, ...]]:
    """All q in N^dim with a sum of at most ``rank``, by their sum, then lexicographically."""
    within = (q for q in itertools.product(range(rank + 1), repeat=dim) if sum(q) <= rank)
    return sorted(within, key=lambda q: (sum(q), q))


def legendre(x: Tensor, rank: int) -> Tensor:
    """P_0 to P_rank: ``[...] -> [..., rank + 1]``, by k P_k = (2k - 1) x P_{k-1} - (k - 1) P_{k-2}."""
    terms = [torch.ones_like(x), x]
    for k in range(2, rank + 1):
        terms.append(((2 * k - 1) * x * terms[-1] - (k - 1) * terms[-2]) / k)
    return torch.stack(terms[: rank + 1], dim=-1)


class Basis(nn.Module):
    """phi of Q-functionals (Lobel et al. 2023) on [-1, 1]^d.

    * ``legendre``: products of Legendre polynomials, one for each multi-index.
    * ``polynomial``: products of powers.
    * ``fourier``: sine and cosine of pi/2 q.a (2 is the width of the box), so twice as many terms.

    ``exponent`` p divides the term of q by |q|^p. Actions are clamped to the box.
    """

    def __init__(self, kind: Kind, dim: int, rank: int, exponent: float = 0.0) -> None:
        super().__init__()
        self.kind, self.rank = kind, rank
        indices = torch.tensor(multi_indices(dim, rank))  # [J, d]
        self.register_buffer("indices", indices)  # the checkpoint says which coefficient is which
        self.indices: Tensor
        length = indices.double().norm(dim=1)
        scale = length.where(length > 0, 1.0).pow(-exponent).float()
        self.register_buffer("scale", scale.repeat(2) if kind == "fourier" else scale, persistent=False)
        self.scale: Tensor
        self.n_terms = len(self.scale)

    def forward(self, actions: Tensor) -> Tensor:
        """Shapes: ``[..., d] -> [..., J]``."""
        a = actions.clamp(-1.0, 1.0)
        if self.kind == "fourier":
            phase = math.pi / 2 * a @ self.indices.to(a.dtype).mT  # [..., J]
            return torch.cat([phase.sin(), phase.cos()], dim=-1) * self.scale
        if self.kind == "legendre":
            factors = legendre(a, self.rank)  # [..., d, R + 1]
        else:
            factors = a.unsqueeze(-1) ** torch.arange(self.rank + 1, device=a.device)
        terms = torch.ones((), dtype=a.dtype, device=a.device)
        for j, degrees in enumerate(self.indices.mT):  # one factor a dimension
            terms = terms * factors[..., j, :].index_select(-1, degrees)
        return terms * self.scale
