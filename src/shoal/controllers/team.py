"""What every controller shares: building the agents' inputs, for one step or for a whole batch."""

import torch
from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, PackedSteps, one_hot
from shoal.components.spec import TeamSpec


class TeamInputs(nn.Module):
    """Builds the network inputs: observation, last action (zeros at first), agent id."""

    def __init__(self, spec: TeamSpec, obs_last_action: bool, obs_agent_id: bool) -> None:
        super().__init__()
        self.spec = spec
        self.obs_last_action = obs_last_action
        self.dim = spec.obs_dim + spec.n_actions * obs_last_action + spec.n_agents * obs_agent_id
        ids = torch.eye(spec.n_agents) if obs_agent_id else None
        self.register_buffer("ids", ids, persistent=False)
        self.ids: Tensor | None

    def forward(self, obs: Tensor, last_actions: Tensor) -> Tensor:
        """Shapes: obs ``[P, N, D]``, last actions as vectors ``[P, N, A]`` -> ``[P, N, d]``."""
        parts = [obs]
        if self.obs_last_action:
            parts.append(last_actions)
        if self.ids is not None:
            parts.append(self.ids.expand(obs.shape[0], -1, -1))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else obs

    def of_batch(self, batch: EpisodeBatch, steps: PackedSteps) -> Tensor:
        """Inputs of all real steps at once: ``[P, N, d]``."""
        actions = self.as_vectors(steps.pack(batch["actions"].roll(1, dims=1)))
        first = steps.counts[0]
        return self(steps.pack(batch["obs"]), torch.cat([torch.zeros_like(actions[:first]), actions[first:]]))

    def as_vectors(self, actions: Tensor) -> Tensor:
        """One-hots of discrete actions, continuous ones as they are: ``[..., N (, d)] -> [..., N, A]``."""
        return one_hot(actions, self.spec.n_actions) if self.spec.discrete else actions
