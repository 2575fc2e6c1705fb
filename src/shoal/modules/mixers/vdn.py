"""VDN: the joint value is the sum of the utilities."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class VDNMixerSettings:
    pass


class VDNMixer(nn.Module):
    """VDN (Sunehag et al. 2018): the sum of the agents' utilities; no parameters."""

    Settings = VDNMixerSettings

    def __init__(self, settings: VDNMixerSettings, n_agents: int, state_dim: int, copies: int = 1) -> None:
        super().__init__()

    def forward(self, qs: Tensor, state: Tensor) -> Tensor:
        """Shapes: qs ``[M, R, N]``, state ``[R, S]`` -> ``[M, R]``."""
        return qs.sum(-1)
