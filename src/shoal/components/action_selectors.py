"""Ways of exploring: from an agent's outputs to an executed action."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from shoal.components.schedules import LinearSchedule, TMax, anneal_steps
from shoal.declare import Checked, Range

UNAVAILABLE = -torch.inf
"""What an unavailable action is worth in every argmax, and nowhere else."""


def greedy(values: Tensor, avail_actions: Tensor) -> Tensor:
    """Best available action (where none is, the first): values and avail (bool) ``[..., A]`` -> int64 ``[...]``.

    Learners read the values at this index, never the masked ones: the filler must not get into a loss.
    """
    return values.masked_fill(~avail_actions, UNAVAILABLE).argmax(-1)


class ActionSelector:
    """Base of the ways of exploring."""

    discrete: bool
    """Whether actions are indices (or vectors)."""

    def select(self, values: Tensor, avail_actions: Tensor | None, t_env: int, test_mode: bool) -> Tensor:
        """Executed actions, from what the agents' networks say.

        Args:
            values: of every action ``[B, N, A]`` (discrete), or the greedy action vectors ``[B, N, d]``.
            avail_actions: which actions are available, bool ``[B, N, A]``; None where actions are vectors.
            t_env: environment steps done so far (schedules).
            test_mode: whether this is a test.

        Returns:
            int64 ``[B, N]``, or ``[B, N, d]``.
        """
        raise NotImplementedError

    def metrics(self, t_env: int) -> dict[str, float]:
        """What to record about exploration now."""
        return {}


@dataclass(frozen=True)
class EpsilonGreedySettings(Checked):
    epsilon_start: Annotated[float, "initial probability of a random action", Range(0, 1)] = 1.0
    epsilon_finish: Annotated[float, "final probability of a random action", Range(0, 1)] = 0.05
    epsilon_anneal_time: Annotated[
        int, "environment steps over which epsilon goes from epsilon_start to epsilon_finish", Range(0)
    ] = 50_000
    epsilon_anneal_frac: Annotated[
        float | None, "length of epsilon's anneal as a fraction of t_max; null: use epsilon_anneal_time", Range(0, 1)
    ] = None
    t_max: TMax = 2_000_000
    evaluation_epsilon: Annotated[float, "probability of a random action in tests", Range(0, 1)] = 0.0


class EpsilonGreedy(ActionSelector):
    """Per agent: a uniformly random available action with probability epsilon(t_env), else the best one."""

    Settings = EpsilonGreedySettings
    discrete = True

    def __init__(self, settings: EpsilonGreedySettings) -> None:
        duration = anneal_steps(settings.epsilon_anneal_frac, settings.t_max, settings.epsilon_anneal_time)
        self._epsilon = LinearSchedule(settings.epsilon_start, settings.epsilon_finish, duration)
        self._evaluation_epsilon = settings.evaluation_epsilon

    def epsilon(self, t_env: int, test_mode: bool = False) -> float:
        """Probability of a random action."""
        return self._evaluation_epsilon if test_mode else self._epsilon(t_env)

    def select(self, values: Tensor, avail_actions: Tensor | None, t_env: int, test_mode: bool) -> Tensor:
        """Shapes: values and avail_actions ``[B, N, A]`` -> actions int64 ``[B, N]``."""
        assert avail_actions is not None
        actions = greedy(values, avail_actions)
        epsilon = self.epsilon(t_env, test_mode)
        if epsilon == 0.0:
            return actions
        explore = torch.rand(actions.shape, device=actions.device) < epsilon
        lottery = torch.rand(values.shape, device=values.device)
        return torch.where(explore, greedy(lottery, avail_actions), actions)

    def metrics(self, t_env: int) -> dict[str, float]:
        """What to record about exploration now."""
        return {"epsilon": self.epsilon(t_env)}


class EpsilonUniform(EpsilonGreedy):
    """For chosen action vectors: per agent, one uniform in [-1, 1]^d instead with probability epsilon(t_env)."""

    discrete = False

    def select(self, values: Tensor, avail_actions: Tensor | None, t_env: int, test_mode: bool) -> Tensor:
        """Shapes: the greedy actions ``[B, N, d]`` -> actions ``[B, N, d]``."""
        epsilon = self.epsilon(t_env, test_mode)
        if epsilon == 0.0:
            return values
        explore = torch.rand(values.shape[:-1], device=values.device) < epsilon
        return torch.where(explore.unsqueeze(-1), torch.empty_like(values).uniform_(-1.0, 1.0), values)


@dataclass(frozen=True)
class GaussianNoiseSettings(Checked):
    act_noise: Annotated[float, "standard deviation of the Gaussian noise on actions in [-1, 1]", Range(0)] = 0.1


class GaussianNoise(ActionSelector):
    """For continuous actions: the agents' outputs, clipped to [-1, 1], plus Gaussian noise in training."""

    Settings = GaussianNoiseSettings
    discrete = False

    def __init__(self, settings: GaussianNoiseSettings) -> None:
        self._std = settings.act_noise

    def select(self, values: Tensor, avail_actions: Tensor | None, t_env: int, test_mode: bool) -> Tensor:
        """Shapes: values ``[B, N, d]`` -> actions ``[B, N, d]`` in [-1, 1]."""
        if not test_mode:
            values = values + self._std * torch.randn_like(values)
        return values.clamp(-1.0, 1.0)

    def metrics(self, t_env: int) -> dict[str, float]:
        """What to record about exploration now."""
        return {"act_noise": self._std}
