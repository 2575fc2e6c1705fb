"""On-policy learning: the last rollout alone as memory, actions drawn from a softmax, and REINFORCE."""

from dataclasses import dataclass

import torch

from shoal.components.action_selectors import UNAVAILABLE, ActionSelector
from shoal.components.batch import PackedSteps
from shoal.components.memory import Memory
from shoal.learners.learner import Learner, LearnerSettings


@dataclass(frozen=True)
class NoSettings:
    pass


class LastRollout(Memory):
    """The last rollout, once."""

    Settings = NoSettings

    def __init__(self, settings, scheme, episode_limit, device, seed):
        self.device = device

    def insert(self, rollout):
        self.rollout = rollout

    def batches(self, t_env):
        yield self.rollout.to(self.device)


class Softmax(ActionSelector):
    """Actions drawn from the softmax of the agents' outputs; in tests the likeliest."""

    Settings = NoSettings
    discrete = True

    def __init__(self, settings):
        pass

    def select(self, values, avail_actions, t_env, test_mode):
        logits = values.masked_fill(~avail_actions, UNAVAILABLE)
        return logits.argmax(-1) if test_mode else torch.distributions.Categorical(logits=logits).sample()


class Reinforce(Learner):
    """REINFORCE (Williams 1992): log pi(u) times the return less its mean."""

    Settings = LearnerSettings

    def build(self, make):
        pass

    def train_on(self, batch, t_env, episode):
        steps = PackedSteps.of(batch)
        acted, avail = steps.acted, steps.pack(batch["avail_actions"])
        logits = self.controller.unroll_packed(batch, steps)[0][0].masked_fill(~avail, UNAVAILABLE)[acted]
        log_pi = torch.distributions.Categorical(logits=logits).log_prob(steps.pack(batch["actions"])[acted]).sum(-1)
        G = steps.pack_acted(self.returns_to_go(batch).unsqueeze(0))[0]
        loss = -(log_pi * (G - G.mean())).mean()
        return self.step(loss, {"loss_policy": loss.detach()}, t_env)
