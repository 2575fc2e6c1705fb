"""Independent Q-learning, VDN and QMIX: one learner, the mixer makes the difference."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import EpisodeBatch, transition_mask
from shoal.components.returns import td_lambda
from shoal.controllers.basic import Make
from shoal.learners.learner import Learner, LearnerSettings, Metrics, chosen, masked_mean


@dataclass(frozen=True)
class QLearnerSettings(LearnerSettings):
    mixer: Annotated[str | None, "how utilities become a joint value; null trains every agent alone (IQL)"] = "qmix"
    double_q: Annotated[bool, "choose the bootstrap action with the online network"] = True


class QLearner(Learner):
    """Q-learning on a joint value (VDN, QMIX), or on every agent's own value where there is no mixer (IQL).

    V_t = Q'(s_t, argmax_u Q(s_t, u)),   y = TD(lambda) of V,   L = 1/2 mean (Q(u) - y)^2
    """

    Settings = QLearnerSettings

    def build(self, make: Make) -> None:
        self.target_controller = self.target_of(self.controller)
        self.mixer = self.target_mixer = None
        if self.settings.mixer is not None:
            self.mixer = make("mixer", n_agents=self.spec.n_agents, state_dim=self.spec.state_dim)
            self.target_mixer = self.target_of(self.mixer)

    def loss(self, batch: EpisodeBatch) -> tuple[Tensor, Metrics]:
        mask = transition_mask(batch)  # [B, T]
        state, avail = batch["state"], batch["avail_actions"]
        values = self.controller.unroll(batch)  # [B, T+1, N, A]
        taken = chosen(values[:, :-1], batch["actions"][:, :-1])  # [B, T, N]

        with torch.no_grad():
            target_values = self.target_controller.unroll(batch)
            best = greedy(values if self.settings.double_q else target_values, avail)  # [B, T+1, N]
            bootstrap = chosen(target_values, best)

        if self.mixer is None or self.target_mixer is None:
            # Every agent regresses its own value on the common reward: [N, B, T].
            q, v = taken.movedim(-1, 0), bootstrap.movedim(-1, 0)
        else:
            q = self.mixer(taken.unsqueeze(0), state[:, :-1])  # [1, B, T]
            with torch.no_grad():
                v = self.target_mixer(bootstrap.unsqueeze(0), state)
        with torch.no_grad():
            reward, terminated = batch["reward"][:, :-1, 0], batch["terminated"][:, :-1, 0].float()
            y = td_lambda(reward, terminated, mask, v, self.settings.gamma, self.settings.td_lambda)

        td_error = q - y
        loss = 0.5 * masked_mean(td_error.square(), mask).mean()
        return loss, {
            "loss_td": loss.detach(),
            "td_error_abs": masked_mean(td_error.detach().abs(), mask).mean(),
            "q_taken_mean": masked_mean(q.detach(), mask).mean(),
            "target_mean": masked_mean(y, mask).mean(),
        }
