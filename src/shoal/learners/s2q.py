"""S2Q: successive sub-values that each learn the best joint action the earlier ones have not claimed."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.func import functional_call

from shoal.components.action_selectors import greedy
from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.components.diagnostics import candidate_shares
from shoal.controllers.controller import Controller
from shoal.controllers.make import Make
from shoal.controllers.s2q import S2QMAC, S2QOracle
from shoal.declare import Range
from shoal.learners.central_value import CentralValue, OwnValue
from shoal.learners.learner import Metrics, with_auxiliary
from shoal.learners.value_learner import ValueLearner, ValueLearnerSettings, chosen
from shoal.learners.wqmix import optimistic_weight
from shoal.modules.layers.stacked import copy_state_dict
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class S2QSettings(ValueLearnerSettings):
    mixer: Annotated[str, "mixer of the agents' utilities, for Q^tot and every sub-value"] = "qmix"
    central_mac: Annotated[
        str | None, "controller of the utilities of the central Q* (S2Q over WQMIX); null: Q^tot serves as Q*"
    ] = "basic_central_mac"
    central_mixer: Annotated[str | None, "mixer of the central Q*; null if and only if central_mac is null"] = "ff"
    T: Annotated[float, "temperature of the softmax over the candidate actions' values (S2Q)", Range(above=0)] = 0.1
    w_c: Annotated[float, "weight of TD errors that are weighted down", Range(above=0, most=1)] = 0.9
    alpha: Annotated[
        float, "strength of the penalty on actions that earlier sub-values have identified (S2Q)", Range(0)
    ] = 1.0
    suppress_floor: Annotated[
        float | None, "lower bound C of the penalty on identified actions; null: Q* even where it is negative (S2Q)"
    ] = 0.1
    s2q_weighted: Annotated[bool, "weight TD errors as in WQMIX; off: all alike (S2Q_no_wTD)"] = True
    latent_kl_reduction: Annotated[
        Literal["sum", "mean"], "reduction of KL(P || P_hat) over candidates: sum, or mean (the released code)"
    ] = "sum"
    s2q_w0_rhs: Annotated[Literal["target", "online"], "network whose candidate values decide Q^tot's weight"] = (
        "target"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("standardise_rewards", "standardise_returns"):
            if getattr(self, name):
                raise UserError(
                    f"{name}=True does not go with S2Q, which takes Q* off the targets of actions that are already "
                    "identified, and so needs values that are measured from 0: leave it out (and scale rewards in the "
                    "environment, if they need it)."
                )
        if (self.central_mac is None) != (self.central_mixer is None):
            raise UserError(
                "central_mac and central_mixer go together: give both for a central Q*, or null for both to have Q^tot "
                "in its place."
            )


class S2QLearner(ValueLearner):
    """S2Q: K+1 sub-values, each learning the best joint action that the earlier ones have not claimed.

    Source: "Retaining Suboptimal Actions to Follow Shifting Optima in Multi-Agent Reinforcement Learning"
    (arXiv 2602.17062), equations 2-4 and appendix C. With copies k = 0..K, candidates a_k = argmax Q_k and
    y = TD(lambda) of V_t = Q*'(s_t, a_0):

        y_k    = y - alpha 1[u in {a_0..a_{k-1}}] max(Q*(u), C)
        L_k    = mean w_k (Q_k(u) - y_k)^2,      L* = mean (Q*(u) - y)^2
        L_ed   = KL(P || P_hat) + MSE(s_hat, s),  P = softmax_k(Q*'(a_k) / T)
        L      = L* + sum_k L_k + L_ed

    Without a central Q* (S2Q over VDN, QMIX or QPLEX) Q* is Q_0, detached, Q*' its target, and there is no L*.
    """

    Settings = S2QSettings
    has_sub_values = True
    controller: S2QMAC

    def build(self, make: Make) -> None:
        self.n_copies = self.controller.n_copies
        self.mixer = self.make_mixer(make, self.n_copies)
        self.central: CentralValue | None = None
        self.target_star: CentralValue | OwnValue
        if self.settings.central_mac is not None:
            self.central = CentralValue(self.spec, make)
            self.target_star = self.target_of(self.central)
        else:
            own = OwnValue(self.controller.acting_part(), self.make_mixer(make))
            self.target_star = self.target_following(own, self._own_state)

    def _own_state(self) -> dict[str, Tensor]:
        """Copy 0 as an ``OwnValue`` holds it."""
        mac, mixer = self.controller.acting_state(), copy_state_dict(self.mixer, 0)
        return {f"mac.{name}": v for name, v in mac.items()} | {f"mixer.{name}": v for name, v in mixer.items()}

    @property
    def behaviour(self) -> Controller:
        """The controller, told the true P where ``s2q_select=oracle``."""
        if self.controller.select == "oracle":
            return S2QOracle(self.controller, self.candidate_probabilities)
        return self.controller

    def candidate_probabilities(self, step: TensorDict, state: TensorDict, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """P while acting, from the true state (S2Q_oracle): candidates ``[M, B, N]`` -> ``[B, M]``, recurrent state."""
        carried = state.get("oracle_hidden", None)
        if carried is None:
            carried = self.target_star.mac.initial_state(len(step))["hidden"]
        utilities, hidden = self.target_star.step(step, state.clone(recurse=False).update({"hidden": carried}))
        values = self.target_star(utilities, candidates, self.normalise_state(step["state"]), step["avail_actions"])
        return (values / self.settings.T).softmax(0).T, hidden.transpose(0, 1)

    def loss(self, batch: EpisodeBatch, t_env: int = 0) -> tuple[Tensor, Metrics]:
        cfg = self.settings
        steps = PackedSteps.with_value(batch)
        state, avail = steps.pack(batch["state"]), steps.pack(batch["avail_actions"])  # [P, S], [P, N, A]
        acted = steps.acted
        actions, state_acted = steps.pack(batch["actions"])[acted], state[acted]  # [R, N], [R, S]
        values, histories, added = self.controller.unroll_for_loss(batch, steps, t_env)  # [M, P, N, A], [M, P, N, H]
        candidates = greedy(values.detach(), avail)  # a_k: [M, P, N]
        at_candidates = self.target_star.utilities(batch, steps), candidates, state, avail
        values_at = self.target_star(*at_candidates)  # [M, P]
        y = self.targets(batch, steps, values_at[:1])[0]  # [R]
        candidates, values_at = candidates[:, acted], values_at[:, acted]

        values_acted = values[:, acted]  # [M, R, N, A]
        maxima = chosen(values_acted.detach(), candidates)  # [M, R, N]
        q = self.mixer(chosen(values_acted, actions), state_acted, maxima, actions.unsqueeze(0))  # [M, R]
        if self.central is not None:
            utilities = self.central.utilities(batch, steps)[acted]
            q_star = self.central(utilities, actions.unsqueeze(0), state_acted)[0]  # [R]
            online = partial(self.central, utilities, candidates, state_acted)
        else:
            q_star = q[0].detach()
            at_rivals = (chosen(values_acted[0], candidates), state_acted, maxima[:1], candidates)
            online = partial(functional_call, self.target_star.mixer, copy_state_dict(self.mixer, 0), at_rivals)

        with torch.no_grad():
            match = (actions == candidates).all(-1)  # [M, R]
            y_k = suppressed_targets(y, identified_earlier(match), q_star, cfg.alpha, cfg.suppress_floor)
            # Where u is a candidate, the two online values are one, whatever rounding makes of them.
            rivals = values_at if cfg.s2q_w0_rhs == "target" else torch.where(match, q_star, online())  # [M, R]
            weight = successive_weights(q, y_k, q_star, rivals, cfg.w_c) if cfg.s2q_weighted else torch.ones_like(q)
            p = (values_at / cfg.T).softmax(0).T  # P: [R, M]

        loss_k = (weight * (q - y_k).square()).mean(-1)  # [M]
        state_hat, log_p_hat = self.controller.predict(histories[0, acted])
        if log_p_hat.ndim == 3:  # every agent's own prediction: [R, N, M]
            p, state_acted = p.unsqueeze(1), state_acted.unsqueeze(1)
        kl = kl_divergence(p, log_p_hat).mean()
        if cfg.latent_kl_reduction == "mean":
            kl = kl / self.n_copies
        state_error = (state_hat - state_acted).square().mean()

        metrics = {
            "loss_td": loss_k.sum().detach(),
            "loss_kl": kl.detach(),
            "loss_state": state_error.detach(),
            "td_error_abs": (q[0] - y).detach().abs().mean(),
            "q_taken_mean": q[0].detach().mean(),
            "central_q_taken_mean": q_star.detach().mean(),
            "target_mean": y.mean(),
            "candidates_distinct": all_distinct(candidates).float().mean(),
            "identified": match.any(0).float().mean(),
        }
        executed = steps.pack(batch["sub_index"])[acted].flatten().long()
        share = torch.bincount(executed, minlength=self.n_copies) / len(executed)
        metrics["sub_index_entropy"] = torch.special.entr(share).sum()
        per_copy = {
            "loss_td": loss_k.detach(),
            "w": weight.mean(-1),
            "p_hat": log_p_hat.detach().exp().flatten(0, -2).mean(0),
            "sub_index": share,
            "central_q_candidate": values_at.mean(-1),
        }
        metrics |= {f"{name}_{k}": value[k] for name, value in per_copy.items() for k in range(self.n_copies)}
        metrics |= candidate_shares(self.spec, batch, steps, candidates)
        loss = loss_k.sum() + kl + state_error
        if self.central is not None:
            loss_star = (q_star - y).square().mean()
            metrics["loss_central"] = loss_star.detach()
            loss = loss + loss_star
        return with_auxiliary(loss, metrics, added)


def identified_earlier(match: Tensor) -> Tensor:
    """Whether u is among a_0..a_{k-1}: from match_k = 1[u = a_k], bool ``[M, ...] -> [M, ...]``."""
    seen = match.cummax(0).values
    return torch.cat([torch.zeros_like(match[:1]), seen[:-1]])


def suppressed_targets(y: Tensor, identified: Tensor, q_star: Tensor, alpha: float, floor: float | None) -> Tensor:
    """y_k of eq. (2): y ``[...]``, identified ``[M, ...]``, Q*(u) ``[...]`` -> ``[M, ...]``.

    A negative Q*(u) would raise the target of the action it should suppress, hence the floor C. The released
    code subtracts the raw Q* (``floor=None``).
    """
    amount = q_star if floor is None else q_star.clamp(min=floor)
    return y - alpha * identified * amount


def successive_weights(q: Tensor, y_k: Tensor, q_star: Tensor, rivals: Tensor, w_c: float) -> Tensor:
    """Weights of appendix C: Q^tot trusts actions at least as good as every candidate, Q_k (k >= 1) underestimates.

    Shapes: q, y_k and rivals (the candidates' values) ``[M, ...]``, Q*(u) ``[...]`` -> ``[M, ...]``.
    """
    weight = optimistic_weight(q, y_k, w_c)
    weight[0] = torch.where((q_star >= rivals).all(0), 1.0, w_c)
    return weight


def kl_divergence(p: Tensor, log_p_hat: Tensor) -> Tensor:
    """KL(P || P_hat) summed over the last axis: ``[..., M] -> [...]``. The released code averages over it instead."""
    return (torch.special.xlogy(p, p) - p * log_p_hat).sum(-1)


def all_distinct(candidates: Tensor) -> Tensor:
    """Whether the M joint actions differ pairwise: int ``[M, ..., N]`` -> bool ``[...]``."""
    same = (candidates.unsqueeze(0) == candidates.unsqueeze(1)).all(-1)  # [M, M, ...]
    return same.sum((0, 1)) == candidates.shape[0]
