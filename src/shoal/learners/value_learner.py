"""The steps that every value-based learner shares: targets, TD(lambda), one loss, one gradient step."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, PackedSteps, transition_mask
from shoal.components.returns import td_lambda
from shoal.components.spec import TeamSpec
from shoal.controllers.make import Make
from shoal.declare import Range
from shoal.learners.learner import Learner, LearnerSettings, Metrics
from shoal.modules.layers.moments import RunningMoments
from shoal.modules.mixers.mixer import Mixer

Network = TypeVar("Network", bound=nn.Module)

VALUES = {"q_taken_mean", "central_q_taken_mean", "v_mean", "target_mean"}
"""Metrics that are means of values."""
DIFFERENCES = {"td_error_abs", "adv_taken_mean"}
"""Metrics that are means of differences between values."""


@dataclass(frozen=True)
class ValueLearnerSettings(LearnerSettings):
    td_lambda: Annotated[float, "lambda of the TD(lambda) targets; 0 is one-step Q-learning", Range(0, 1)] = 0.6
    target_update_interval: Annotated[
        int, "time between copies into the target networks, in target_update_unit", Range(1)
    ] = 200
    target_update_unit: Annotated[
        Literal["episodes", "gradient_steps", "env_steps"],
        "what target_update_interval counts: training episodes, updates or environment steps",
    ] = "episodes"
    standardise_returns: Annotated[bool, "networks predict standardised returns (running mean and deviation)"] = False


class ValueLearner(Learner):
    """Base of the learners of values: each batch is one gradient step on ``loss``; targets follow at intervals.

    A subclass says which networks there are (``build``) and what the loss is (``loss``).
    """

    counters = (*Learner.counters, "last_target_update")

    def __init__(self, settings: Any, spec: TeamSpec, make: Make) -> None:
        self._followed: list[tuple[nn.Module, Callable[[], dict[str, Any]]]] = []  # ``build`` adds to it
        super().__init__(settings, spec, make)
        self.register_buffer("last_target_update", torch.zeros((), dtype=torch.int64))
        self.last_target_update: Tensor
        self._target_size: Tensor | None = None
        """Largest absolute target of the last loss, in the rewards' units."""
        if settings.standardise_returns:
            self.moments["target"] = RunningMoments(1)

    def loss(self, batch: EpisodeBatch, t_env: int = 0) -> tuple[Tensor, Metrics]:
        """The scalar to minimise, and what to record.

        ``batch`` has its states normalised where ``normalise_inputs`` wants it; observations are normalised by the
        controllers. ``t_env``: environment steps done so far (schedules).
        """
        raise NotImplementedError

    def train_on(self, batch: EpisodeBatch, t_env: int, episode: int) -> Metrics:
        """One gradient step, and a copy into the targets when it is time. See ``Learner.train_on``."""
        loss, metrics = self.loss(self.normalised(batch), t_env)
        if self._target_size is not None:
            metrics["target_max_abs"] = self._target_size
        if self.settings.standardise_returns:
            metrics |= self._metrics_in_reward_units(metrics)
        metrics = self.step(loss, metrics, t_env)
        unit = self.settings.target_update_unit
        now = {"episodes": episode, "gradient_steps": int(self.n_updates), "env_steps": t_env}[unit]
        if now - int(self.last_target_update) >= self.settings.target_update_interval:
            self.update_targets()
            self.last_target_update.fill_(now)
        return metrics

    def make_mixer(self, make: Make, copies: int = 1) -> Mixer:
        """The mixer that the settings name, for this team."""
        sizes = {"n_agents": self.spec.n_agents, "state_dim": self.spec.state_dim, "n_actions": self.spec.n_actions}
        return make("mixer", **sizes, copies=copies)

    def targets(self, batch: EpisodeBatch, steps: PackedSteps, values: Tensor, counted: Tensor | None = None) -> Tensor:
        """TD(lambda) targets of the transitions, from the bootstrap values of all states: ``[M, P] -> [M, R]``.

        With ``standardise_rewards`` they are made of standardised rewards. With ``standardise_returns`` values and
        targets are in deviations from the mean target, whose moments take in these targets first (as in EPyMARL, but
        padding does not count, nor does what the loss leaves out: where ``counted``, bool ``[M, R]``, is false).
        """
        reward, terminated = self.rewards(batch), batch["terminated"][:, :-1, 0].float()
        values = self.in_reward_units(values)
        y = td_lambda(
            reward,
            terminated,
            transition_mask(batch),
            steps.unpack(values),
            self.settings.gamma,
            self.settings.td_lambda,
        )
        y = steps.pack_acted(y)
        self._target_size = y.detach().abs().amax()
        if self.settings.standardise_returns:
            self._moments("target").update((y if counted is None else y[counted]).reshape(-1, 1))
            y = self._moments("target").standardise(y)
        return y

    def in_reward_units(self, values: Tensor) -> Tensor:
        """Values as they are without ``standardise_returns``, any shape."""
        return self._moments("target").restore(values) if self.settings.standardise_returns else values

    def _metrics_in_reward_units(self, metrics: Metrics) -> Metrics:
        """Values and their differences; losses stay as they are minimised."""
        deviation = self._moments("target").std[0].float()
        values = {name: self.in_reward_units(metrics[name])[0] for name in VALUES & metrics.keys()}
        return values | {name: metrics[name] * deviation for name in DIFFERENCES & metrics.keys()}

    def target_of(self, module: Network) -> Network:
        """A frozen copy of ``module`` that follows it every ``target_update_interval``."""
        return self.target_following(copy.deepcopy(module), module.state_dict)

    def target_following(self, target: Network, source: Callable[[], dict[str, Any]]) -> Network:
        """``target``, frozen, which takes over ``source()`` now and every ``target_update_interval``."""
        self._followed.append((target, source))
        target.load_state_dict(source())
        return target.requires_grad_(False)

    def update_targets(self) -> None:
        """Copy every followed network into its target."""
        for target, source in self._followed:
            target.load_state_dict(source())

    def load_networks(self, state: dict[str, Any]) -> None:
        """See ``Learner.load_networks``; targets start as copies of the networks."""
        super().load_networks(state)
        self.update_targets()


def chosen(values: Tensor, actions: Tensor) -> Tensor:
    """Values of the given actions: ``[..., N, A]``, ``[..., N]`` -> ``[..., N]`` (leading axes broadcast)."""
    leading = torch.broadcast_shapes(values.shape[:-1], actions.shape)
    return values.expand(*leading, -1).gather(-1, actions.expand(leading).unsqueeze(-1)).squeeze(-1)
