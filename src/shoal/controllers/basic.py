"""The controller of PyMARL: one network for the whole team, acting from its outputs."""

from dataclasses import dataclass
from typing import Annotated

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.batch import EpisodeBatch, PackedSteps, Scheme
from shoal.components.spec import TeamSpec
from shoal.controllers.team import Make, TeamInputs, TeamNetwork
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class BasicMACSettings:
    agent: Annotated[str, "network of one agent"] = "rnn"
    action_selector: Annotated[str, "way of exploring"] = "epsilon_greedy"
    obs_last_action: Annotated[bool, "whether an agent's input holds its last action"] = True
    obs_agent_id: Annotated[bool, "whether an agent's input holds its id"] = True
    full_comm: Annotated[bool, "whether every agent observes what any agent observes (FullComm)"] = False


class BasicMAC(TeamNetwork):
    """Shared-parameter controller: each agent acts from its own observation history."""

    Settings = BasicMACSettings
    has_sub_values = False
    reads_state = False
    """Whether ``select_actions`` needs the environment's state beside the observations."""

    def __init__(
        self, settings: BasicMACSettings, spec: TeamSpec, make: Make, copies: int = 1, message_dim: int = 0
    ) -> None:
        inputs = TeamInputs(spec, settings.obs_last_action, settings.obs_agent_id, settings.full_comm)
        agent = make("agent", input_dim=inputs.dim + message_dim, output_dim=spec.n_actions, copies=copies)
        super().__init__(spec, inputs, agent)
        self.selector = make("action_selector")
        if self.selector.discrete != spec.discrete:
            kind = "discrete" if spec.discrete else "continuous"
            raise UserError(
                f"action_selector={settings.action_selector} does not fit the environment's {kind} actions: "
                f"use {'epsilon_greedy' if spec.discrete else 'gaussian'}."
            )

    @property
    def extra_fields(self) -> Scheme:
        """Keys that acting adds to the batch beside the actions."""
        return {}

    @torch.no_grad()
    def select_actions(
        self, step: TensorDict, state: TensorDict, t_env: int, test_mode: bool = False
    ) -> tuple[TensorDict, TensorDict]:
        """Act for one step.

        Args:
            step: ``obs [B, N, D]`` and ``avail_actions [B, N, A]`` of the live environments (and their ``state [B, S]``
                where the controller ``reads_state``).
            state: what ``initial_state`` or the last call returned, same rows.
            t_env: environment steps done so far (exploration schedules).
            test_mode: greedy actions.

        Returns:
            ``actions`` (and ``extra_fields``) to store, batch size ``[B]``; the next state.
        """
        values, hidden = self.step(step, state)
        actions = self.selector.select(values[0], step.get("avail_actions"), t_env, test_mode)
        return self._acted(actions, hidden)

    def _acted(self, actions: Tensor, hidden: Tensor, **extra: Tensor) -> tuple[TensorDict, TensorDict]:
        B = actions.shape[0]
        state = {"hidden": hidden.transpose(0, 1), "last_actions": self.inputs.as_vectors(actions)}
        return TensorDict({"actions": actions, **extra}, batch_size=[B]), TensorDict(state, batch_size=[B])

    def unroll(self, batch: EpisodeBatch) -> Tensor:
        """Outputs for every step of a batch, in one call: ``[B, T+1, N, A]``, zeros in padding."""
        steps = PackedSteps.of(batch)
        return steps.unpack(self.unroll_packed(batch, steps)[0])[0]

    def auxiliary_losses(self, batch: EpisodeBatch, steps: PackedSteps, histories: Tensor) -> dict[str, Tensor]:
        """Losses that the controller adds to the learner's, by the name they are recorded under.

        ``histories`` are the recurrent states of the batch, ``[M, P, N, H]``.
        """
        return {}

    def for_execution(self) -> "BasicMAC":
        """The controller that tests and deployment use: what remains when all that serves only training is dropped."""
        return self

    def metrics(self, t_env: int) -> dict[str, float]:
        """What to record about exploration now."""
        exploration: dict[str, float] = self.selector.metrics(t_env)
        return exploration
