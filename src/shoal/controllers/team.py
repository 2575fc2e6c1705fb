"""What every controller shares: building the agents' inputs, for one step or for a whole batch."""

import torch
from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, one_hot
from shoal.components.spec import TeamSpec


class TeamInputs(nn.Module):
    """Builds the network inputs: observation, last action, agent id.

    Time comes first, because the recurrent unroll walks along it.
    """

    def __init__(self, spec: TeamSpec, obs_last_action: bool, obs_agent_id: bool) -> None:
        super().__init__()
        self.spec = spec
        self.obs_last_action = obs_last_action
        self.dim = spec.obs_dim + spec.n_actions * obs_last_action + spec.n_agents * obs_agent_id
        ids = torch.eye(spec.n_agents) if obs_agent_id else None
        self.register_buffer("ids", ids, persistent=False)
        self.ids: Tensor | None

    def forward(self, obs: Tensor, last_actions: Tensor) -> Tensor:
        """Shapes: obs ``[T, B, N, D]``, last actions as vectors ``[T, B, N, A]`` -> ``[T, B, N, d]``."""
        parts = [obs]
        if self.obs_last_action:
            parts.append(last_actions)
        if self.ids is not None:
            parts.append(self.ids.expand(*obs.shape[:2], -1, -1))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else obs

    def of_batch(self, batch: EpisodeBatch) -> Tensor:
        """Inputs of all T+1 steps at once: ``[T+1, B, N, d]``."""
        actions = self.as_vectors(batch["actions"]).transpose(0, 1)
        last = torch.cat([torch.zeros_like(actions[:1]), actions[:-1]])
        return self(batch["obs"].transpose(0, 1), last)

    def as_vectors(self, actions: Tensor) -> Tensor:
        """One-hots of discrete actions, continuous ones as they are: ``[..., N (, d)] -> [..., N, A]``."""
        return one_hot(actions, self.spec.n_actions) if self.spec.discrete else actions
