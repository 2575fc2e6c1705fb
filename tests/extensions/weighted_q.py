"""A variant of Q-learning: errors of overestimated values count less (hysteretic Q-learning)."""

from dataclasses import dataclass
from typing import Annotated

import torch

from shoal.declare import Range
from shoal.learners.q_learner import QLearner, QLearnerSettings


@dataclass(frozen=True)
class HystereticSettings(QLearnerSettings):
    hysteresis: Annotated[float, "weight of errors of overestimated values", Range(0, 1)] = 0.3


class HystereticQLearner(QLearner):
    """Hysteretic Q-learning (Matignon et al. 2007) on a joint value."""

    Settings = HystereticSettings

    def error_loss(self, td_error, batch, steps):
        weight = torch.where(td_error > 0, self.settings.hysteresis, 1.0)
        return (weight * td_error.square()).mean()
