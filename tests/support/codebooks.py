"""Small codebooks."""

from typing import Any

import torch

from shoal.modules.codebook.codebook import Codebook, CodebookSettings

SLOTS = torch.tensor(
    [[0.0, 0.0], [0.03, 0.0], [0.06, 0.0], [0.5, 0.5], [0.52, 0.53], [-0.7, 0.2], [0.9, -0.9], [0.9, -0.88]]
)


def book(cls: type[Codebook] = Codebook, agents: int = 1, dim: int = 2, **settings: Any) -> Codebook:
    return cls(CodebookSettings(**settings), agents, dim)
