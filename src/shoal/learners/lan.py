"""Local Advantage Networks: one learner for discrete actions, bang-bang, Q-functionals and codebooks."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from shoal.components.action_selectors import UNAVAILABLE, greedy
from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC
from shoal.controllers.controller import Controller
from shoal.controllers.make import Make
from shoal.controllers.vectors import VectorMAC
from shoal.learners.learner import Metrics, with_auxiliary
from shoal.learners.value_learner import ValueLearner, ValueLearnerSettings, chosen
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class LANSettings(ValueLearnerSettings):
    critic: Annotated[str, "network of the centralised value"] = "lan_value"
    double_q: Annotated[
        bool, "double Q-learning: choose the bootstrap action with the online network (no effect with mac=mq_mac)"
    ] = True
    lan_advantage_center: Annotated[
        Literal["none", "mean", "max"],
        "what is subtracted from discrete advantages: nothing, their mean or their maximum",
    ] = "none"
    lan_value_grad_to_encoder: Annotated[bool, "the centralised value's loss also trains the agents' encoder"] = True
    mask_dead: Annotated[bool, "leave dead agents out of the loss"] = False


class LANLearner(ValueLearner):
    """LAN (Avalos et al. 2023): a centralised value and every agent's own advantages, without a mixer.

        Q^i(s, tau, a) = V(s, tau) + A^i(tau^i, a)
        y^i_t = r_t + gamma (1 - terminated_t) (V'(s_{t+1}, tau_{t+1}) + A'^i_next)
        L = sum m^i (Q^i - y^i)^2 / sum m^i, over all critics j of the controller

    Actions are indices (``basic_mac``; LAN, Bang-Bang LAN), sampled vectors (``qf_mac``) or codebooks (``mq_mac``): a
    ``VectorMAC`` says itself what A^i of the executed action is and what A'^i_next is. V reads the first critic's
    recurrent state, which has seen o_t; the target's unroll has seen the whole history.
    """

    Settings = LANSettings
    controller: BasicMAC

    @classmethod
    def check_actions(cls, spec: TeamSpec) -> None:
        """Nothing to refuse: the controller says what actions it needs."""

    @classmethod
    def check_controller(cls, controller: type[Controller]) -> None:
        if controller.has_sub_values:
            raise UserError(
                f"The learner {cls.__name__} cannot train {controller.__name__}: "
                "use mac=basic_mac, comm_mac, qf_mac or mq_mac."
            )

    def build(self, make: Make) -> None:
        mac = self.controller
        if mac.chooses_vectors and self.settings.lan_advantage_center != "none":
            raise UserError(
                f"lan_advantage_center={self.settings.lan_advantage_center} needs discrete actions: "
                "set lan_advantage_center=none."
            )
        self.target_controller = self.target_of(mac)
        width = mac.agent.hidden_dim + mac.inputs.dim
        self.value = make("critic", input_dim=width, state_dim=self.spec.state_dim)
        self.target_value = self.target_of(self.value)
        self._passed: tuple[Tensor, Tensor] | None = None

    def loss(self, batch: EpisodeBatch, t_env: int = 0) -> tuple[Tensor, Metrics]:
        s, mac = self.settings, self.controller
        steps = PackedSteps.with_value(batch)
        acted, state, inputs = steps.acted, steps.pack(batch["state"]), mac.inputs.of_batch(batch, steps)
        alive = steps.pack(batch["alive"]) if self.spec.has_alive else None  # [P, N]
        avail = steps.pack(batch["avail_actions"]) if self.spec.discrete else None  # [P, N, A]

        outputs, histories, added = mac.unroll_for_loss(batch, steps, t_env)  # [M, P, N, A], [M, P, N, H]
        outputs = self._centred(outputs, avail)
        h = histories[0, acted] if s.lan_value_grad_to_encoder else histories[0, acted].detach()
        v = self.value(h, inputs[acted], state[acted], None if alive is None else alive[acted])  # [R]
        taken_outputs = outputs[:, acted]
        a = self._value_taken(taken_outputs, steps.pack(batch["actions"])[acted])  # [M, R, N]
        q = v.unsqueeze(-1) + a

        with torch.no_grad():
            target_outputs, target_histories = self.target_controller.unroll_packed(batch, steps)
            target_outputs = self._centred(target_outputs, avail)
            a_next = self._value_next(outputs, target_outputs, avail)  # [P, N]
            v_next = self.target_value(target_histories[0], inputs, state, alive)  # [P]
            counted = alive[acted] if s.mask_dead and alive is not None else torch.ones_like(q[0], dtype=torch.bool)
            y = self.targets(batch, steps, (v_next.unsqueeze(-1) + a_next).T, counted.T).T  # [R, N]

        self._passed = taken_outputs.detach(), counted
        m = counted / counted.sum().clamp(min=1)  # [R, N], sums to 1
        td_error = q - y
        loss = (m * td_error.square()).sum()
        metrics = {
            "loss_td": loss.detach(),
            "td_error_abs": (m * td_error.detach().abs()).sum() / len(q),
            "v_mean": v.detach().mean(),
            "adv_taken_mean": (m * a.detach()[0]).sum(),
            "target_mean": (m * y).sum(),
        }
        return with_auxiliary(loss, metrics, added)

    def before_step(self, t_env: int) -> Metrics:
        assert self._passed is not None
        outputs, counted = self._passed
        self._passed = None
        metrics = {"lr": torch.tensor(self.optimiser.param_groups[0]["lr"])}
        mac, target = self.controller, self.target_controller
        if isinstance(mac, VectorMAC) and isinstance(target, VectorMAC):
            metrics |= mac.before_step(outputs, counted, target, t_env, int(self.n_updates))
        return metrics

    def _value_taken(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """A of executed actions: outputs ``[M, R, N, A]``, actions ``[R, N (, d)]`` -> ``[M, R, N]``."""
        mac = self.controller
        return mac.value_taken(outputs, actions) if isinstance(mac, VectorMAC) else chosen(outputs, actions)

    def _value_next(self, outputs: Tensor, target_outputs: Tensor, avail: Tensor | None) -> Tensor:
        """A' of each agent's best action: outputs of both controllers ``[M, P, N, A]`` -> ``[P, N]``."""
        mac, target, double_q = self.controller, self.target_controller, self.settings.double_q
        if isinstance(mac, VectorMAC) and isinstance(target, VectorMAC):
            return mac.value_next(outputs, target, target_outputs, double_q)
        assert avail is not None
        best = greedy(outputs[0] if double_q else target_outputs[0], avail)
        return chosen(target_outputs[0], best)

    def _centred(self, outputs: Tensor, avail: Tensor | None) -> Tensor:
        """Advantages less their mean or their maximum over the available actions: ``[M, P, N, A]``."""
        how = self.settings.lan_advantage_center
        if how == "none" or avail is None:
            return outputs
        if how == "max":
            best = outputs.masked_fill(~avail, UNAVAILABLE).amax(-1, keepdim=True)
            return outputs - best.masked_fill(~avail.any(-1, keepdim=True), 0.0)
        mean = (outputs * avail).sum(-1, keepdim=True) / avail.sum(-1, keepdim=True).clamp(min=1)
        return outputs - mean
