"""WQMIX: a weighted projection of an unrestricted joint value onto the monotonic one."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.controllers.make import Make
from shoal.declare import Range
from shoal.learners.central_value import CentralValue
from shoal.learners.learner import Metrics, with_auxiliary
from shoal.learners.value_learner import ValueLearner, ValueLearnerSettings, chosen


@dataclass(frozen=True)
class WQMIXSettings(ValueLearnerSettings):
    mixer: Annotated[str, "mixer of the agents' utilities into the monotonic Q^tot"] = "qmix"
    central_mac: Annotated[str, "controller of the utilities of the central Q*"] = "basic_central_mac"
    central_mixer: Annotated[str, "mixer of the central Q*, which need not be monotonic"] = "ff"
    hysteretic_qmix: Annotated[bool, "optimistic weighting (OW-QMIX); off: central weighting (CW-QMIX)"] = True
    w: Annotated[float, "weight of TD errors that are weighted down (WQMIX's alpha)", Range(above=0, most=1)] = 0.1
    qmix_loss: Annotated[float, "coefficient of the loss of the monotonic Q^tot", Range(0)] = 1.0
    central_loss: Annotated[float, "coefficient of the loss of the central Q*", Range(0)] = 1.0


class WQMIXLearner(ValueLearner):
    """WQMIX (Rashid et al. 2020), optimistic or centrally weighted.

        a = argmax Q,   V_t = Q*'(s_t, a_t),   y = TD(lambda) of V
        L = mean w(u) (Q(u) - y)^2 + 1/2 mean (Q*(u) - y)^2

    The 1/2 is PyMARL2's.
    """

    Settings = WQMIXSettings

    def build(self, make: Make) -> None:
        self.mixer = self.make_mixer(make)
        self.central = CentralValue(self.spec, make)
        self.target_central = self.target_of(self.central)

    def loss(self, batch: EpisodeBatch, t_env: int = 0) -> tuple[Tensor, Metrics]:
        s = self.settings
        steps = PackedSteps.with_value(batch)
        state, avail = steps.pack(batch["state"]), steps.pack(batch["avail_actions"])  # [P, S], [P, N, A]
        acted = steps.acted
        actions, state_acted = steps.pack(batch["actions"])[acted], state[acted]  # [R, N], [R, S]
        values, _, added = self.controller.unroll_for_loss(batch, steps, t_env)  # [1, P, N, A]
        best = greedy(values.detach(), avail)  # [1, P, N]
        maxima = chosen(values.detach(), best)[:, acted]
        q_tot = self.mixer(chosen(values[:, acted], actions), state_acted, maxima, actions.unsqueeze(0))[0]  # [R]
        utilities = self.central.utilities(batch, steps)[acted]
        q_star = self.central(utilities, actions.unsqueeze(0), state_acted)[0]  # [R]

        with torch.no_grad():
            v = self.target_central(self.target_central.utilities(batch, steps), best, state)  # [1, P]
            y = self.targets(batch, steps, v)[0]  # [R]
            if s.hysteretic_qmix:
                weight = optimistic_weight(q_tot, y, s.w)
            else:
                weight = central_weight((actions == best[0, acted]).all(-1), y, v[0, acted], s.w)

        loss_td = (weight * (q_tot - y).square()).mean()
        loss_central = 0.5 * (q_star - y).square().mean()
        metrics = {
            "loss_td": loss_td.detach(),
            "loss_central": loss_central.detach(),
            "td_error_abs": (q_tot - y).detach().abs().mean(),
            "q_taken_mean": q_tot.detach().mean(),
            "central_q_taken_mean": q_star.detach().mean(),
            "target_mean": y.mean(),
            "w_to_use": weight.mean(),
        }
        loss = s.qmix_loss * loss_td + s.central_loss * loss_central
        return with_auxiliary(loss, metrics, added)


def optimistic_weight(q: Tensor, y: Tensor, w: float) -> Tensor:
    """1 where the value underestimates its target (strictly), else ``w``."""
    return torch.where(q < y, 1.0, w)


def central_weight(is_greedy: Tensor, y: Tensor, v_greedy: Tensor, w: float) -> Tensor:
    """1 where the action is the greedy one or its target beats the greedy one's value (strictly), else ``w``."""
    return torch.where(is_greedy | (y > v_greedy), 1.0, w)
