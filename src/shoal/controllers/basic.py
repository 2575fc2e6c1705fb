"""The controller of PyMARL: one network for the whole team, acting from its outputs."""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.components.diagnostics import choosing
from shoal.components.spec import TeamSpec
from shoal.controllers.controller import Controller
from shoal.controllers.make import Make
from shoal.controllers.team import NormaliseInputs, TeamInputs, TeamNetwork
from shoal.declare import Checked
from shoal.modules.agents.agent import Agent
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class BasicMACSettings(Checked):
    agent: Annotated[str, "network of one agent"] = "rnn"
    action_selector: Annotated[str, "exploration strategy"] = "epsilon_greedy"
    obs_last_action: Annotated[bool, "append the agent's last action to its observation"] = True
    obs_agent_id: Annotated[bool, "append the agent's id to its observation"] = True
    full_comm: Annotated[bool, "agents share all observations (FullComm)"] = False
    normalise_inputs: NormaliseInputs = False


class BasicMAC(TeamNetwork, Controller):
    """Shared-parameter controller: each agent acts from its own observation history."""

    Settings = BasicMACSettings

    def __init__(
        self,
        settings: BasicMACSettings,
        spec: TeamSpec,
        make: Make,
        copies: int = 1,
        message_dim: int = 0,
        output_dim: int | None = None,
    ) -> None:
        s = settings
        inputs = TeamInputs(spec, s.obs_last_action, s.obs_agent_id, s.full_comm, s.normalise_inputs)
        output_dim = spec.n_actions if output_dim is None else output_dim
        agent = make("agent", input_dim=inputs.dim + message_dim, output_dim=output_dim, copies=copies)
        super().__init__(spec, inputs, agent)
        if self.agent.reads_alive and not spec.has_alive:
            raise UserError(
                f"agent={settings.agent} must be told who is alive, which this environment does not say: "
                "set att_mask_dead=False."
            )
        self.selector = make("action_selector")
        if self.selector.discrete != spec.discrete:
            kind = "discrete" if spec.discrete else "continuous"
            raise UserError(
                f"action_selector={settings.action_selector} does not fit the environment's {kind} actions: "
                + ("use epsilon_greedy." if spec.discrete else "use --config=mq_lan or qf_lan (epsilon_uniform).")
            )

    @torch.no_grad()
    def select_actions(
        self, step: TensorDict, state: TensorDict, t_env: int, test_mode: bool = False
    ) -> tuple[TensorDict, TensorDict]:
        """See ``Controller.select_actions``."""
        values, hidden = self.step(step, state)
        actions = self.selector.select(values[0], step.get("avail_actions"), t_env, test_mode)
        return self._acted(actions, hidden)

    def deployed_actions(self, outputs: Tensor, avail_actions: Tensor | None, draw: Tensor) -> Tensor:
        """See ``Controller.deployed_actions``."""
        if avail_actions is not None:
            return greedy(outputs[0], avail_actions)
        return self.selector.select(outputs[0], None, 0, True)

    def _acted(self, actions: Tensor, hidden: Tensor, **extra: Tensor) -> tuple[TensorDict, TensorDict]:
        B = actions.shape[0]
        state = {"hidden": hidden.transpose(0, 1), "last_actions": self.inputs.as_vectors(actions)}
        return TensorDict({"actions": actions, **extra}, batch_size=[B]), TensorDict(state, batch_size=[B])

    def unroll_for_loss(
        self, batch: EpisodeBatch, steps: PackedSteps, t_env: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See ``Controller.unroll_for_loss``."""
        inputs, alive = self.agent_inputs(batch, steps), self.alive_in(batch, steps)
        hidden = self.agent.initial_hidden(batch.shape[0], self.spec.n_agents)
        outputs, histories, losses = self.agent.forward_with_losses(
            inputs, hidden, steps.counts, alive, steps.acted, t_env
        )
        return outputs, histories, losses | self.auxiliary_losses(batch, steps, histories)

    def auxiliary_losses(self, batch: EpisodeBatch, steps: PackedSteps, histories: Tensor) -> dict[str, Tensor]:
        """Losses that the controller adds to the learner's, by the name they are recorded under.

        ``histories`` are the recurrent states of the batch, ``[M, P, N, H]``.
        """
        return {}

    def acting_part(self) -> "BasicMAC":
        """A controller with this one's agent in which what only training uses is left out."""
        return self

    def executions(self) -> dict[str, Controller]:
        """See ``Controller.executions``: the controllers with the agents that this one's agent executes as."""
        mac = self.acting_part()
        return {prefix: mac._with_agent(agent) for prefix, agent in mac.agent.executions().items()}

    def _with_agent(self, agent: Agent) -> "BasicMAC":
        if agent is self.agent:
            return self
        mac = copy.deepcopy(self)
        mac.agent = agent
        return mac

    @torch.no_grad()
    def diagnostics(self, batch: EpisodeBatch, t_env: int) -> dict[str, Tensor]:
        """What to record about a batch of training. Costs passes of its own, so it is for log steps alone.

        Beside the agent's own, ``<prefix>action_agreement``: how often agents that have a choice would choose in that
        execution as in the deployed one.
        """
        steps = PackedSteps.of(batch)
        inputs, alive = self.agent_inputs(batch, steps), self.alive_in(batch, steps)
        metrics = self.agent.diagnostics(inputs, alive, steps.acted, t_env)
        others = self.agent.executions()
        if len(others) == 1 or not self.spec.discrete:
            return metrics
        hidden = self.agent.initial_hidden(batch.shape[0], self.spec.n_agents)
        avail = steps.pack(batch["avail_actions"])
        actions = {
            prefix: greedy(agent(inputs, hidden, steps.counts, alive)[0][0], avail)[steps.acted]
            for prefix, agent in others.items()
        }  # [R, N]
        deployed, chooses = actions.pop(""), steps.pack(choosing(self.spec, batch))[steps.acted]
        agreement = {prefix: (taken == deployed)[chooses].float().mean() for prefix, taken in actions.items()}
        return metrics | {f"{prefix}action_agreement": share for prefix, share in agreement.items()}

    def metrics(self, t_env: int) -> dict[str, float]:
        """What to record about exploration now."""
        return self.selector.metrics(t_env)
