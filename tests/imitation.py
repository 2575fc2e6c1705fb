"""A small learner of continuous actions for tests: it repeats what was paid for."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from shoal.components.batch import PackedSteps


@dataclass(frozen=True)
class ImitationSettings:
    lr: Annotated[float, "learning rate"] = 0.01


class Imitation(nn.Module):
    """Regresses the agents' outputs on executed actions, weighted by the reward. What a run asks of a learner."""

    Settings = ImitationSettings

    def __init__(self, settings, spec, make):
        super().__init__()
        self.controller = make("mac", spec=spec, make=make)
        self.optimiser = torch.optim.Adam(self.parameters(), lr=settings.lr)
        self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64))
        self.batches = []

    @classmethod
    def check_controller(cls, controller):
        """It trains any controller with one output for each agent."""

    def train_on(self, batch, t_env, episode):
        self.batches.append(batch)
        steps = PackedSteps.of(batch)
        outputs = self.controller.unroll_packed(batch, steps)[0][0][steps.acted]
        wanted, paid = steps.pack(batch["actions"])[steps.acted], steps.pack(batch["reward"])[steps.acted]
        loss = (paid.clamp(min=0).unsqueeze(-1) * (outputs - wanted) ** 2).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.n_updates += 1
        return {"loss_td": loss.detach()}

    def get_extra_state(self):
        return self.optimiser.state_dict()

    def set_extra_state(self, state):
        self.optimiser.load_state_dict(state)
