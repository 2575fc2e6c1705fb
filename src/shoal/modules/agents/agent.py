"""What a controller asks of an agent's network."""

from collections.abc import Callable

from torch import Tensor, nn


class Agent(nn.Module):
    """Base of the agents: one network for the whole team, M independent ``copies`` of it side by side.

    A subclass sets ``hidden_dim`` and ``copies`` and defines ``forward``. One without memory returns its last hidden
    layer as the state, for whoever reads the agents' histories (LAN's value, S2Q's encoder, messages). The other
    methods are for agents that bring a loss of their own, or that execute otherwise than they train.
    """

    __call__: Callable[..., tuple[Tensor, Tensor]]
    hidden_dim: int
    copies: int
    reads_alive = False
    """Whether ``forward`` must be told who is alive."""

    def initial_hidden(self, batch_size: int, n_agents: int) -> Tensor:
        """Zeros ``[M, B, N, H]``."""
        return next(self.parameters()).new_zeros(self.copies, batch_size, n_agents, self.hidden_dim)

    def forward(
        self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run over packed steps: ``counts[t]`` teams at step t, never more than at the step before.

        Shapes: inputs ``[P, N, d]`` with P = sum(counts), hidden ``[M, counts[0], N, H]``, alive ``[P, N]`` (bool; only
        where the agent ``reads_alive``) -> outputs ``[M, P, N, A]`` and the recurrent states after every step
        ``[M, P, N, H]``.
        """
        raise NotImplementedError

    def forward_with_losses(
        self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None, acted: Tensor, t_env: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As ``forward``, and the losses that the agent adds to the learner's, by the name they are recorded under.

        ``acted`` are the indices of the transitions among the P steps, ``t_env`` the environment steps done so far.
        """
        outputs, states = self(inputs, hidden, counts, alive)
        return outputs, states, {}

    def diagnostics(self, inputs: Tensor, alive: Tensor | None, acted: Tensor, t_env: int) -> dict[str, Tensor]:
        """What to record about a batch of training; called at log steps alone. Arguments as above."""
        return {}

    def executions(self) -> dict[str, "Agent"]:
        """The agents that tests play, by the prefix of their metrics; the one without a prefix is what is deployed."""
        return {"": self}
