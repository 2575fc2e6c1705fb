"""MQ-LAN's codebooks: action vectors that move, win, starve, clash and start again somewhere else.

Source: CTDE^2 (the MovingQ algorithm). Every agent has a codebook of K slots, or all agents share one. Everything that
decides what becomes of a slot is a buffer, so that a checkpoint holds all of it.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from shoal.declare import Checked, Range
from shoal.modules.codebook.pruning import clashes, greedy_losers, maximin, pairwise_losers
from shoal.utils.errors import UserError

EDGE = 0.999
"""The largest coordinate at which a slot starts: a slot is the tanh of its position, which must be finite."""
BETAS, EPS = (0.9, 0.999), 1e-8
"""Adam's, for the slots."""


@dataclass(frozen=True)
class CodebookSettings(Checked):
    mq_k: Annotated[int, "slots per codebook", Range(1)] = 100
    mq_codebook: Annotated[Literal["per_agent", "shared"], "one codebook per agent, or one shared by the team"] = (
        "per_agent"
    )
    mq_init: Annotated[
        Literal["action", "preact"],
        "initial slots: uniform in the action box (action), or before the tanh (preact, the released code: "
        "none beyond 0.762)",
    ] = "action"
    mq_grad: Annotated[bool, "move winning slots along the critic's gradient"] = True
    mq_proximity: Annotated[bool, "prune slots that clash, keeping the more useful ones"] = True
    mq_starvation: Annotated[bool, "place slots anew that no longer win"] = True
    mq_manage_interval: Annotated[int, "updates between two rounds of pruning", Range(1)] = 50
    mq_manage_until: Annotated[float, "fraction of t_max after which pruning stops", Range(0, 1)] = 0.9
    mq_clash: Annotated[float, "distance below which two slots clash", Range(0)] = 0.05
    mq_prune_rule: Annotated[
        Literal["greedy", "pairwise"],
        "which clashing slots go: all that clash with a kept one (greedy), or the worse of each pair "
        "(pairwise, the released code)",
    ] = "greedy"
    mq_utility: Annotated[
        Literal["window", "ema"],
        "usefulness of a slot: greedy picks since the last round (window), or with earlier ones discounted by"
        " 0.9 (ema)",
    ] = "window"
    mq_starve_after: Annotated[int, "updates without a win after which a slot is placed anew", Range(0)] = 20
    mq_freeze: Annotated[int, "updates during which a new slot is neither moved nor pruned", Range(0)] = 50
    mq_spawn: Annotated[
        Literal["maximin", "random"], "where new slots are placed: in the largest gaps (maximin), or at random"
    ] = "maximin"
    mq_candidates: Annotated[int, "candidates drawn for each slot that is placed anew by maximin", Range(1)] = 20
    mq_copies: Annotated[
        float,
        "stabilised variant: fraction of slots of which a copy explores while the original stays; 0: the "
        "slots themselves move",
        Range(0, 1),
    ] = 0.0
    mq_copy_life: Annotated[
        int, "updates after which a copy that is still close to its original is dropped", Range(1)
    ] = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mq_copies and not self.mq_grad:
            raise UserError("mq_copies needs mq_grad=True: copies explore along the gradient.")


@dataclass
class Round:
    """What one round of pruning did, bool ``[G, K]`` each."""

    starved: Tensor
    clashing: Tensor
    reset: Tensor
    """Slots that have new positions."""


class FrozenCodebook(nn.Module):
    """What is executed: the slots' actions, and which of them an agent may choose."""

    def __init__(self, n_agents: int, k: int, action_dim: int) -> None:
        super().__init__()
        self.register_buffer("slots", torch.zeros(n_agents, k, action_dim))
        self.register_buffer("open", torch.ones(n_agents, k, dtype=torch.bool))
        self.slots: Tensor
        self.open: Tensor

    def actions(self) -> Tensor:
        """``[N, K, d]`` in [-1, 1]."""
        return self.slots

    def eligible(self) -> Tensor:
        """Which slots a test may choose: bool ``[N, K]``."""
        return self.open


