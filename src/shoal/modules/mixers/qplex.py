"""QPLEX: a duelling mixer, whose joint value is any function with the agents' own argmaxes."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from shoal.declare import Range
from shoal.modules.layers.stacked import StackedMLP
from shoal.modules.mixers.initial import MixerSettings, scale_initial
from shoal.modules.mixers.mixer import Mixer

_LEAST = 1e-10
"""Keeps the weights that must be positive off zero."""


@dataclass(frozen=True)
class QPLEXMixerSettings(MixerSettings):
    num_kernel: Annotated[int, "attention heads of QPLEX's weights on the advantages", Range(1, 100)] = 4
    hypernet_embed: Annotated[int, "hidden width of the hypernetworks that transform the utilities", Range(1)] = 64
    adv_hypernet_embed: Annotated[int, "hidden width of QPLEX's attention heads", Range(1)] = 64
    adv_hypernet_layers: Annotated[int, "layers of QPLEX's attention heads; 1: no hidden layer", Range(1, 100)] = 2


class QPLEXMixer(Mixer):
    """QPLEX (Wang et al. 2021): the sum of transformed utilities plus positively weighted advantages.

    With w_i(s) > 0, the maxima Q_i^max (no gradient) and positive attention weights lambda_i(s, u):

        q_i = w_i Q_i(u_i) + b_i,   A_i = w_i (Q_i(u_i) - Q_i^max) <= 0
        Q^tot = sum_i q_i + sum_i (lambda_i - 1) stopgrad(A_i)

    Every A_i is 0 at the agents' own argmaxes and at most 0 elsewhere, hence IGM. Holds M independent mixers.
    """

    Settings = QPLEXMixerSettings

    def __init__(
        self, settings: QPLEXMixerSettings, n_agents: int, state_dim: int, n_actions: int, copies: int = 1
    ) -> None:
        super().__init__()
        self.copies, self.heads, self.n_actions = copies, settings.num_kernel, n_actions
        hidden = [settings.adv_hypernet_embed] * (settings.adv_hypernet_layers - 1)
        H = copies * settings.num_kernel
        self.hyper_w = StackedMLP(copies, [state_dim, settings.hypernet_embed, n_agents])
        self.hyper_b = StackedMLP(copies, [state_dim, settings.hypernet_embed, n_agents])
        # The heads lie along the copies' axis: [M * heads, ...].
        self.key = StackedMLP(H, [state_dim, *hidden, 1])
        self.agents = StackedMLP(H, [state_dim, *hidden, n_agents])
        self.actions = StackedMLP(H, [state_dim + n_agents * n_actions, *hidden, n_agents])
        scale_initial(self, settings.mixer_init_scale)

    def forward(self, qs: Tensor, state: Tensor, maxima: Tensor, actions: Tensor) -> Tensor:
        """Joint values ``[M, R]`` or, of C candidates under one mixer, ``[C, R]``.

        Shapes: qs ``[M or C, R, N]``, state ``[R, S]``, the agents' own maxima ``[M or 1, R, N]``, joint actions
        ``[1 or C, R, N]`` (int).
        """
        s = state.unsqueeze(0)
        w, b = self.hyper_w(s).abs() + _LEAST, self.hyper_b(s)  # [M, R, N]
        advantage = (w * (qs - maxima)).detach()
        return (w * qs + b + (self._attention(s, actions) - 1) * advantage).sum(-1)

    def _attention(self, s: Tensor, actions: Tensor) -> Tensor:
        """lambda, positive: state ``[1, R, S]``, actions ``[1 or C, R, N]`` -> ``[M or C, R, N]``."""
        C, R, N = actions.shape
        one_hots = nn.functional.one_hot(actions, self.n_actions).to(s.dtype).flatten(-2)  # [C, R, N*A]
        state_actions = torch.cat([s.expand(C, -1, -1), one_hots], dim=-1).flatten(0, 1).unsqueeze(0)
        by_action = self.actions(state_actions).view(self.copies, self.heads, C, R, N)
        key, agents = (
            net(s).view(self.copies, self.heads, 1, R, -1) for net in (self.key, self.agents)
        )  # [M, heads, 1, R, 1 or N]
        return attention_weights(key, agents, by_action, dim=1).flatten(0, 1)


def attention_weights(key: Tensor, agents: Tensor, actions: Tensor, dim: int) -> Tensor:
    """Sum over the heads (axis ``dim``) of (|key| + 1e-10) sigmoid(agents) sigmoid(actions)."""
    return ((key.abs() + _LEAST) * agents.sigmoid() * actions.sigmoid()).sum(dim)
