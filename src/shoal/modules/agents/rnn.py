"""The recurrent agent of PyMARL: Linear, ReLU, GRU, Linear, with parameters shared by the team."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from shoal.modules.layers.gru import StackedGRU
from shoal.modules.layers.stacked import StackedLinear


@dataclass(frozen=True)
class RNNAgentSettings:
    rnn_hidden_dim: Annotated[int, "width of the agents' hidden layer and recurrent state"] = 64

    def __post_init__(self) -> None:
        if self.rnn_hidden_dim < 1:
            raise ValueError(f"rnn_hidden_dim={self.rnn_hidden_dim} is out of range: it must be at least 1.")


class RNNAgent(nn.Module):
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

    def initial_hidden(self, batch_size: int, n_agents: int) -> Tensor:
        """Zeros ``[M, B, N, H]``."""
        return self.fc_in.weight.new_zeros(self.copies, batch_size, n_agents, self.hidden_dim)

    def forward(self, inputs: Tensor, hidden: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
        """Run over packed steps: ``counts[t]`` teams at step t, never more than at the step before.

        Shapes: inputs ``[P, N, d]`` with P = sum(counts), hidden ``[M, counts[0], N, H]`` -> outputs ``[M, P, N, A]``
        and the recurrent states after every step ``[M, P, N, H]``.
        """
        P, N, d = inputs.shape
        M, H = self.copies, self.hidden_dim
        x = self.fc_in(inputs.reshape(1, P * N, d)).relu_()
        states = self.rnn(x.view(M, P * N, H), hidden.reshape(M, -1, H), [count * N for count in counts])
        return self.fc_out(states).view(M, P, N, -1), states.view(M, P, N, H)
