"""The recurrent agent of PyMARL: Linear, ReLU, GRU, Linear, with parameters shared by the team."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from shoal.declare import Checked, Range
from shoal.modules.agents.agent import Agent
from shoal.modules.layers.gru import StackedGRU
from shoal.modules.layers.stacked import StackedLinear


@dataclass(frozen=True)
class RNNAgentSettings(Checked):
    rnn_hidden_dim: Annotated[int, "width of the agents' hidden layer and recurrent state", Range(1)] = 64


class RNNAgent(Agent):
    """Recurrent utility network (Linear, ReLU, GRU, Linear), one set of parameters for the whole team.

    Holds ``copies`` = M independent networks that read the same inputs (S2Q's sub-values; M = 1 elsewhere).
    """

    Settings = RNNAgentSettings

    def __init__(self, settings: RNNAgentSettings, input_dim: int, output_dim: int, copies: int = 1) -> None:
        super().__init__()
        self.hidden_dim = settings.rnn_hidden_dim
        self.copies = copies
        self.fc_in = StackedLinear(copies, input_dim, self.hidden_dim)
        self.rnn = StackedGRU(copies, self.hidden_dim, self.hidden_dim)
        self.fc_out = StackedLinear(copies, self.hidden_dim, output_dim)

    def forward(
        self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See ``Agent.forward``."""
        P, N, d = inputs.shape
        M, H = self.copies, self.hidden_dim
        x = self.fc_in(inputs.reshape(1, P * N, d)).relu_()
        states = self.rnn(x.view(M, P * N, H), hidden.reshape(M, -1, H), [count * N for count in counts])
        return self.fc_out(states).view(M, P, N, -1), states.view(M, P, N, H)
