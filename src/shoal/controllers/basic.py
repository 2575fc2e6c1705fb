"""The controller of PyMARL: one network for the whole team, acting from its outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, PackedSteps, Scheme
from shoal.components.spec import TeamSpec
from shoal.controllers.team import TeamInputs
from shoal.utils.errors import UserError

Make = Callable[..., Any]
"""``make(kind, **parts)`` builds the component that the setting ``kind`` names, from its own settings."""


@dataclass(frozen=True)
class BasicMACSettings:
    agent: Annotated[str, "network of one agent"] = "rnn"
    action_selector: Annotated[str, "way of exploring"] = "epsilon_greedy"
    obs_last_action: Annotated[bool, "whether an agent's input holds its last action"] = True
    obs_agent_id: Annotated[bool, "whether an agent's input holds its id"] = True


class BasicMAC(nn.Module):
    """Shared-parameter controller: each agent acts from its own observation history.

    All that belongs to an episode (recurrent state, last action) travels in the ``state`` that ``select_actions``
    takes and returns, one row an environment, so that environments can leave the batch when their episode ends.
    """

    Settings = BasicMACSettings
    has_sub_values = False

    def __init__(self, settings: BasicMACSettings, spec: TeamSpec, make: Make, copies: int = 1) -> None:
        super().__init__()
        self.spec = spec
        self.inputs = TeamInputs(spec, settings.obs_last_action, settings.obs_agent_id)
        self.agent = make("agent", input_dim=self.inputs.dim, output_dim=spec.n_actions, copies=copies)
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

    def initial_state(self, batch_size: int) -> TensorDict:
        """State of fresh episodes: recurrent state ``[B, M, N, H]`` and last actions as vectors ``[B, N, A]``."""
        hidden = self.agent.initial_hidden(batch_size, self.spec.n_agents).transpose(0, 1)
        last = hidden.new_zeros(batch_size, self.spec.n_agents, self.spec.n_actions)
        return TensorDict({"hidden": hidden, "last_actions": last}, batch_size=[batch_size])

    @torch.no_grad()
    def select_actions(
        self, step: TensorDict, state: TensorDict, t_env: int, test_mode: bool = False
    ) -> tuple[TensorDict, TensorDict]:
        """Act for one step.

        Args:
            step: ``obs [B, N, D]`` and ``avail_actions [B, N, A]`` of the live environments.
            state: what ``initial_state`` or the last call returned, same rows.
            t_env: environment steps done so far (exploration schedules).
            test_mode: greedy actions.

        Returns:
            ``actions`` (and ``extra_fields``) to store, batch size ``[B]``; the next state.
        """
        values, hidden = self._forward_step(step, state)
        actions = self.selector.select(values[0], step.get("avail_actions"), t_env, test_mode)
        return self._acted(actions, hidden)

    def _forward_step(self, step: TensorDict, state: TensorDict) -> tuple[Tensor, Tensor]:
        """One step of the network: outputs ``[M, B, N, A]``, recurrent state ``[M, B, N, H]``."""
        inputs = self.inputs(step["obs"], state["last_actions"])
        outputs, hidden = self.agent(inputs, state["hidden"].transpose(0, 1), [inputs.shape[0]])
        return outputs, hidden

    def _acted(self, actions: Tensor, hidden: Tensor, **extra: Tensor) -> tuple[TensorDict, TensorDict]:
        B = actions.shape[0]
        state = {"hidden": hidden.transpose(0, 1), "last_actions": self.inputs.as_vectors(actions)}
        return TensorDict({"actions": actions, **extra}, batch_size=[B]), TensorDict(state, batch_size=[B])

    def unroll(self, batch: EpisodeBatch) -> Tensor:
        """Outputs for every step of a batch, in one call: ``[B, T+1, N, A]``, zeros in padding."""
        steps = PackedSteps.of(batch)
        return steps.unpack(self.unroll_packed(batch, steps)[0])[0]

    def unroll_packed(self, batch: EpisodeBatch, steps: PackedSteps) -> tuple[Tensor, Tensor]:
        """Outputs ``[M, P, N, A]`` and recurrent states ``[M, P, N, H]`` of every copy, for the real steps alone."""
        hidden = self.agent.initial_hidden(batch.shape[0], self.spec.n_agents)
        outputs, states = self.agent(self.inputs.of_batch(batch, steps), hidden, steps.counts)
        return outputs, states

    def for_execution(self) -> "BasicMAC":
        """The controller that tests and deployment use: what remains when all that serves only training is dropped."""
        return self

    def metrics(self, t_env: int) -> dict[str, float]:
        """What to record about exploration now."""
        exploration: dict[str, float] = self.selector.metrics(t_env)
        return exploration