class Codebook(nn.Module):
    """G codebooks (one an agent, or one for all) of K slots u = tanh(position)."""

    def __init__(self, settings: CodebookSettings, n_agents: int, action_dim: int) -> None:
        super().__init__()
        self.settings, self.n_agents = settings, n_agents
        G, K = (n_agents if settings.mq_codebook == "per_agent" else 1), settings.mq_k
        start = torch.empty(G, K, action_dim).uniform_(-1.0, 1.0)
        self._buffer("position", to_position(start) if settings.mq_init == "action" else start)
        self._buffer("mean", torch.zeros_like(start))  # Adam's moments
        self._buffer("square", torch.zeros_like(start))
        self._buffer("moves", torch.zeros(G, K, dtype=torch.int64))  # since the slot started
        self._buffer("usage", torch.zeros(G, K, dtype=torch.int64))  # greedy picks since the last round
        self._buffer("utility", torch.zeros(G, K))  # as of the last round
        self._buffer("frozen_for", torch.zeros(G, K, dtype=torch.int64))  # updates
        self._buffer("since_win", torch.zeros(G, K, dtype=torch.int64))  # updates
        self._buffer("last_round", torch.zeros(3))  # fractions reset, clashing, starved
        self.position: Tensor
        self.mean: Tensor
        self.square: Tensor
        self.moves: Tensor
        self.usage: Tensor
        self.utility: Tensor
        self.frozen_for: Tensor
        self.since_win: Tensor
        self.last_round: Tensor

    def _buffer(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value)

    def actions(self) -> Tensor:
        """Every agent's slots, in [-1, 1]: ``[N, K, d]``."""
        return self.position.tanh().expand(self.n_agents, -1, -1)

    def eligible(self) -> Tensor:
        """Which slots a test may choose: those not frozen, unless all are. Bool ``[N, K]``."""
        settled = self.frozen_for == 0
        return (settled | ~settled.any(-1, keepdim=True)).expand(self.n_agents, -1)

    def movable(self) -> Tensor:
        """Which slots the gradient may move: bool ``[G, K]``."""
        return self.frozen_for == 0

    def count(self, slots: Tensor, counted: Tensor) -> None:
        """Note what was picked while acting: slots int64 ``[B, N]``, of which those ``counted`` (bool) count."""
        G, K = self.usage.shape
        group = torch.arange(self.n_agents, device=slots.device) % G
        self.usage += torch.bincount((group * K + slots)[counted], minlength=G * K).view(G, K)

    def climb(self, wins: Tensor, gradient: Tensor, rate: float) -> float:
        """One update: note who won, and move the winners by one step of Adam, each with its own count of steps.

        A slot that is frozen or did not win keeps its position, moments and count: the shared optimiser of the released
        code would keep moving it (by its weight decay), and its bias correction would be off after a restart.

        Args:
            wins: states won by each agent's slots, ``[N, K]``.
            gradient: of what the slots climb, ``[N, K, d]``.
            rate: zeta, Adam's step size.

        Returns:
            The mean distance that a slot moved.
        """
        G, K = self.usage.shape
        won = wins.view(-1, G, K).sum(0) > 0  # a shared codebook wins for whoever it won
        self.since_win += 1
        self.since_win.masked_fill_(won, 0)
        self.frozen_for.sub_(1).clamp_(min=0)
        if not self.settings.mq_grad:
            return 0.0
        moves = won & self.movable()
        before = self.position.tanh()
        slope = gradient.view(-1, G, K, gradient.shape[-1]).sum(0) * (1 - before.square())
        beta, gamma = BETAS
        self.moves += moves
        mean, square = torch.lerp(slope, self.mean, beta), torch.lerp(slope.square(), self.square, gamma)
        count = self.moves.clamp(min=1).unsqueeze(-1).to(slope.dtype)
        step = rate * (mean / (1 - beta**count)) / ((square / (1 - gamma**count)).sqrt() + EPS)
        where = moves.unsqueeze(-1)
        for buffer, value in ((self.mean, mean), (self.square, square), (self.position, self.position + step)):
            buffer.copy_(torch.where(where, value, buffer))
        return float((self.position.tanh() - before).norm(dim=-1).mean())

    def manage(self) -> Round:
        """One round of pruning: who starves goes, then all but the most useful of those that clash."""
        self._close_window()
        starved = self._starved()
        clashing = self._clashing(~starved & (self.frozen_for == 0))
        self._restart(starved | clashing)
        return self._noted(Round(starved, clashing, starved | clashing))

    def take_over(self, other: "Codebook", where: Tensor) -> None:
        """Copy the positions of the other's slots ``where`` (bool ``[G, K]``)."""
        self.position.copy_(torch.where(where.unsqueeze(-1), other.position, self.position))

    def metrics(self) -> dict[str, Tensor]:
        """What the last round did, how many slots are frozen, how evenly they are used, how close two are."""
        reset, clashing, starved = self.last_round.unbind()
        used = self.utility / self.utility.sum(-1, keepdim=True).clamp(min=1e-12)
        apart = torch.cdist(self.position.tanh(), self.position.tanh(), compute_mode="donot_use_mm_for_euclid_dist")
        apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        return {
            "respawn_frac": reset,
            "clash_frac": clashing,
            "starve_frac": starved,
            "frozen_frac": (self.frozen_for > 0).float().mean(),
            "usage_entropy": -torch.special.xlogy(used, used).sum(-1).mean(),
            "nearest_pair": apart.min(),
        }

    def _close_window(self) -> None:
        kept = 0.9 * self.utility if self.settings.mq_utility == "ema" else 0.0
        self.utility.copy_(kept + self.usage)
        self.usage.zero_()

    def _starved(self) -> Tensor:
        hungry = (self.since_win > self.settings.mq_starve_after) & (self.frozen_for == 0)
        return hungry & self.settings.mq_starvation

    def _clashing(self, eligible: Tensor) -> Tensor:
        """Who goes because it is too close to another of the ``eligible`` slots."""
        s = self.settings
        if not s.mq_proximity:
            return torch.zeros_like(eligible)
        losers = greedy_losers if s.mq_prune_rule == "greedy" else pairwise_losers
        return losers(self._clash(eligible), self.utility)

    def _clash(self, eligible: Tensor) -> Tensor:
        return clashes(self.position.tanh(), eligible, self.settings.mq_clash)

    def _restart(self, where: Tensor) -> None:
        """Give the slots ``where`` new positions, in voids or anywhere, and freeze them there for a while."""
        s = self.settings
        for position, dead in zip(self.position, where, strict=True):
            n = int(dead.sum())
            if s.mq_spawn == "maximin":
                candidates = position.new_empty(s.mq_candidates * n, position.shape[-1]).uniform_(-1.0, 1.0)
                new = maximin(candidates, position[~dead].tanh(), n)
            else:
                new = position.new_empty(n, position.shape[-1]).uniform_(-1.0, 1.0)
            position[dead] = to_position(new)
        self._forget(where)
        self.frozen_for.masked_fill_(where, s.mq_freeze)

    def _forget(self, where: Tensor) -> None:
        """Start these slots' optimiser and counts over."""
        self.mean.masked_fill_(where.unsqueeze(-1), 0.0)
        self.square.masked_fill_(where.unsqueeze(-1), 0.0)
        self.utility.masked_fill_(where, 0.0)
        for count in (self.moves, self.since_win):
            count.masked_fill_(where, 0)

    def _noted(self, done: Round) -> Round:
        self.last_round.copy_(torch.stack([x.float().mean() for x in (done.reset, done.clashing, done.starved)]))
        return done


def to_position(actions: Tensor) -> Tensor:
    """What the tanh turns into the action, as far as ``EDGE``."""
    return actions.clamp(-EDGE, EDGE).atanh()
