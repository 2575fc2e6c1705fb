"""The joint value Q* that S2Q follows: WQMIX's unrestricted one, or Q^tot itself."""

from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.action_selectors import greedy
from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC
from shoal.controllers.make import Make
from shoal.learners.value_learner import chosen
from shoal.modules.mixers.mixer import Mixer


class CentralValue(nn.Module):
    """Q*(s, tau, u) of WQMIX and S2Q: central utilities and a mixer without monotonicity."""

    def __init__(self, spec: TeamSpec, make: Make) -> None:
        super().__init__()
        self.mac = make("central_mac", spec=spec, make=make)
        self.mixer = make("central_mixer", n_agents=spec.n_agents, state_dim=spec.state_dim)

    def utilities(self, batch: EpisodeBatch, steps: PackedSteps) -> Tensor:
        """Utilities of the real steps: ``[P, N, A]``."""
        return self.mac.unroll_packed(batch, steps)[0][0]

    def step(self, step: TensorDict, state: TensorDict) -> tuple[Tensor, Tensor]:
        """Utilities ``[B, N, A]`` while acting, and the recurrent state ``[1, B, N, H]``."""
        utilities, hidden = self.mac.step(step, state)
        return utilities[0], hidden

    def forward(self, utilities: Tensor, actions: Tensor, state: Tensor, avail: Tensor | None = None) -> Tensor:
        """Values of C joint actions: utilities ``[R, N, A]``, actions ``[C, R, N]``, state ``[R, S]`` -> ``[C, R]``.

        ``avail`` is what ``OwnValue`` reads.
        """
        return self.mixer(chosen(utilities, actions), state)


class OwnValue(nn.Module):
    """Q^tot in the place of Q* (S2Q over VDN, QMIX or QPLEX): one copy's networks, called as ``CentralValue`` is."""

    def __init__(self, mac: BasicMAC, mixer: Mixer) -> None:
        super().__init__()
        self.mac = mac
        self.mixer = mixer

    def utilities(self, batch: EpisodeBatch, steps: PackedSteps) -> Tensor:
        """Utilities of the real steps: ``[P, N, A]``."""
        values, _ = self.mac.unroll_packed(batch, steps)
        return values[0]

    def step(self, step: TensorDict, state: TensorDict) -> tuple[Tensor, Tensor]:
        """Utilities ``[B, N, A]`` while acting, and the recurrent state ``[1, B, N, H]``."""
        values, hidden = self.mac.step(step, state)
        return values[0], hidden

    def forward(self, utilities: Tensor, actions: Tensor, state: Tensor, avail: Tensor) -> Tensor:
        """Values of C joint actions, shapes as in ``CentralValue``; which actions are available: bool ``[R, N, A]``."""
        maxima = chosen(utilities, greedy(utilities, avail)).unsqueeze(0)  # [1, R, N]
        return self.mixer(chosen(utilities, actions), state, maxima, actions)
