"""S2Q's encoder-decoder: from the team's histories to the state and to the probabilities of the candidates."""

from itertools import pairwise

import torch
from torch import Tensor, nn


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise(sizes):
        layers += [nn.Linear(in_features, out_features), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Encoder(nn.Sequential):
    """Recurrent states side by side to a latent: h -> z (S2Q, section 4.3). Shapes: ``[..., N*H] -> [..., E]``."""

    def __init__(self, history_dim: int, hidden_dim: int, latent_dim: int) -> None:
        super().__init__(*_mlp([history_dim, hidden_dim, hidden_dim, latent_dim]))


class Decoder(nn.Module):
    """Latent to the state and, where there are candidates, to their probabilities: z -> (s_hat, log P_hat)."""

    def __init__(self, latent_dim: int, hidden_dim: int, state_dim: int, n_candidates: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_mlp([latent_dim, hidden_dim, hidden_dim]), nn.ReLU())
        self.state_head = nn.Linear(hidden_dim, state_dim)
        self.candidate_head = nn.Linear(hidden_dim, n_candidates) if n_candidates else None

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Shapes: ``[..., E]`` -> reconstructed state ``[..., S]`` and log P_hat ``[..., M]`` (None without one)."""
        features = self.trunk(z)
        log_p = None if self.candidate_head is None else torch.log_softmax(self.candidate_head(features), dim=-1)
        return self.state_head(features), log_p
