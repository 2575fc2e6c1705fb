"""Learning from single transitions with priorities: rows of two steps, and errors that are written back."""

from dataclasses import dataclass
from typing import Annotated

import torch

from shoal.components.replay import ReplayBuffer, ReplaySettings
from shoal.declare import Range
from shoal.learners.q_learner import QLearner


@dataclass(frozen=True)
class TransitionSettings(ReplaySettings):
    least_priority: Annotated[float, "priority of a transition without error", Range(above=0)] = 0.01


class Transitions(ReplayBuffer):
    """Prioritised transitions: the likelier to be sampled, the larger their last error."""

    Settings = TransitionSettings

    def __init__(self, settings, scheme, episode_limit, device, seed):
        super().__init__(settings, scheme, episode_limit, device, seed)
        self.priorities = torch.zeros(self.capacity, self.rows - 1)
        self.generator = torch.Generator().manual_seed(seed)

    def insert(self, rollout):
        first = self._next
        super().insert(rollout)
        for place in range(first, first + rollout.shape[0]):
            length = int(self._lengths[place % self.capacity])
            self.priorities[place % self.capacity] = 0
            self.priorities[place % self.capacity, :length] = max(1.0, float(self.priorities.max()))

    def batches(self, t_env):
        if self.n_episodes < self.settings.batch_size:
            return
        for _ in range(self.settings.updates_per_rollout):
            ids = torch.multinomial(self.priorities.flatten(), self.settings.batch_size, generator=self.generator)
            weight = 1 / (self.priorities.flatten()[ids] * len(ids))
            place, t = ids // (self.rows - 1), ids % (self.rows - 1)
            rows = torch.stack([self._data[place, t], self._data[place, t + 1]], dim=1)
            batch = rows.to(self.learner_device).update({k: rows[k].to(self.scheme[k].dtype) for k in self.scheme})
            yield batch.update(
                {"id": ids[:, None].expand(-1, 2), "weight": (weight / weight.max())[:, None].expand(-1, 2)}
            )

    def write_back(self, batch):
        error = batch["td_error"][:, 0].abs() + self.settings.least_priority
        self.priorities.view(-1)[batch["id"][:, 0]] = error.cpu()


class PrioritisedQLearner(QLearner):
    """Q-learning from weighted transitions, whose errors become their priorities."""

    def error_loss(self, td_error, batch, steps):
        batch["td_error"] = torch.nn.functional.pad(steps.unpack_acted(td_error.detach())[0], (0, 1))
        return (steps.pack(batch["weight"])[steps.acted] * td_error.square()).mean()
