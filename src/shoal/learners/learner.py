"""What every learner shares: the controller, the optimiser, running moments, and how all of it is saved."""

import copy
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, transition_mask
from shoal.components.returns import td_lambda
from shoal.components.schedules import LinearSchedule, TMax, anneal_steps
from shoal.components.spec import TeamSpec
from shoal.controllers.controller import Controller
from shoal.controllers.make import Make
from shoal.controllers.team import NormaliseInputs
from shoal.declare import Checked, Range
from shoal.modules.layers.moments import Normaliser, RunningMoments
from shoal.utils.errors import NonFiniteError, UserError

Metrics = dict[str, Tensor]
SUSPICIOUS = 1e6
"""A loss or a gradient norm above this is said to have announced one that is not finite."""


@dataclass(frozen=True)
class LearnerSettings(Checked):
    gamma: Annotated[float, "discount factor", Range(0, 1)] = 0.99
    lr: Annotated[float, "learning rate", Range(above=0)] = 0.001
    lr_finish: Annotated[float | None, "learning rate at the end of its anneal; null: constant lr", Range(above=0)] = (
        None
    )
    lr_anneal_time: Annotated[
        int, "environment steps over which the learning rate goes from lr to lr_finish", Range(1)
    ] = 1000000
    lr_anneal_frac: Annotated[
        float | None,
        "length of the learning rate's anneal as a fraction of t_max; null: use lr_anneal_time",
        Range(above=0, most=1),
    ] = None
    t_max: TMax = 2_000_000
    optimizer: Annotated[Literal["adam", "rmsprop"], "optimiser of all parameters"] = "adam"
    optim_alpha: Annotated[float, "smoothing constant of rmsprop", Range(0, below=1)] = 0.99
    optim_eps: Annotated[float, "term added to rmsprop's denominator (adam: 1e-8)", Range(0)] = 1e-5
    grad_norm_clip: Annotated[float, "maximum norm of the gradient of all parameters", Range(above=0)] = 10.0
    normalise_inputs: NormaliseInputs = False
    standardise_rewards: Annotated[
        bool, "learn from standardised rewards (running mean and deviation; constant rewards become 0)"
    ] = False


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that the optimiser steps with a rate of their own, and whose gradient is clipped by itself."""

    parameters: list[nn.Parameter]
    lr: LinearSchedule
    clip: float
    """Largest norm of the group's gradient."""


