"""Which kinds of action a team takes: shares of the classes that its environment declares (``action_classes``).

S2Q's trajectory analysis (arXiv 2602.17062, sections 5.2 and H.4) is made of these numbers. They describe choices, so
they are over the agents that have one: a dead agent's no-op belongs to no share.
"""

import torch
from torch import Tensor

from shoal.components.batch import EpisodeBatch, PackedSteps, transition_mask
from shoal.components.spec import TeamSpec


def executed_shares(spec: TeamSpec, batch: EpisodeBatch) -> dict[str, Tensor]:
    """Share of each episode's choices in which an action of each class was executed: class -> float ``[B]``.

    NaN for an episode in which no agent had a choice; nothing where the environment declares no classes.
    """
    if not spec.action_classes:
        return {}
    acted = transition_mask(batch).bool().unsqueeze(-1)  # [B, T, 1]
    return class_shares(spec, batch["actions"][:, :-1], choosing(spec, batch)[:, :-1] & acted)


def candidate_shares(spec: TeamSpec, batch: EpisodeBatch, steps: PackedSteps, candidates: Tensor) -> dict[str, Tensor]:
    """``candidate_<class>_<k>``: share of the choices for which sub-value k's candidate is an action of the class.

    Args:
        candidates: a_k of the transitions ``steps.acted``, ``[M, R, N]``.
    """
    if not spec.action_classes:
        return {}
    counted = steps.pack(choosing(spec, batch))[steps.acted]  # [R, N]
    shares = class_shares(spec, candidates, counted.expand_as(candidates))
    return {f"candidate_{name}_{k}": share[k] for name, share in shares.items() for k in range(len(candidates))}


def choosing(spec: TeamSpec, batch: EpisodeBatch) -> Tensor:
    """Agents that have a choice: those alive or, where the environment does not tell, with more than one action.

    Bool ``[B, T+1, N]``.
    """
    return batch["alive"] if spec.has_alive else batch["avail_actions"].sum(-1) > 1


def class_shares(spec: TeamSpec, actions: Tensor, counted: Tensor) -> dict[str, Tensor]:
    """Share of the counted actions that each class holds, for G groups of actions.

    Args:
        actions: int64 ``[G, ..., N]``.
        counted: which of them count, bool of the same shape.

    Returns:
        class -> float ``[G]``, NaN where none counts.
    """
    G, A = len(actions), spec.n_actions
    group = torch.arange(G, device=actions.device).view(-1, *[1] * (actions.dim() - 1))
    # One number for each (group, action), so that a single pass over the actions counts them all.
    counts = torch.bincount((A * group + actions)[counted], minlength=G * A).view(G, A)
    return {name: counts[:, list(indices)].sum(1) / counts.sum(1) for name, indices in spec.action_classes}
