"""Who goes of slots that clash, and where new ones start."""

import pytest
import torch
from torch import Tensor

from shoal.modules.codebook.pruning import clashes, greedy_losers, maximin, pairwise_losers
from support.codebooks import SLOTS

close = torch.testing.assert_close


def test_new_slots_start_in_the_largest_voids() -> None:
    survivors = SLOTS[[0, 2, 4, 6, 7]]
    drawn = torch.tensor([[-0.9, -0.9], [-0.8, -0.8], [0.9, 0.9], [-0.5, 0.9], [0.2, -0.5], [0.0, 0.1]])
    close(maximin(drawn, survivors, 3), drawn[[0, 3, 2]])
    close(maximin(drawn, survivors[:0], 2), drawn[[0, 2]])


def chosen_one_by_one(clash: Tensor, utility: Tensor) -> set[int]:
    gone: set[int] = set()
    for i in sorted(range(len(utility)), key=lambda i: (-float(utility[i]), i)):
        if i not in gone:
            gone |= {j for j in range(len(utility)) if clash[i, j]}
    return gone


@pytest.mark.parametrize("seed", range(25))
def test_pruning_all_at_once_is_pruning_one_by_one(seed: int) -> None:
    """Greedy: no two survivors clash, and none that went could have stayed. Pairwise: each pair's worse half goes."""
    torch.manual_seed(seed)
    G, K = 3, 30
    u = torch.rand(G, K, 2) * 2 - 1
    eligible, utility = torch.rand(G, K) < 0.8, torch.randint(0, 4, (G, K)).float()
    clash = clashes(u, eligible, 0.3)
    goes, pairwise = greedy_losers(clash, utility), pairwise_losers(clash, utility)
    for g in range(G):
        assert set(goes[g].nonzero().flatten().tolist()) == chosen_one_by_one(clash[g], utility[g])
        stays = ~goes[g]
        assert not clash[g][stays][:, stays].any()
        assert clash[g][goes[g]][:, stays].any(-1).all()
        worse = {
            (j if utility[g, i] >= utility[g, j] else i) for i in range(K) for j in range(i + 1, K) if clash[g, i, j]
        }
        assert set(pairwise[g].nonzero().flatten().tolist()) == worse
