"""WQMIX's central mixer: an unrestricted joint value."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from shoal.declare import Range
from shoal.modules.layers.stacked import StackedMLP
from shoal.modules.mixers.initial import MixerSettings, scale_initial
from shoal.modules.mixers.mixer import Mixer


@dataclass(frozen=True)
class CentralMixerSettings(MixerSettings):
    central_mixing_embed_dim: Annotated[int, "width of the hidden layers of the central Q*'s mixer", Range(1)] = 256


class CentralMixer(Mixer):
    """Feed-forward central mixer (Rashid et al. 2020): f(s, q) + V(s), without monotonicity.

    Many candidate joint actions share a state, so the first layer's state part and V(s) are computed once for all.
    """

    Settings = CentralMixerSettings

    def __init__(self, settings: CentralMixerSettings, n_agents: int, state_dim: int) -> None:
        super().__init__()
        E = settings.central_mixing_embed_dim
        self.state_dim = state_dim
        self.first = nn.Linear(state_dim + n_agents, E)  # reads (s, q)
        self.rest = nn.Sequential(nn.Linear(E, E), nn.ReLU(), nn.Linear(E, E), nn.ReLU(), nn.Linear(E, 1))
        self.state_value = StackedMLP(1, [state_dim, E, 1])
        scale_initial(self, settings.mixer_init_scale)

    def forward(self, qs: Tensor, state: Tensor) -> Tensor:
        """Joint values of C candidates. Shapes: qs ``[C, R, N]``, state ``[R, S]`` -> ``[C, R]``."""
        weight_s, weight_q = self.first.weight.split([self.state_dim, qs.shape[-1]], dim=1)
        from_state = nn.functional.linear(state, weight_s, self.first.bias)  # [R, E]
        hidden = (from_state + nn.functional.linear(qs, weight_q)).relu()
        value: Tensor = (self.rest(hidden) + self.state_value(state)).squeeze(-1)
        return value
