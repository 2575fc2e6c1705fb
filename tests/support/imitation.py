"""A small learner of continuous actions for tests: it repeats what was paid for."""

from shoal.components.batch import PackedSteps
from shoal.learners.learner import Learner, LearnerSettings


class Imitation(Learner):
    """Regresses the agents' outputs on executed actions, weighted by the reward. What a run asks of a learner."""

    Settings = LearnerSettings

    @classmethod
    def check_actions(cls, spec):
        """Any actions."""

    @classmethod
    def check_controller(cls, controller):
        """It trains any controller with one output for each agent."""

    def build(self, make):
        self.batches = []

    def train_on(self, batch, t_env, episode):
        self.batches.append(batch)
        steps = PackedSteps.of(batch)
        outputs = self.controller.unroll_packed(batch, steps)[0][0][steps.acted]
        wanted, paid = steps.pack(batch["actions"])[steps.acted], steps.pack(batch["reward"])[steps.acted]
        loss = (paid.clamp(min=0).unsqueeze(-1) * (outputs - wanted) ** 2).mean()
        return self.step(loss, {"loss_td": loss.detach()}, t_env)
