"""The central utilities of WQMIX: same inputs as the agents, used in training only."""

from dataclasses import dataclass
from typing import Annotated

from shoal.components.spec import TeamSpec
from shoal.controllers.make import Make
from shoal.controllers.team import NormaliseInputs, TeamInputs, TeamNetwork


@dataclass(frozen=True)
class CentralMACSettings:
    central_agent: Annotated[str, "network of one agent's utility in the central Q*"] = "central_rnn"
    obs_last_action: Annotated[bool, "append the agent's last action to its observation"] = True
    obs_agent_id: Annotated[bool, "append the agent's id to its observation"] = True
    normalise_inputs: NormaliseInputs = False


class CentralMAC(TeamNetwork):
    """Utilities for a central joint value (Rashid et al. 2020): never acts, so it needs no exploration."""

    Settings = CentralMACSettings

    def __init__(self, settings: CentralMACSettings, spec: TeamSpec, make: Make) -> None:
        inputs = TeamInputs(spec, settings.obs_last_action, settings.obs_agent_id, normalise=settings.normalise_inputs)
        super().__init__(spec, inputs, make("central_agent", input_dim=inputs.dim, output_dim=spec.n_actions))
