"""QMIX: a monotonic mixing network whose weights come from the state."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from shoal.declare import Range
from shoal.modules.layers.stacked import StackedLinear, StackedMLP
from shoal.modules.mixers.initial import MixerSettings, scale_initial
from shoal.modules.mixers.mixer import Mixer


@dataclass(frozen=True)
class QMixerSettings(MixerSettings):
    mixing_embed_dim: Annotated[int, "width of the mixing network's hidden layer", Range(1)] = 32
    hypernet_embed: Annotated[int, "hidden width of the hypernetworks that produce the mixing weights", Range(1)] = 64
    hypernet_layers: Annotated[
        int, "layers of the hypernetworks that produce the mixing weights; 1: no hidden layer", Range(1, 100)
    ] = 2


class QMixer(Mixer):
    """QMIX (Rashid et al. 2018): Q^tot = ELU(q |W1(s)| + b1(s)) |W2(s)| + b2(s).

    Monotonic in every utility, because the mixing weights are absolute values and ELU increases; hence the joint
    argmax is the agents' own argmaxes (IGM). Holds M independent mixers of the same state.
    """

    Settings = QMixerSettings

    def __init__(
        self, settings: QMixerSettings, n_agents: int, state_dim: int, n_actions: int, copies: int = 1
    ) -> None:
        super().__init__()
        self.copies = copies
        E, hidden = settings.mixing_embed_dim, [settings.hypernet_embed] * (settings.hypernet_layers - 1)
        self.embed_dim = E
        self.hyper_w1 = StackedMLP(copies, [state_dim, *hidden, n_agents * E])
        self.hyper_b1 = StackedLinear(copies, state_dim, E)
        self.hyper_w2 = StackedMLP(copies, [state_dim, *hidden, E])
        self.hyper_b2 = StackedMLP(copies, [state_dim, E, 1])
        scale_initial(self, settings.mixer_init_scale)

    def forward(self, qs: Tensor, state: Tensor, maxima: Tensor | None = None, actions: Tensor | None = None) -> Tensor:
        """Shapes: qs ``[M, R, N]`` (or, of C candidates under one mixer, ``[C, R, N]``), state ``[R, S]`` -> ``[M, R]``
        (``[C, R]``). Maxima and actions are what QPLEX reads.
        """
        s = state.unsqueeze(0)
        w1 = self.hyper_w1(s).abs().unflatten(-1, (qs.shape[-1], self.embed_dim))  # [M, R, N, E]
        w2 = self.hyper_w2(s).abs()  # [M, R, E]
        return mix(qs, w1, self.hyper_b1(s), w2, self.hyper_b2(s).squeeze(-1))


def mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """ELU(q w1 + b1) w2 + b2: q ``[..., N]``, w1 ``[..., N, E]``, b1 and w2 ``[..., E]``, b2 ``[...]`` -> ``[...]``."""
    hidden = nn.functional.elu((q.unsqueeze(-1) * w1).sum(-2) + b1)
    return torch.linalg.vecdot(hidden, w2) + b2
