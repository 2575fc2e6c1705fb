"""A mixer of your own, given as its class: the joint value is a positively weighted sum of the agents' values.

python examples/own_mixer.py
"""

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

import shoal
from shoal.declare import Range
from shoal.modules.layers.stacked import StackedMLP
from shoal.modules.mixers.mixer import Mixer


@dataclass(frozen=True)
class WeightedSumSettings:
    weight_hidden_dim: Annotated[int, "width of the hidden layer that reads the state", Range(1)] = 32


class WeightedSum(Mixer):
    """Q^tot = sum_i |w_i(s)| Q_i + b(s): between VDN and QMIX."""

    Settings = WeightedSumSettings

    def __init__(
        self, settings: WeightedSumSettings, n_agents: int, state_dim: int, n_actions: int, copies: int = 1
    ) -> None:
        super().__init__()
        self.copies = copies
        hidden = settings.weight_hidden_dim
        self.weights = StackedMLP(copies, [state_dim, hidden, n_agents])
        self.bias = StackedMLP(copies, [state_dim, hidden, 1])

    def forward(self, qs: Tensor, state: Tensor, maxima: Tensor | None = None, actions: Tensor | None = None) -> Tensor:
        """Shapes: qs ``[M, R, N]``, state ``[R, S]`` -> ``[M, R]``."""
        s = state.unsqueeze(0)
        return (self.weights(s).abs() * qs).sum(-1) + self.bias(s).squeeze(-1)  # |w| keeps each agent's argmax


def main(**changes: Any) -> dict[str, float]:
    """Train with these settings changed. Returns the last test's metrics."""
    settings = {"weight_hidden_dim": 16, "t_max": 20_000, "seed": 1} | changes
    with shoal.make("qmix", "matrix_game", mixer=WeightedSum, **settings) as run:
        return run.train()


if __name__ == "__main__":  # worker processes import this file
    print(main())
