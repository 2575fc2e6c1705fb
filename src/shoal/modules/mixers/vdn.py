"""VDN: the joint value is the sum of the utilities."""

from dataclasses import dataclass

from torch import Tensor

from shoal.modules.mixers.mixer import Mixer


@dataclass(frozen=True)
class VDNMixerSettings:
    pass


class VDNMixer(Mixer):
    """VDN (Sunehag et al. 2018): the sum of the agents' utilities; no parameters."""

    Settings = VDNMixerSettings

    def __init__(
        self, settings: VDNMixerSettings, n_agents: int, state_dim: int, n_actions: int, copies: int = 1
    ) -> None:
        super().__init__()
        self.copies = copies

    def forward(self, qs: Tensor, state: Tensor, maxima: Tensor | None = None, actions: Tensor | None = None) -> Tensor:
        """Shapes: qs ``[M, R, N]``, state ``[R, S]`` -> ``[M, R]``. Maxima and actions are what QPLEX reads."""
        return qs.sum(-1)