class Learner(nn.Module):
    """Base of the learners: owns the controller, every other network, the optimiser and the counters.

    A subclass creates its networks in ``build`` and learns in ``train_on``, whose gradient steps are ``step(loss)``.
    Everything is found by registration: networks as submodules, counters as buffers, the optimiser as this module's
    extra state, so ``state_dict()`` cannot forget any of it. ``ValueLearner`` is the base of those that learn values
    from targets.
    """

    Settings: type[Any]
    has_sub_values = False
    """True if the learner trains a controller of several copies (S2Q)."""
    counters: tuple[str, ...] = ("_extra_state", "n_updates")
    """Entries of ``state_dict()`` that belong to a run, not to its networks."""

    def __init__(self, settings: Any, spec: TeamSpec, make: Make) -> None:
        super().__init__()
        self.check_actions(spec)
        self.settings = settings
        self.spec = spec
        self.controller = make("mac", spec=spec, make=make)
        self.check_controller(type(self.controller))
        self.moments = nn.ModuleDict()
        """Running means and deviations of what the settings want normalised: obs, state, reward, target."""
        self.state_normaliser: Normaliser | None = None
        if settings.normalise_inputs:
            self.state_normaliser = Normaliser(spec.state_dim, of="state")
            self.moments.update({"obs": RunningMoments(spec.obs_dim), "state": RunningMoments(spec.state_dim)})
        if settings.standardise_rewards:
            self.moments["reward"] = RunningMoments(1)
        self.build(make)
        self._groups = self.parameter_groups()
        self.optimiser = self._make_optimiser()
        self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64))
        self.n_updates: Tensor
        self._suspicious_since: tuple[int, int] | None = None  # update and t_env

    @classmethod
    def check_actions(cls, spec: TeamSpec) -> None:
        """Refuse an environment with actions that this learner knows nothing of.

        Raises:
            UserError: they are continuous.
        """
        if not spec.discrete:
            raise UserError(
                f"The learner {cls.__name__} needs discrete actions, but this environment's are continuous: "
                "use --config=mq_lan or qf_lan, or env_args.action_mode=bang_bang where the environment has it."
            )

    @classmethod
    def check_controller(cls, controller: type[Controller]) -> None:
        """Refuse a controller that this learner cannot train.

        Raises:
            UserError: one has sub-values and the other has not, or the controller chooses action vectors.
        """
        if controller.chooses_vectors:
            raise UserError(f"The learner {cls.__name__} cannot train {controller.__name__}: use learner=lan_learner.")
        if controller.has_sub_values == cls.has_sub_values:
            return
        wanted = "with sub-values (mac=s2q_mac)" if cls.has_sub_values else "without sub-values (mac=basic_mac)"
        raise UserError(f"The learner {cls.__name__} needs a controller {wanted}, not {controller.__name__}.")

    def build(self, make: Make) -> None:
        """Create the networks besides the controller."""
        raise NotImplementedError

    def train_on(self, batch: EpisodeBatch, t_env: int, episode: int) -> Metrics:
        """Learn from one batch of the memory; the experiment records what it returns.

        The batch is the learner's: what it writes into it, ``memory.write_back`` gets.

        Args:
            batch: ``[B, T+1]``; rows are runs of consecutive steps of one episode, usually whole episodes.
            t_env: environment steps done so far (schedules).
            episode: episodes done so far.

        Raises:
            NonFiniteError: the loss or the gradient's norm is NaN or infinite. Networks, targets and optimiser are as
                they were before that step.
        """
        raise NotImplementedError

    @property
    def behaviour(self) -> Controller:
        """The controller that plays the training episodes."""
        return self.controller

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """Which parameters the optimiser trains, by group name. By default one group of all that need a gradient."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return {"all": ParameterGroup(trained, self.lr_schedule(self.settings.lr), self.settings.grad_norm_clip)}

    def lr_schedule(self, lr: float) -> LinearSchedule:
        """From ``lr`` on, by the factor and over the time that ``lr_finish`` and ``lr_anneal_*`` say."""
        s = self.settings
        finish = lr
        if s.lr_finish is not None:
            finish = s.lr_finish if lr == s.lr else lr * (s.lr_finish / s.lr)
        return LinearSchedule(lr, finish, anneal_steps(s.lr_anneal_frac, s.t_max, s.lr_anneal_time))

    def _make_optimiser(self) -> torch.optim.Optimizer:
        s = self.settings
        groups = [{"params": group.parameters, "lr": group.lr.start} for group in self._groups.values()]
        if s.optimizer == "adam":
            return torch.optim.Adam(groups, lr=s.lr, fused=True)
        return torch.optim.RMSprop(groups, lr=s.lr, alpha=s.optim_alpha, eps=s.optim_eps)

    def step(self, loss: Tensor, metrics: Metrics, t_env: int) -> Metrics:
        """One gradient step on a scalar ``loss``, each group's gradient clipped. Adds ``grad_norm`` to ``metrics``.

        With several groups there is a ``grad_norm_<group>`` for each, before clipping.

        Raises:
            NonFiniteError: see ``train_on``.
        """
        self.optimiser.zero_grad()
        loss.backward()
        norms = {name: nn.utils.clip_grad_norm_(group.parameters, group.clip) for name, group in self._groups.items()}
        if len(norms) == 1:
            metrics["grad_norm"] = next(iter(norms.values()))
        else:
            metrics |= {f"grad_norm_{name}": norm for name, norm in norms.items()}
        self._check_finite(loss, list(norms.values()), metrics, t_env)
        for parameters, group in zip(self.optimiser.param_groups, self._groups.values(), strict=True):
            parameters["lr"] = group.lr(t_env)
        self.n_updates += 1
        metrics |= self.before_step(t_env)
        self.optimiser.step()
        return metrics

    def before_step(self, t_env: int) -> Metrics:
        """What else changes with a gradient step, while the networks are still those of the loss; what to record."""
        return {}

    def _check_finite(self, loss: Tensor, norms: list[Tensor], metrics: Metrics, t_env: int) -> None:
        # A norm is NaN or infinite if a single number of the gradient is. All in one transfer from a GPU.
        sizes = torch.stack([loss.detach().abs(), *norms]).tolist()
        if all(size < SUSPICIOUS for size in sizes):  # as it is, nearly always
            self._suspicious_since = None
            return
        update = int(self.n_updates) + 1
        if all(math.isfinite(size) for size in sizes):
            self._suspicious_since = self._suspicious_since or (update, t_env)
            return
        measured = {"loss": loss.detach()} | metrics
        names = [name for name, value in measured.items() if not bool(torch.as_tensor(value).isfinite().all())]
        since = ""
        if self._suspicious_since is not None:
            first, step = self._suspicious_since
            since = f" (above {SUSPICIOUS:g} since update {first:,} at t_env {step:,})"
        raise NonFiniteError(
            f"NaN or infinity in {', '.join(names)} of update {update:,} at t_env {t_env:,}{since}: the networks stay "
            "as they were before it. Look for rewards or observations that are far too large, or lower lr."
        )

    def observe(self, batch: EpisodeBatch) -> None:
        """Take new training episodes into the running moments; call it once with every rollout, before training.

        Rows of padding do not count, nor do the observations of agents that the environment says are dead, which are
        usually zeros.
        """
        if not self.moments:
            return
        filled = batch["filled"].squeeze(-1)
        if self.settings.normalise_inputs:
            alive = batch["alive"] if self.spec.has_alive else torch.ones_like(batch["obs"][..., 0], dtype=torch.bool)
            self._moments("obs").update(batch["obs"][filled.unsqueeze(-1) & alive])
            self._moments("state").update(batch["state"][filled])
            for module in self.modules():
                if isinstance(module, Normaliser):
                    module.follow(self._moments(module.of))
        if self.settings.standardise_rewards:
            self._moments("reward").update(batch["reward"][:, :-1][transition_mask(batch).bool()])

    def normalised(self, batch: EpisodeBatch) -> EpisodeBatch:
        """The batch with its states as networks read them; controllers normalise observations themselves."""
        if self.state_normaliser is None:
            return batch
        return batch.clone(recurse=False).update({"state": self.state_normaliser(batch["state"])})

    def normalise_state(self, state: Tensor) -> Tensor:
        """States as networks read them: ``[..., S] -> [..., S]``."""
        return state if self.state_normaliser is None else self.state_normaliser(state)

    def rewards(self, batch: EpisodeBatch) -> Tensor:
        """The rewards that this learner learns from: ``[B, T]``."""
        reward = batch["reward"][:, :-1, 0]
        return self._moments("reward").standardise(reward) if self.settings.standardise_rewards else reward

    def returns_to_go(self, batch: EpisodeBatch) -> Tensor:
        """Discounted return from every transition on, in the units of the recorded values: ``[B, T]``, 0 in padding.

        A truncated episode is extended by its mean absolute reward, since its value is bootstrapped.
        """
        reward, mask = self.rewards(batch), transition_mask(batch)
        rate = (reward.abs() * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)  # [B, 1]
        gamma = self.settings.gamma
        beyond = rate * (1 / (1 - gamma) if gamma < 1 else self.spec.episode_limit)
        terminated = batch["terminated"][:, :-1, 0].float()
        return td_lambda(reward, terminated, mask, beyond.expand(-1, mask.shape[1] + 1), gamma, 1.0)

    def _moments(self, of: str) -> RunningMoments:
        moments = self.moments[of]
        assert isinstance(moments, RunningMoments)
        return moments

    def load_networks(self, state: dict[str, Any]) -> None:
        """Take the networks alone out of another learner's ``state_dict()``; counters and optimiser stay."""
        fresh = self.state_dict()
        self.load_state_dict(state | {key: fresh[key] for key in self.counters})

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser's part of ``state_dict()``."""
        return self.optimiser.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The optimiser's part of ``load_state_dict()``; step sizes stay those of the settings."""
        now = [{k: v for k, v in group.items() if k != "params"} for group in self.optimiser.param_groups]
        if [group.keys() for group in state["param_groups"]] != [group.keys() | {"params"} for group in now]:
            raise ValueError("the checkpoint was written with another optimiser")
        self.optimiser.load_state_dict(copy.deepcopy(state))
        for group, settings in zip(self.optimiser.param_groups, now, strict=True):
            group.update(settings)


def with_auxiliary(loss: Tensor, metrics: Metrics, added: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
    """The loss and the metrics with the losses that the controller adds to them (``unroll_for_loss``)."""
    return sum(added.values(), loss), metrics | {name: value.detach() for name, value in added.items()}
