"""What controllers share that choose one of many candidate action vectors."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC, BasicMACSettings
from shoal.controllers.make import Make
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class VectorMACSettings(BasicMACSettings):
    action_selector: Annotated[str, "exploration strategy"] = "epsilon_uniform"


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

    def value_taken(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Values of executed actions: outputs ``[M, P, N, A]``, actions ``[P, N, d]`` -> ``[M, P, N]``."""
        raise NotImplementedError

    def value_next(self, outputs: Tensor, target: "VectorMAC", target_outputs: Tensor, double_q: bool) -> Tensor:
        """What ``target`` says that each agent's best action is worth, by its own choice or (double Q) by this one's.

        Shapes: outputs of both ``[M, P, N, A]`` -> ``[P, N]``.
        """
        raise NotImplementedError

    def before_step(
        self, outputs: Tensor, counted: Tensor, target: "VectorMAC", t_env: int, n_updates: int
    ) -> dict[str, Tensor]:
        """Hook for updates without a gradient, before each step of the optimiser. Returns what to record.

        Args:
            outputs: of the transitions, ``[M, R, N, A]``.
            counted: whose transitions count, bool ``[R, N]``.
            target: the target controller.
            t_env: environment steps done so far.
            n_updates: gradient steps done so far, this one included.
        """
        return {}
