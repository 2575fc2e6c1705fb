"""What every controller shares: the agents' inputs and their network, for one step or for a whole batch."""

from typing import Annotated, TypeAlias

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, PackedSteps, one_hot
from shoal.components.spec import TeamSpec
from shoal.modules.agents.agent import Agent
from shoal.modules.layers.moments import Normaliser

NormaliseInputs: TypeAlias = Annotated[
    bool,
    "normalise observations and states by their running mean and deviation over training episodes "
    "(saved with the team)",
]
"""``normalise_inputs``, which controllers (observations) and learners (states) declare alike."""


class TeamInputs(nn.Module):
    """Builds the network inputs: observation (``full_comm``: everyone's), last action (zeros at first), agent id.

    ``normalise`` puts observations on the networks' scale; actions and ids are on it.
    """

    def __init__(
        self,
        spec: TeamSpec,
        obs_last_action: bool,
        obs_agent_id: bool,
        full_comm: bool = False,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.obs_last_action = obs_last_action
        self.full_comm = full_comm
        seen = spec.n_agents if full_comm else 1
        self.dim = seen * spec.obs_dim + spec.n_actions * obs_last_action + spec.n_agents * obs_agent_id
        ids = torch.eye(spec.n_agents) if obs_agent_id else None
        self.register_buffer("ids", ids, persistent=False)
        self.ids: Tensor | None
        self.normaliser = Normaliser(spec.obs_dim, of="obs") if normalise else None

    def forward(self, obs: Tensor, last_actions: Tensor) -> Tensor:
        """Shapes: obs ``[P, N, D]``, last actions as vectors ``[P, N, A]`` -> ``[P, N, d]``."""
        if self.normaliser is not None:
            obs = self.normaliser(obs)
        parts = [obs.flatten(1).unsqueeze(1).expand(-1, obs.shape[1], -1) if self.full_comm else obs]
        if self.obs_last_action:
            parts.append(last_actions)
        if self.ids is not None:
            parts.append(self.ids.expand(obs.shape[0], -1, -1))
        return torch.cat(parts, dim=-1)

    def of_batch(self, batch: EpisodeBatch, steps: PackedSteps) -> Tensor:
        """Inputs of all real steps at once: ``[P, N, d]``."""
        actions = self.as_vectors(steps.pack(batch["actions"].roll(1, dims=1)))
        first = steps.counts[0]
        return self(steps.pack(batch["obs"]), torch.cat([torch.zeros_like(actions[:first]), actions[first:]]))

    def as_vectors(self, actions: Tensor) -> Tensor:
        """One-hots of discrete actions, continuous ones as they are: ``[..., N (, d)] -> [..., N, A]``."""
        return one_hot(actions, self.spec.n_actions) if self.spec.discrete else actions


class TeamNetwork(nn.Module):
    """One network for the whole team, run for a step or over a batch.

    All that belongs to an episode (recurrent state, last action) travels in the ``state`` that ``step`` reads, one row
    an environment, so that environments can leave the batch when their episode ends.
    """

    def __init__(self, spec: TeamSpec, inputs: TeamInputs, agent: Agent) -> None:
        super().__init__()
        self.spec = spec
        self.inputs = inputs
        self.agent = agent

    def initial_state(self, batch_size: int) -> TensorDict:
        """State of fresh episodes: recurrent state ``[B, M, N, H]`` and last actions as vectors ``[B, N, A]``."""
        hidden = self.agent.initial_hidden(batch_size, self.spec.n_agents).transpose(0, 1)
        last = hidden.new_zeros(batch_size, self.spec.n_agents, self.spec.n_actions)
        return TensorDict({"hidden": hidden, "last_actions": last}, batch_size=[batch_size])

    def step(self, step: TensorDict, state: TensorDict) -> tuple[Tensor, Tensor]:
        """One step of the network: outputs ``[M, B, N, A]``, recurrent state ``[M, B, N, H]``."""
        inputs, hidden = self.inputs(step["obs"], state["last_actions"]), state["hidden"].transpose(0, 1)
        return self._run(inputs, hidden, [inputs.shape[0]], self.alive_now(step))

    def unroll_packed(self, batch: EpisodeBatch, steps: PackedSteps) -> tuple[Tensor, Tensor]:
        """Outputs ``[M, P, N, A]`` and recurrent states ``[M, P, N, H]`` of every copy, for the real steps alone."""
        hidden = self.agent.initial_hidden(batch.shape[0], self.spec.n_agents)
        return self._run(self.agent_inputs(batch, steps), hidden, steps.counts, self.alive_in(batch, steps))

    def agent_inputs(self, batch: EpisodeBatch, steps: PackedSteps) -> Tensor:
        """All that the agent reads, for all real steps: ``[P, N, d]``."""
        return self.inputs.of_batch(batch, steps)

    def alive_now(self, step: TensorDict) -> Tensor | None:
        """Who is alive, ``[B, N]``, if the agent needs to know."""
        return step["alive"] if self.agent.reads_alive else None

    def alive_in(self, batch: EpisodeBatch, steps: PackedSteps) -> Tensor | None:
        """Who is alive in the real steps, ``[P, N]``, if the agent needs to know."""
        return steps.pack(batch["alive"]) if self.agent.reads_alive else None

    def _run(self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.agent(inputs, hidden, counts, alive)
