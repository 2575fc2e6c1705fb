"""What a run asks of a controller: acting, and which controllers tests play and users deploy."""

from typing import Any

from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, PackedSteps, Scheme
from shoal.components.spec import TeamSpec


class Controller(nn.Module):
    """Base of the controllers (multi-agent controllers, MACs): the team's observations in, its actions out.

    The runner needs ``initial_state``, ``select_actions``, ``extra_fields`` and ``reads_state``; learners unroll over
    batches; tests and export ask for ``executions``. What a controller learns is found by registration, as in every
    ``nn.Module``.
    """

    Settings: type[Any]
    spec: TeamSpec
    has_sub_values = False
    """Whether it holds several copies of its network that a learner must train together (S2Q)."""
    chooses_vectors = False
    """Whether actions are vectors, chosen among candidates."""
    reads_state = False
    """Whether ``select_actions`` needs the environment's state besides the observations."""

    n_draws = 1
    """Ways that chance may take in ``deployed_actions``; 1 where nothing is left to it."""

    @property
    def extra_fields(self) -> Scheme:
        """Keys that acting adds to the batch besides the actions."""
        return {}

    def initial_state(self, batch_size: int) -> TensorDict:
        """What fresh episodes start with: batch size ``[B]``, any keys; at least recurrent states and last actions."""
        raise NotImplementedError

    def select_actions(
        self, step: TensorDict, state: TensorDict, t_env: int, test_mode: bool = False
    ) -> tuple[TensorDict, TensorDict]:
        """Act for one step.

        Args:
            step: ``obs [B, N, D]`` and ``avail_actions [B, N, A]`` of the live environments (and their ``state [B, S]``
                where the controller ``reads_state``; ``alive [B, N]`` where the environment says who is).
            state: what ``initial_state`` or the last call returned, same rows.
            t_env: environment steps done so far (exploration schedules).
            test_mode: greedy actions.

        Returns:
            ``actions`` (and ``extra_fields``) to store, batch size ``[B]``; the next state.
        """
        raise NotImplementedError

    def deployed_actions(self, outputs: Tensor, avail_actions: Tensor | None, draw: Tensor) -> Tensor:
        """The greedy actions, as ``select_actions`` takes them in tests that do not explore; free of random numbers.

        Args:
            outputs: of the network, ``[M, B, N, A]``.
            avail_actions: bool ``[B, N, A]`` where actions are discrete.
            draw: int64 ``[]``, which of the ``n_draws`` ways chance takes.

        Returns:
            actions int64 ``[B, N]`` or float ``[B, N, d]``.
        """
        raise NotImplementedError

    def unroll_packed(self, batch: EpisodeBatch, steps: PackedSteps) -> tuple[Tensor, Tensor]:
        """Outputs ``[M, P, N, A]`` and recurrent states ``[M, P, N, H]`` of every copy, for the real steps alone."""
        raise NotImplementedError

    def unroll_for_loss(
        self, batch: EpisodeBatch, steps: PackedSteps, t_env: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As ``unroll_packed``, and the losses that agent and controller add to the learner's, by their names."""
        outputs, histories = self.unroll_packed(batch, steps)
        return outputs, histories, {}

    def executions(self) -> dict[str, "Controller"]:
        """The controllers that tests play, by the prefix of their metrics: more than one where the agent offers more.

        The one without a prefix is what is deployed.
        """
        return {"": self}

    def for_execution(self) -> "Controller":
        """The controller that is deployed."""
        return self.executions()[""]

    def diagnostics(self, batch: EpisodeBatch, t_env: int) -> dict[str, Tensor]:
        """What to record about a batch of training. Costs passes of its own, so it is for log steps alone."""
        return {}

    def metrics(self, t_env: int) -> dict[str, float]:
        """What to record about exploration now."""
        return {}
