"""The steps that every value-based learner shares."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from shoal.components.batch import EpisodeBatch, PackedSteps, transition_mask
from shoal.components.returns import td_lambda
from shoal.components.schedules import LinearSchedule, TMax, anneal_steps
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC
from shoal.controllers.team import Make, NormaliseInputs
from shoal.declare import Checked, Range
from shoal.modules.layers.moments import Normaliser, RunningMoments
from shoal.utils.errors import NonFiniteError, UserError

Metrics = dict[str, Tensor]
SUSPICIOUS = 1e6
"""A loss or a gradient norm above this is said to have announced one that is not finite."""

Network = TypeVar("Network", bound=nn.Module)

VALUES = {"q_taken_mean", "central_q_taken_mean", "v_mean", "target_mean"}
"""Metrics that are means of values."""
DIFFERENCES = {"td_error_abs", "adv_taken_mean"}
"""Metrics that are means of differences between values."""


@dataclass(frozen=True)
class LearnerSettings(Checked):
    gamma: Annotated[float, "discount factor", Range(0, 1)] = 0.99
    td_lambda: Annotated[float, "lambda of the TD(lambda) targets; 0 is one-step Q-learning", Range(0, 1)] = 0.6
    lr: Annotated[float, "learning rate", Range(above=0)] = 0.001
    lr_finish: Annotated[
        float | None, "learning rate after lr_anneal_time steps; null keeps lr throughout", Range(above=0)
    ] = None
    lr_anneal_time: Annotated[
        int, "environment steps over which the learning rate goes from lr to lr_finish", Range(1)
    ] = 1000000
    lr_anneal_frac: Annotated[
        float | None, "the same as a fraction of t_max; null: lr_anneal_time", Range(above=0, most=1)
    ] = None
    t_max: TMax = 2_000_000
    optimizer: Annotated[Literal["adam", "rmsprop"], "optimiser of all parameters together"] = "adam"
    optim_alpha: Annotated[float, "smoothing constant, rmsprop only", Range(0, below=1)] = 0.99
    optim_eps: Annotated[float, "term added to the denominator, rmsprop only (adam uses 1e-8)", Range(0)] = 1e-5
    grad_norm_clip: Annotated[float, "largest norm of the whole gradient", Range(above=0)] = 10.0
    target_update_interval: Annotated[
        int, "episodes (or updates) between copies into the target networks", Range(1)
    ] = 200
    target_update_unit: Annotated[
        Literal["episodes", "gradient_steps"], "what target_update_interval counts: episodes collected, or updates"
    ] = "episodes"
    normalise_inputs: NormaliseInputs = False
    standardise_rewards: Annotated[
        bool, "learn from rewards less their running mean, over their deviation (a reward that never varies becomes 0)"
    ] = False
    standardise_returns: Annotated[
        bool, "let networks predict returns less their running mean, over their deviation"
    ] = False


class Learner(nn.Module):
    """Owns the controller, every other network, the targets, the optimiser and the counters.

    A subclass says which networks there are (``build``) and what the loss is (``loss``). Everything is found by
    registration: networks as submodules, counters as buffers, the optimiser as this module's extra state, so
    ``state_dict()`` cannot forget any of it.
    """

    has_sub_values = False
    """Whether this learner trains the copies of a controller that holds several, or the one of one that holds one."""

    def __init__(self, settings: Any, spec: TeamSpec, make: Make) -> None:
        super().__init__()
        self.check_actions(spec)
        self.settings = settings
        self.spec = spec
        self.controller: BasicMAC = make("mac", spec=spec, make=make)
        self.check_controller(type(self.controller))
        self._followed: list[tuple[nn.Module, Callable[[], dict[str, Any]]]] = []
        self.moments = nn.ModuleDict()
        """Running means and deviations of what the settings want normalised: obs, state, reward, target."""
        self.state_normaliser: Normaliser | None = None
        if settings.normalise_inputs:
            self.state_normaliser = Normaliser(spec.state_dim, of="state")
            self.moments.update({"obs": RunningMoments(spec.obs_dim), "state": RunningMoments(spec.state_dim)})
        if settings.standardise_rewards:
            self.moments["reward"] = RunningMoments(1)
        if settings.standardise_returns:
            self.moments["target"] = RunningMoments(1)
        self.build(make)
        trained = [p for p in self.parameters() if p.requires_grad]
        finish = settings.lr if settings.lr_finish is None else settings.lr_finish
        duration = anneal_steps(settings.lr_anneal_frac, settings.t_max, settings.lr_anneal_time)
        self._lr = LinearSchedule(settings.lr, finish, duration)
        self.optimiser: torch.optim.Optimizer
        if settings.optimizer == "adam":
            self.optimiser = torch.optim.Adam(trained, lr=settings.lr, fused=True)
        else:
            self.optimiser = torch.optim.RMSprop(
                trained, lr=settings.lr, alpha=settings.optim_alpha, eps=settings.optim_eps
            )
        self.register_buffer("last_target_update", torch.zeros((), dtype=torch.int64))
        self.last_target_update: Tensor
        self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64))
        self.n_updates: Tensor
        self._target_size: Tensor | None = None
        """Largest absolute target of the last loss, in the rewards' units."""
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
    def check_controller(cls, controller: type[BasicMAC]) -> None:
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
        """Create the networks beside the controller."""
        raise NotImplementedError

    def loss(self, batch: EpisodeBatch, t_env: int = 0) -> tuple[Tensor, Metrics]:
        """The scalar to minimise, and what to record.

        ``batch`` has its states normalised where ``normalise_inputs`` wants it; observations are normalised by the
        controllers. ``t_env``: environment steps done so far (schedules).
        """
        raise NotImplementedError

    def make_mixer(self, make: Make, copies: int = 1) -> nn.Module:
        """The mixer that the settings name, for this team."""
        mixer: nn.Module = make(
            "mixer",
            n_agents=self.spec.n_agents,
            state_dim=self.spec.state_dim,
            n_actions=self.spec.n_actions,
            copies=copies,
        )
        return mixer

    def targets(self, batch: EpisodeBatch, steps: PackedSteps, values: Tensor, counted: Tensor | None = None) -> Tensor:
        """TD(lambda) targets of the transitions, from the bootstrap values of all states: ``[M, P] -> [M, R]``.

        With ``standardise_rewards`` they are made of standardised rewards. With ``standardise_returns`` values and
        targets are in deviations from the mean target, whose moments take in these targets first (as in EPyMARL, but
        padding does not count, nor does what the loss leaves out: where ``counted``, bool ``[M, R]``, is false).
        """
        reward, terminated = self._rewards(batch), batch["terminated"][:, :-1, 0].float()
        values = self.in_reward_units(values)
        y = td_lambda(
            reward,
            terminated,
            transition_mask(batch),
            steps.unpack(values),
            self.settings.gamma,
            self.settings.td_lambda,
        )
        flat = torch.nn.functional.pad(y, (0, 1)).flatten(1)  # [M, B * (T+1)]
        y = flat.index_select(1, steps.index[steps.acted])
        self._target_size = y.detach().abs().amax()
        if self.settings.standardise_returns:
            self._moments("target").update((y if counted is None else y[counted]).reshape(-1, 1))
            y = self._moments("target").standardise(y)
        return y

    def returns_to_go(self, batch: EpisodeBatch) -> Tensor:
        """Discounted return from every transition on, in the units of the recorded values: ``[B, T]``, 0 in padding.

        A truncated episode goes on with its mean absolute reward for ever, as far as values know: they bootstrap there.
        """
        reward, mask = self._rewards(batch), transition_mask(batch)
        rate = (reward.abs() * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)  # [B, 1]
        gamma = self.settings.gamma
        beyond = rate * (1 / (1 - gamma) if gamma < 1 else self.spec.episode_limit)
        terminated = batch["terminated"][:, :-1, 0].float()
        return td_lambda(reward, terminated, mask, beyond.expand(-1, mask.shape[1] + 1), gamma, 1.0)

    def _rewards(self, batch: EpisodeBatch) -> Tensor:
        """The rewards that this learner learns from: ``[B, T]``."""
        reward = batch["reward"][:, :-1, 0]
        return self._moments("reward").standardise(reward) if self.settings.standardise_rewards else reward

    def in_reward_units(self, values: Tensor) -> Tensor:
        """Values as they are without ``standardise_returns``, any shape."""
        return self._moments("target").restore(values) if self.settings.standardise_returns else values

    def normalise_state(self, state: Tensor) -> Tensor:
        """States as networks read them: ``[..., S] -> [..., S]``."""
        return state if self.state_normaliser is None else self.state_normaliser(state)

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

    def _moments(self, of: str) -> RunningMoments:
        moments = self.moments[of]
        assert isinstance(moments, RunningMoments)
        return moments

    def target_of(self, module: Network) -> Network:
        """A frozen copy of ``module`` that follows it every ``target_update_interval``."""
        return self.target_following(copy.deepcopy(module), module.state_dict)

    def target_following(self, target: Network, source: Callable[[], dict[str, Any]]) -> Network:
        """``target``, frozen, which takes over ``source()`` now and every ``target_update_interval``."""
        self._followed.append((target, source))
        target.load_state_dict(source())
        return target.requires_grad_(False)

    def train_on(self, batch: EpisodeBatch, t_env: int, episode: int) -> Metrics:
        """One gradient step after ``t_env`` environment steps (schedules) and ``episode`` episodes (target updates).

        Raises:
            NonFiniteError: the loss or the gradient's norm is NaN or infinite. Networks, targets and optimiser are as
                they were.
        """
        if self.state_normaliser is not None:
            batch = batch.clone(recurse=False).update({"state": self.state_normaliser(batch["state"])})
        loss, metrics = self.loss(batch, t_env)
        if self._target_size is not None:
            metrics["target_max_abs"] = self._target_size
        if self.settings.standardise_returns:
            metrics |= self._metrics_in_reward_units(metrics)
        self.optimiser.zero_grad()
        loss.backward()
        parameters = self.optimiser.param_groups[0]["params"]
        metrics["grad_norm"] = nn.utils.clip_grad_norm_(parameters, self.settings.grad_norm_clip)
        self._check_finite(loss, metrics, t_env)
        for group in self.optimiser.param_groups:
            group["lr"] = self._lr(t_env)
        self.n_updates += 1
        metrics |= self.before_step(t_env)
        self.optimiser.step()
        now = episode if self.settings.target_update_unit == "episodes" else int(self.n_updates)
        if now - int(self.last_target_update) >= self.settings.target_update_interval:
            self.update_targets()
            self.last_target_update.fill_(now)
        return metrics

    def _metrics_in_reward_units(self, metrics: Metrics) -> Metrics:
        """Values and their differences; losses stay as they are minimised."""
        deviation = self._moments("target").std[0].float()
        values = {name: self.in_reward_units(metrics[name])[0] for name in VALUES & metrics.keys()}
        return values | {name: metrics[name] * deviation for name in DIFFERENCES & metrics.keys()}

    def _check_finite(self, loss: Tensor, metrics: Metrics, t_env: int) -> None:
        # The norm is NaN or infinite if a single number of the gradient is. Both in one transfer from a GPU.
        size, norm = torch.stack([loss.detach().abs(), metrics["grad_norm"]]).tolist()
        if size < SUSPICIOUS and norm < SUSPICIOUS:  # as it is, nearly always
            self._suspicious_since = None
            return
        update = int(self.n_updates) + 1
        if math.isfinite(size) and math.isfinite(norm):
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

    def before_step(self, t_env: int) -> Metrics:
        """What else changes with a gradient step, while the networks are still those of the loss; what to record."""
        return {}

    def load_networks(self, state: dict[str, Any]) -> None:
        """Take the networks alone out of another learner's ``state_dict()``; targets start as copies of them."""
        fresh = self.state_dict()
        kept = {key: fresh[key] for key in ("_extra_state", "last_target_update", "n_updates")}
        self.load_state_dict(state | kept)
        self.update_targets()

    def update_targets(self) -> None:
        """Copy every followed network into its target."""
        for target, source in self._followed:
            target.load_state_dict(source())

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser's part of ``state_dict()``."""
        return self.optimiser.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The optimiser's part of ``load_state_dict()``; step sizes stay those of the settings."""
        now = [{k: v for k, v in group.items() if k != "params"} for group in self.optimiser.param_groups]
        if [group.keys() for group in state["param_groups"]] != [group.keys() | {"params"} for group in now]:
            raise ValueError("the checkpoint's optimiser is another one")
        self.optimiser.load_state_dict(copy.deepcopy(state))
        for group, settings in zip(self.optimiser.param_groups, now, strict=True):
            group.update(settings)


def with_auxiliary(loss: Tensor, metrics: Metrics, added: dict[str, Tensor]) -> tuple[Tensor, Metrics]:
    """The loss and the metrics with the losses that the controller adds to them (``unroll_for_loss``)."""
    return sum(added.values(), loss), metrics | {name: value.detach() for name, value in added.items()}


def chosen(values: Tensor, actions: Tensor) -> Tensor:
    """Values of the given actions: ``[..., N, A]``, ``[..., N]`` -> ``[..., N]`` (leading axes broadcast)."""
    leading = torch.broadcast_shapes(values.shape[:-1], actions.shape)
    return values.expand(*leading, -1).gather(-1, actions.expand(leading).unsqueeze(-1)).squeeze(-1)
