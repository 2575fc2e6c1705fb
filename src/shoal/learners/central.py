"""The unrestricted joint value Q* that WQMIX and S2Q learn beside the monotonic one."""

from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import Make
from shoal.learners.learner import chosen


class CentralValue(nn.Module):
    """Q*(s, tau, u): central utilities and a mixer without monotonicity."""

    def __init__(self, spec: TeamSpec, make: Make) -> None:
        super().__init__()
        self.mac = make("central_mac", spec=spec, make=make)
        self.mixer = make("central_mixer", n_agents=spec.n_agents, state_dim=spec.state_dim)

    def utilities(self, batch: EpisodeBatch, steps: PackedSteps) -> Tensor:
        """Utilities of the real steps: ``[P, N, A]``."""
        utilities: Tensor = self.mac.unroll_packed(batch, steps)
        return utilities

    def forward(self, utilities: Tensor, actions: Tensor, state: Tensor) -> Tensor:
        """Values of C joint actions: utilities ``[R, N, A]``, actions ``[C, R, N]``, state ``[R, S]`` -> ``[C, R]``."""
        value: Tensor = self.mixer(chosen(utilities, actions), state)
        return value
