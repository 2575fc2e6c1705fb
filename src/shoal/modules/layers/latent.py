"""S2Q's encoder-decoder: from the team's histories to the state and to the promise of every sub-value."""

from itertools import pairwise

import torch
from torch import Tensor, nn


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise(sizes):
        layers += [nn.Linear(in_features, out_features), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class EncoderDecoder(nn.Module):
    """Encoder h -> z, decoder z -> (s_hat, logits of P_hat) (S2Q, section 4.3).

    The encoder reads the agents' recurrent states side by side, ``[..., N*H]``.
    """

    def __init__(self, history_dim: int, state_dim: int, n_candidates: int, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.encoder = _mlp([history_dim, hidden_dim, hidden_dim, latent_dim])
        self.trunk = nn.Sequential(_mlp([latent_dim, hidden_dim, hidden_dim]), nn.ReLU())
        self.state_head = nn.Linear(hidden_dim, state_dim)
        self.candidate_head = nn.Linear(hidden_dim, n_candidates)

    def forward(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: ``[..., N*H]`` -> reconstructed state ``[..., S]`` and log P_hat ``[..., M]``."""
        features = self.trunk(self.encoder(histories))
        return self.state_head(features), torch.log_softmax(self.candidate_head(features), dim=-1)
