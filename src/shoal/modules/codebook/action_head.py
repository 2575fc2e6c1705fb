"""The advantage of an action vector, for many candidate vectors at once.

    A(h, a) = w . ReLU(W_h h + b + W_u a) + c

is Linear(H + d -> H), ReLU, Linear(H -> 1) with its first layer split: the agent's network makes W_h h + b once for a
state (its outputs), W_u a is computed once for a candidate, and a table of all pairs costs a maximum and a product:

    ReLU(x + y) = max(x, -y) + y

is one pass over the pairs where a sum and a ReLU are two, and w . y is one number a candidate. Blocks of states are
small enough for their pairs to stay in the processor's cache (``benchmarks/lan_step.py --chunk``).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shoal.modules.layers.stacked import StackedLinear

LANES = 16
"""Numbers that a processor handles at once: tables are as wide as a multiple of it."""
STRETCH = 1024
"""States whose table is kept whole."""


@dataclass(frozen=True)
class Ascent:
    """Which candidates won, and where they want to go."""

    wins: Tensor
    """States in which each candidate was among the winners: int64 ``[N, K]``."""
    gradient: Tensor
    """Of the mean advantage over an agent's states and winners, with respect to the candidates: ``[N, K, d]``."""


class ActionHead(nn.Module):
    """M heads side by side. "States" are the agents' outputs W_h h + b, ``[M, P, N, W]``."""

    def __init__(self, copies: int, hidden_dim: int, width: int, action_dim: int) -> None:
        super().__init__()
        self.copies, self.width = copies, width
        self.action = StackedLinear(copies, action_dim, width, bias=False)
        bound = 1.0 / math.sqrt(hidden_dim + action_dim)  # as a part of the layer that reads both
        nn.init.uniform_(self.action.weight, -bound, bound)
        self.out = StackedLinear(copies, width, 1)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Advantages of one action each: states ``[M, P, N, W]``, actions ``[P, N, d]`` -> ``[M, P, N]``."""
        M, P, N, W = states.shape
        part = self.action(actions.reshape(1, P * N, -1)).view(M, P, N, W)
        value: Tensor = self.out((states + part).relu().view(M, P * N, W)).view(M, P, N)
        return value

    @torch.no_grad()
    def table(self, states: Tensor, candidates: Tensor, k: int = 0) -> Tensor:
        """Head k's advantages of all candidates: states ``[P, N, W]``, candidates ``[N, K, d]`` -> ``[P, N, K]``."""
        pairs = states.unsqueeze(2) + self._parts(candidates, k)
        return pairs.relu_() @ self.out.weight[k, 0] + self._bias(k)

    @torch.no_grad()
    def max_min(self, states: Tensor, candidates: Tensor, block: int) -> Tensor:
        """Maximum over the candidates of the minimum over the heads: ``[M, P, N, W]``, ``[N, K, d]`` -> ``[P, N]``."""
        best = states.new_empty(states.shape[1:3])
        tables = [self._blocks(states[k], candidates, k, block) for k in range(self.copies)]
        for blocks in zip(*tables, strict=True):
            rows, least = blocks[0]
            for _, other in blocks[1:]:
                least = torch.minimum(least, other)
            torch.amax(least, -1, out=best[rows])
        return best

    @torch.no_grad()
    def ascend(self, states: Tensor, candidates: Tensor, n_winners: int, counted: Tensor, block: int) -> Ascent:
        """How head 0 would move the best candidates of each state.

        The gradient of a ReLU layer needs no second pass: for a candidate it is W_u' (w * s), where s counts the
        states won in which each hidden unit is active.

        Args:
            states: ``[P, N, W]``, taken as constants.
            candidates: ``[N, K, d]``.
            n_winners: the best candidates of a state, that many, move.
            counted: whose states count, bool ``[P, N]``.
            block: rows whose pairs are computed together, a row a state of one agent.
        """
        N, K, _ = candidates.shape
        n_winners = min(n_winners, K)
        # One row more an agent takes what does not count.
        active = states.new_zeros(N * (K + 1), self.width)
        wins = torch.zeros(N * (K + 1), dtype=torch.int64, device=states.device)
        first = torch.arange(N, device=states.device).view(1, N, 1) * (K + 1)
        parts = nn.functional.pad(self._parts(candidates, 0), (0, 0, 0, 1)).flatten(0, 1)  # [N * (K + 1), W]
        for rows, scores in self._blocks(states, candidates, 0, block):
            top = scores.topk(n_winners, dim=-1, sorted=False).indices  # [c, N, k]
            row = (top.masked_fill_(~counted[rows].unsqueeze(-1), K) + first).flatten()
            pairs = parts.index_select(0, row).view(*top.shape, -1)  # [c, N, k, W]
            pairs += states[rows].unsqueeze(2)
            active.index_add_(0, row, (pairs > 0).to(states.dtype).flatten(0, 2))
            wins += torch.bincount(row, minlength=len(wins))
        per_slot = active.view(N, K + 1, -1)[:, :K] * self.out.weight[0, 0]
        share = counted.sum(0).clamp_min(1).view(N, 1, 1) * n_winners
        return Ascent(wins.view(N, K + 1)[:, :K], per_slot @ self.action.weight[0] / share)

    def _parts(self, candidates: Tensor, k: int) -> Tensor:
        return candidates @ self.action.weight[k].mT  # [N, K, W]

    def _bias(self, k: int) -> Tensor:
        assert self.out.bias is not None
        return self.out.bias[k]

    def _blocks(self, states: Tensor, candidates: Tensor, k: int, block: int) -> Iterator[tuple[slice, Tensor]]:
        """Head k's table ``[c, N, K]`` for one stretch of states after the other, made block by block."""
        P, N, W = states.shape
        K = candidates.shape[1]
        parts, weight = self._parts(candidates, k), self.out.weight[k, 0]
        rest = parts @ weight + self._bias(k)  # [N, K]
        less = nn.functional.pad(-parts.mT, (0, -K % LANES))  # [N, W, K and some]
        size = max(1, block // N)
        pairs, weights = states.new_empty(size * N, *less.shape[1:]), weight.expand(size * N, 1, W)
        for start in range(0, P, STRETCH):
            stretch = states[start : start + STRETCH].unsqueeze(-1)
            table = states.new_empty(len(stretch) * N, 1, less.shape[2])
            for first in range(0, len(stretch), size):
                rows = stretch[first : first + size]
                here = pairs[: len(rows) * N]
                torch.maximum(rows, less, out=here.view(-1, *less.shape))
                torch.bmm(weights[: len(here)], here, out=table[first * N : first * N + len(here)])
            yield slice(start, start + len(stretch)), table.view(-1, N, less.shape[2])[..., :K] + rest
