"""The feed-forward agent of EPyMARL (``use_rnn: False``): no memory, for tasks whose observations tell all."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from shoal.declare import Checked, Range
from shoal.modules.agents.agent import Agent
from shoal.modules.layers.stacked import StackedLinear, StackedMLP


@dataclass(frozen=True)
class MLPAgentSettings(Checked):
    rnn_hidden_dim: Annotated[int, "width of the agents' hidden layers (EPyMARL: hidden_dim)", Range(1)] = 64
    mlp_layers: Annotated[int, "hidden layers of the feed-forward agent", Range(1, 100)] = 2


class MLPAgent(Agent):
    """Feed-forward utility network: ``mlp_layers`` hidden layers with ReLU, one set of parameters for the whole team.

    It remembers nothing but what is in its input (``obs_last_action``). Its state, which nothing feeds back, is the
    last hidden layer. Holds ``copies`` = M independent networks that read the same inputs.
    """

    Settings = MLPAgentSettings

    def __init__(self, settings: MLPAgentSettings, input_dim: int, output_dim: int, copies: int = 1) -> None:
        super().__init__()
        self.hidden_dim = settings.rnn_hidden_dim
        self.copies = copies
        self.body = StackedMLP(copies, [input_dim, *[self.hidden_dim] * settings.mlp_layers])
        self.fc_out = StackedLinear(copies, self.hidden_dim, output_dim)

    def forward(
        self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See ``Agent.forward``; ``hidden`` is not read."""
        P, N, d = inputs.shape
        features = self.body(inputs.reshape(1, P * N, d)).relu_().view(self.copies, P * N, -1)
        return self.fc_out(features).view(self.copies, P, N, -1), features.view(self.copies, P, N, -1)
