"""An agent of one's own: one linear layer, no memory."""

from dataclasses import dataclass

from shoal.modules.agents.agent import Agent
from shoal.modules.layers.stacked import StackedLinear


@dataclass(frozen=True)
class LinearSettings:
    pass


class LinearAgent(Agent):
    """One linear layer."""

    Settings = LinearSettings

    def __init__(self, settings, input_dim, output_dim, copies=1):
        super().__init__()
        self.hidden_dim, self.copies = output_dim, copies
        self.layer = StackedLinear(copies, input_dim, output_dim)

    def forward(self, inputs, hidden, counts, alive=None):
        P, N, d = inputs.shape
        outputs = self.layer(inputs.reshape(1, P * N, d)).view(self.copies, P, N, -1)
        return outputs, outputs
