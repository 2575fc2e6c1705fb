"""Which slots of a codebook go, and where new ones start. G codebooks of K slots side by side."""

import torch
from torch import Tensor


def clashes(actions: Tensor, eligible: Tensor, sigma: float) -> Tensor:
    """Eligible pairs closer than ``sigma``: actions ``[G, K, d]``, eligible ``[G, K]`` -> bool ``[G, K, K]``."""
    # Differences, not the matrix product of the norms, which is off by more than small distances in single precision.
    near = torch.cdist(actions, actions, compute_mode="donot_use_mm_for_euclid_dist") < sigma
    near &= eligible.unsqueeze(1) & eligible.unsqueeze(2)
    return near & ~torch.eye(actions.shape[1], dtype=torch.bool, device=actions.device)


def greedy_losers(clash: Tensor, utility: Tensor) -> Tensor:
    """Who goes if slots, visited from the most useful down, remove those they clash with that are still there.

    Ties are visited from the lower index. Solved for all slots at once: whoever clashes with none before it who is
    undecided stays, whoever clashes with one that stays goes, until all are decided.

    Shapes: clash bool ``[G, K, K]``, utility ``[G, K]`` -> bool ``[G, K]``.
    """
    place = utility.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)  # [G, K], 0 is visited first
    by_earlier = clash & (place.unsqueeze(1) < place.unsqueeze(2))  # [G, loser, winner]
    stays = ~by_earlier.any(-1)
    goes = torch.zeros_like(stays)
    while not (stays | goes).all():
        goes |= (by_earlier & stays.unsqueeze(1)).any(-1)
        stays |= ~(by_earlier & ~goes.unsqueeze(1)).any(-1)
    return goes


def pairwise_losers(clash: Tensor, utility: Tensor) -> Tensor:
    """Who is the less useful in any clashing pair, even one whose other half goes too. The higher index loses a tie.

    Shapes: clash bool ``[G, K, K]``, utility ``[G, K]`` -> bool ``[G, K]``.
    """
    mine, other = utility.unsqueeze(2), utility.unsqueeze(1)
    index = torch.arange(utility.shape[1], device=utility.device)
    later = index.unsqueeze(1) > index  # [K, K], mine after the other
    return (clash & ((mine < other) | (mine == other) & later)).any(-1)


def maximin(candidates: Tensor, kept: Tensor, n: int) -> Tensor:
    """Greedy farthest-point sampling of ``n`` candidates: ``[C, d]``, placed ``[S, d]`` -> ``[n, d]``.

    What was chosen counts as being there. Where nothing is, the first candidate begins.
    """
    distance = torch.full((len(candidates),), torch.inf, device=candidates.device)
    if len(kept):
        distance = (candidates.unsqueeze(1) - kept).norm(dim=-1).amin(1)
    chosen = torch.empty_like(candidates[:n])
    for i in range(n):
        chosen[i] = candidates[distance.argmax()]
        distance = torch.minimum(distance, (candidates - chosen[i]).norm(dim=-1))
    return chosen
