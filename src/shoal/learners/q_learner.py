"""Independent Q-learning, VDN, QMIX and QPLEX: one learner, the mixer makes the difference."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.controllers.make import Make
from shoal.declare import Range
from shoal.learners.learner import Metrics, with_auxiliary
from shoal.learners.value_learner import ValueLearner, ValueLearnerSettings, chosen
from shoal.modules.mixers.mixer import Mixer


@dataclass(frozen=True)
class QLearnerSettings(ValueLearnerSettings):
    mixer: Annotated[str | None, "mixer of the agents' utilities into Q^tot; null: independent learners (IQL)"] = "qmix"
    td_loss: Annotated[float, "coefficient of the mean squared TD error (PyMARL2: 0.5; PyMARL: 1)", Range(0)] = 0.5
    double_q: Annotated[bool, "double Q-learning: choose the bootstrap action with the online network"] = True


class QLearner(ValueLearner):
    """Q-learning on a joint value (VDN, QMIX, QPLEX), or on every agent's own where there is no mixer (IQL).

    V_t = Q'(s_t, argmax_u Q(s_t, u)),   y = TD(lambda) of V,   L = c mean (Q(u) - y)^2

    c is ``td_loss``; where a controller or its agent brings losses of its own, they are added. A variant that weights
    errors, or measures them otherwise, overrides ``error_loss``.
    """

    Settings = QLearnerSettings

    def build(self, make: Make) -> None:
        self.target_controller = self.target_of(self.controller)
        self.mixer: Mixer | None = None
        self.target_mixer: Mixer | None = None
        if self.settings.mixer is not None:
            self.mixer = self.make_mixer(make)
            self.target_mixer = self.target_of(self.mixer)

    def loss(self, batch: EpisodeBatch, t_env: int = 0) -> tuple[Tensor, Metrics]:
        steps = PackedSteps.with_value(batch)
        state, avail = steps.pack(batch["state"]), steps.pack(batch["avail_actions"])  # [P, S], [P, N, A]
        acted, actions = steps.acted, steps.pack(batch["actions"])
        values, _, added = self.controller.unroll_for_loss(batch, steps, t_env)  # [1, P, N, A]
        taken = chosen(values[:, acted], actions[acted])  # [1, R, N]

        with torch.no_grad():
            target_values, _ = self.target_controller.unroll_packed(batch, steps)
            best, target_best = greedy(values, avail), greedy(target_values, avail)  # [1, P, N]
            maxima, target_maxima = chosen(values, best), chosen(target_values, target_best)
            selected = best if self.settings.double_q else target_best
            bootstrap = chosen(target_values, selected)

        if self.mixer is None or self.target_mixer is None:
            # Every agent regresses its own value on the common reward: [N, R] and [N, P].
            q, v = taken[0].T, bootstrap[0].T
        else:
            q = self.mixer(taken, state[acted], maxima[:, acted], actions[None, acted])  # [1, R]
            with torch.no_grad():
                v = self.target_mixer(bootstrap, state, target_maxima, selected)  # [1, P]
        y = self.targets(batch, steps, v)

        td_error = q - y
        loss = self.settings.td_loss * self.error_loss(td_error, batch, steps)
        metrics = {
            "loss_td": loss.detach(),
            "td_error_abs": td_error.detach().abs().mean(),
            "q_taken_mean": q.detach().mean(),
            "target_mean": y.mean(),
        }
        return with_auxiliary(loss, metrics, added)

    def error_loss(self, td_error: Tensor, batch: EpisodeBatch, steps: PackedSteps) -> Tensor:
        """The loss of the TD errors Q(u) - y, before its coefficient: their mean square.

        Args:
            td_error: of the transitions, ``[1, R]``; without a mixer one row an agent, ``[N, R]``.
            batch: where they come from. ``steps.pack(batch[key])[steps.acted]`` is a key's value at each of them.
            steps: the batch's real steps.

        Returns:
            A scalar.
        """
        return td_error.square().mean()
