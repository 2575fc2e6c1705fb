"""The centralised value of LAN, used in training alone."""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor, nn

from shoal.declare import Checked, Range
from shoal.modules.layers.stacked import StackedMLP


@dataclass(frozen=True)
class LANValueSettings(Checked):
    value_embed_dim: Annotated[int, "width of each agent's embedding in the centralised value", Range(1)] = 128
    value_hidden_dims: Annotated[list[int], "widths of the centralised value's hidden layers", Range(1)] = field(
        default_factory=lambda: [128, 128]
    )


class LANValue(nn.Module):
    """V(s, tau) of Local Advantage Networks (Avalos et al. 2023): the state and the sum of the agents' embeddings.

        g = sum_i ReLU(W [h_i, x_i] + b) over the agents alive,   V = MLP([s, g])

    h_i is the agent's recurrent state, x_i what its network reads. The number of agents decides the size only
    through the state and the ids in x_i.
    """

    Settings = LANValueSettings

    def __init__(self, settings: LANValueSettings, input_dim: int, state_dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(input_dim, settings.value_embed_dim)
        self.value = StackedMLP(1, [state_dim + settings.value_embed_dim, *settings.value_hidden_dims, 1])

    def forward(self, histories: Tensor, inputs: Tensor, state: Tensor, alive: Tensor | None = None) -> Tensor:
        """Shapes: histories ``[P, N, H]``, inputs ``[P, N, d]``, state ``[P, S]``, alive ``[P, N]`` bool -> ``[P]``."""
        embedded = self.embed(torch.cat([histories, inputs], dim=-1)).relu()  # [P, N, E]
        if alive is not None:
            embedded = embedded * alive.unsqueeze(-1)
        value: Tensor = self.value(torch.cat([state, embedded.sum(1)], dim=-1)).squeeze(-1)
        return value
