"""The central utilities of WQMIX: same inputs as the agents, used in training only."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import Make
from shoal.controllers.team import TeamInputs


@dataclass(frozen=True)
class CentralMACSettings:
    central_agent: Annotated[str, "network of one agent's central utility"] = "central_rnn"
    obs_last_action: Annotated[bool, "whether an agent's input holds its last action"] = True
    obs_agent_id: Annotated[bool, "whether an agent's input holds its id"] = True


class CentralMAC(nn.Module):
    """Utilities for a central joint value (Rashid et al. 2020): never acts, so it needs no exploration."""

    Settings = CentralMACSettings

    def __init__(self, settings: CentralMACSettings, spec: TeamSpec, make: Make) -> None:
        super().__init__()
        self.n_agents = spec.n_agents
        self.inputs = TeamInputs(spec, settings.obs_last_action, settings.obs_agent_id)
        self.agent = make("central_agent", input_dim=self.inputs.dim, output_dim=spec.n_actions)

    def unroll_packed(self, batch: EpisodeBatch, steps: PackedSteps) -> Tensor:
        """Utilities of the real steps: ``[P, N, A]``."""
        hidden = self.agent.initial_hidden(batch.shape[0], self.n_agents)
        outputs, _ = self.agent(self.inputs.of_batch(batch, steps), hidden, steps.counts)
        utilities: Tensor = outputs[0]
        return utilities
