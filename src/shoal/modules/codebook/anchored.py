"""The stabilised codebook: originals stay where they are, copies of the best explore (first future work of CTDE^2).

The paper names the idea; what follows is Shoal's design of it. A gradient that leads astray costs a copy, never the
action that was good.
"""

import torch
from torch import Tensor

from shoal.modules.codebook.codebook import Codebook, CodebookSettings, Round

ANCHOR = -1
"""``parent`` of a slot that is not a copy."""


class AnchoredCodebook(Codebook):
    """Slots are anchors, which no gradient moves, or copies, which know the anchor they started at.

    At every round the most useful anchors without a living copy get one, in slots that were removed or unused. A copy
    moves at once, may be close to its parent for ``mq_copy_life`` updates, and then must have left it: the less useful
    of the two goes if it has not (the parent, if it starved), and a copy that won lately becomes an anchor if it has.
    """

    def __init__(self, settings: CodebookSettings, n_agents: int, action_dim: int) -> None:
        super().__init__(settings, n_agents, action_dim)
        self._buffer("parent", torch.full_like(self.moves, ANCHOR))
        self._buffer("age", torch.zeros_like(self.moves))
        self.parent: Tensor
        self.age: Tensor

    def movable(self) -> Tensor:
        return super().movable() & (self.parent != ANCHOR)

    def climb(self, wins: Tensor, gradient: Tensor, rate: float) -> float:
        moved = super().climb(wins, gradient, rate)
        self.age += self.parent != ANCHOR
        return moved

    def manage(self) -> Round:
        """As ``Codebook.manage``; lives of copies end before slots clash, and new copies start before the rest does."""
        self._close_window()
        starved = self._starved()
        merged, grown = self._ended(starved)
        starved |= self._adult() & ~merged & ~grown & (self.parent != ANCHOR)
        self._free(grown)
        free = self.frozen_for == 0
        clashing = merged | self._clashing(~starved & ~merged & free)
        dead = starved | clashing
        self._free(dead | self._orphaned(dead))
        copies = self._copy_best(dead)
        self._restart(dead & ~copies)
        return self._noted(Round(starved, clashing, dead | copies))

    def _adult(self) -> Tensor:
        return (self.parent != ANCHOR) & (self.age >= self.settings.mq_copy_life)

    def _to_parent(self) -> Tensor:
        """Distance of every copy to its parent, ``[G, K]``; what it says of anchors means nothing."""
        u = self.position.tanh()
        index = self.parent.clamp(min=0).unsqueeze(-1).expand_as(u)
        return (u - u.gather(1, index)).norm(dim=-1)

    def _ended(self, starved: Tensor) -> tuple[Tensor, Tensor]:
        """Of copies at the end of their life that live: the slots that go in a merger, and the copies that stay."""
        adult = self._adult() & ~starved
        parent = self.parent.clamp(min=0)
        together = adult & (self._to_parent() < self.settings.mq_clash)
        better = together & ((self.utility > self.utility.gather(1, parent)) | starved.gather(1, parent))
        loses_to_copy = torch.zeros_like(adult).scatter_reduce(1, parent, better, "amax")
        apart_and_wins = adult & ~together & (self.since_win <= self.settings.mq_starve_after)
        return (together & ~better) | loses_to_copy, better | apart_and_wins

    def _clash(self, eligible: Tensor) -> Tensor:
        """A young copy does not clash with its own parent."""
        index = torch.arange(self.parent.shape[1], device=self.parent.device)
        young = ((self.parent != ANCHOR) & ~self._adult()).unsqueeze(2)
        family = young & (self.parent.unsqueeze(2) == index)  # [G, copy, parent]
        return super()._clash(eligible) & ~(family | family.mT)

    def _orphaned(self, dead: Tensor) -> Tensor:
        """Copies whose parent is among the dead: they stand for themselves."""
        return (self.parent != ANCHOR) & dead.gather(1, self.parent.clamp(min=0))

    def _free(self, where: Tensor) -> None:
        """Make these slots anchors."""
        self.parent.masked_fill_(where, ANCHOR)
        self.age.masked_fill_(where, 0)

    def _copy_best(self, dead: Tensor) -> Tensor:
        """Overwrite dead slots, then unused ones, with copies of the most useful anchors. Returns where, ``[G, K]``."""
        n = max(1, round(self.settings.mq_copies * self.settings.mq_k))
        made = torch.zeros_like(dead)
        for g in range(len(dead)):
            alone = (self.parent[g] == ANCHOR) & ~dead[g] & (self.utility[g] > 0) & (self.frozen_for[g] == 0)
            has_copy = self.parent[g][self.parent[g] != ANCHOR]
            alone[has_copy] = False
            anchors = self.utility[g].argsort(descending=True, stable=True)
            anchors = anchors[alone[anchors]][:n]
            unused = (self.parent[g] == ANCHOR) & ~dead[g] & (self.utility[g] == 0) & (self.frozen_for[g] == 0)
            unused[has_copy] = False
            places = torch.cat([dead[g].nonzero().squeeze(-1), unused.nonzero().squeeze(-1)])
            anchors = anchors[: len(places)]
            places = places[: len(anchors)]
            self.position[g, places] = self.position[g, anchors]
            self.parent[g, places] = anchors
            made[g, places] = True
        self._forget(made)
        self.frozen_for.masked_fill_(made, 0)
        self.age.masked_fill_(made, 0)
        return made
