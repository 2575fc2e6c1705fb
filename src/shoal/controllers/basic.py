"""The controller of PyMARL: one network for the whole team, acting from its outputs."""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import EpisodeBatch, PackedSteps, Scheme
from shoal.components.diagnostics import choosing
from shoal.components.spec import TeamSpec
from shoal.controllers.team import Make, NormaliseInputs, TeamInputs, TeamNetwork
from shoal.declare import Checked
from shoal.modules.agents.agent import Agent
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class BasicMACSettings(Checked):
    agent: Annotated[str, "network of one agent"] = "rnn"
    action_selector: Annotated[str, "way of exploring"] = "epsilon_greedy"
    obs_last_action: Annotated[bool, "whether an agent's input holds its last action"] = True
    obs_agent_id: Annotated[bool, "whether an agent's input holds its id"] = True
    full_comm: Annotated[bool, "whether every agent observes what any agent observes (FullComm)"] = False
    normalise_inputs: NormaliseInputs = False


class BasicMAC(TeamNetwork):
    """Shared-parameter controller: each agent acts from its own observation history."""

    Settings = BasicMACSettings
    has_sub_values = False
    chooses_vectors = False
    """Whether actions are vectors, chosen among candidates."""
    reads_state = False
    """Whether ``select_actions`` needs the environment's state beside the observations."""
    n_draws = 1
    """Ways that chance may take in ``deployed_actions``; 1 where nothing is left to it."""

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
                where the controller ``reads_state``; ``alive [B, N]`` where the environment says who is).
            state: what ``initial_state`` or the last call returned, same rows.
            t_env: environment steps done so far (exploration schedules).
            test_mode: greedy actions.

        Returns:
            ``actions`` (and ``extra_fields``) to store, batch size ``[B]``; the next state.
        """
        values, hidden = self.step(step, state)
        actions = self.selector.select(values[0], step.get("avail_actions"), t_env, test_mode)
        return self._acted(actions, hidden)

    def deployed_actions(self, outputs: Tensor, avail_actions: Tensor | None, draw: Tensor) -> Tensor:
        """The greedy actions, as ``select_actions`` takes them in tests that do not explore; free of random numbers.

        Args:
            outputs: of the network, ``[M, B, N, A]``.
            avail_actions: bool ``[B, N, A]`` where actions are discrete.
            draw: int64 ``[]``, which of the ``n_draws`` ways chance takes.

        Returns:
            actions int64 ``[B, N]`` or float ``[B, N, d]``.
        """
        if avail_actions is not None:
            return greedy(outputs[0], avail_actions)
        actions: Tensor = self.selector.select(outputs[0], None, 0, True)
        return actions

    def _acted(self, actions: Tensor, hidden: Tensor, **extra: Tensor) -> tuple[TensorDict, TensorDict]:
        B = actions.shape[0]
        state = {"hidden": hidden.transpose(0, 1), "last_actions": self.inputs.as_vectors(actions)}
        return TensorDict({"actions": actions, **extra}, batch_size=[B]), TensorDict(state, batch_size=[B])

    def unroll(self, batch: EpisodeBatch) -> Tensor:
        """Outputs for every step of a batch, in one call: ``[B, T+1, N, A]``, zeros in padding."""
        steps = PackedSteps.of(batch)
        return steps.unpack(self.unroll_packed(batch, steps)[0])[0]

    def unroll_for_loss(
        self, batch: EpisodeBatch, steps: PackedSteps, t_env: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As ``unroll_packed``, and the losses that agent and controller add to the learner's, by their names."""
        inputs, alive = self.agent_inputs(batch, steps), self.alive_in(batch, steps)
        hidden = self.agent.initial_hidden(batch.shape[0], self.spec.n_agents)
        outputs, histories, losses = self.agent.forward_with_losses(
            inputs, hidden, steps.counts, alive, steps.acted, t_env
        )
        return outputs, histories, losses | self.auxiliary_losses(batch, steps, histories)

    def value_taken(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Values of executed actions: outputs ``[M, P, N, A]``, actions ``[P, N (, d)]`` -> ``[M, P, N]``."""
        index = actions.expand(outputs.shape[:-1]).unsqueeze(-1)
        return outputs.gather(-1, index).squeeze(-1)

    def value_next(
        self, outputs: Tensor, target: "BasicMAC", target_outputs: Tensor, avail: Tensor | None, double_q: bool
    ) -> Tensor:
        """What ``target`` says that each agent's best action is worth, by its own choice or (double Q) by this one's.

        Shapes: outputs of both ``[M, P, N, A]``, avail ``[P, N, A]`` (discrete) -> ``[P, N]``.
        """
        assert avail is not None
        best = greedy(outputs[0] if double_q else target_outputs[0], avail)
        return target.value_taken(target_outputs, best)[0]

    def update_beside(
        self, outputs: Tensor, counted: Tensor, target: "BasicMAC", t_env: int, n_updates: int
    ) -> dict[str, Tensor]:
        """What the controller learns beside its gradient, before an update's step, and what to record of it.

        Args:
            outputs: of the transitions, ``[M, R, N, A]``.
            counted: whose transitions count, bool ``[R, N]``.
            target: the target controller.
            t_env: environment steps done so far.
            n_updates: gradient steps done so far, this one included.
        """
        return {}

    def auxiliary_losses(self, batch: EpisodeBatch, steps: PackedSteps, histories: Tensor) -> dict[str, Tensor]:
        """Losses that the controller adds to the learner's, by the name they are recorded under.

        ``histories`` are the recurrent states of the batch, ``[M, P, N, H]``.
        """
        return {}

    def acting_part(self) -> "BasicMAC":
        """A controller with this one's agent in which what only training uses is left out."""
        return self

    def executions(self) -> dict[str, "BasicMAC"]:
        """The controllers that tests play, by the prefix of their metrics: more than one where the agent offers more.

        The one without a prefix is what is deployed.
        """
        mac = self.acting_part()
        return {prefix: mac._with_agent(agent) for prefix, agent in mac.agent.executions().items()}

    def for_execution(self) -> "BasicMAC":
        """The controller that is deployed."""
        return self.executions()[""]

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
        metrics: dict[str, Tensor] = self.agent.diagnostics(inputs, alive, steps.acted, t_env)
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
        exploration: dict[str, float] = self.selector.metrics(t_env)
        return exploration
