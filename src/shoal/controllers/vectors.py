"""What controllers share that choose one of many candidate action vectors."""

from dataclasses import dataclass
from typing import Annotated

from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC, BasicMACSettings
from shoal.controllers.team import Make
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class VectorMACSettings(BasicMACSettings):
    action_selector: Annotated[str, "way of exploring"] = "epsilon_uniform"


class VectorMAC(BasicMAC):
    """Base of the controllers whose actions are vectors in [-1, 1]^d, valued by what the agent's outputs describe."""

    Settings = VectorMACSettings
    chooses_vectors = True

    def __init__(
        self, settings: VectorMACSettings, spec: TeamSpec, make: Make, output_dim: int, copies: int = 1
    ) -> None:
        if spec.discrete:
            raise UserError(
                f"{type(self).__name__} chooses action vectors, but this environment's actions are discrete: "
                "use --config=lan (mac=basic_mac), or env_args.action_mode=continuous where the environment has it."
            )
        super().__init__(settings, spec, make, copies, output_dim=output_dim)
