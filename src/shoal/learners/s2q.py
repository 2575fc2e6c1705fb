"""S2Q: successive sub-values that each learn the best joint action the earlier ones have not claimed."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.controllers.basic import Make
from shoal.controllers.s2q import S2QMAC
from shoal.learners.central import CentralValue
from shoal.learners.learner import Learner, LearnerSettings, Metrics, chosen
from shoal.learners.wqmix import optimistic_weight
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class S2QSettings(LearnerSettings):
    mixer: Annotated[str, "how utilities become a joint value, the same kind for every copy"] = "qmix"
    central_mac: Annotated[str, "controller of the central utilities"] = "basic_central_mac"
    central_mixer: Annotated[str, "how central utilities become the unrestricted joint value"] = "ff"
    T: Annotated[float, "temperature of the softmax over candidate values"] = 0.1
    w_c: Annotated[float, "weight of the errors that the weighting plays down"] = 0.9
    alpha: Annotated[float, "how strongly the value of already identified actions is suppressed"] = 1.0
    suppress_floor: Annotated[
        float | None, "least value C that suppression subtracts; null subtracts Q* even where negative"
    ] = 0.1
    s2q_w0_rhs: Annotated[Literal["target", "online"], "network whose candidate values Q^tot's weight looks at"] = (
        "target"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.T <= 0:
            raise UserError(f"T={self.T} is out of range: the softmax temperature must be positive.")
        if not 0 < self.w_c <= 1:
            raise UserError(f"w_c={self.w_c} is out of range: give a weight above 0 and at most 1.")
        if self.alpha < 0:
            raise UserError(f"alpha={self.alpha} is out of range: the suppression factor must be 0 or more.")


class S2QLearner(Learner):
    """S2Q: K+1 sub-values, each learning the best joint action that the earlier ones have not claimed.

    Source: "Retaining Suboptimal Actions to Follow Shifting Optima in Multi-Agent Reinforcement Learning"
    (arXiv 2602.17062), equations 2-4 and appendix C. With copies k = 0..K, candidates a_k = argmax Q_k and
    y = TD(lambda) of V_t = Q*'(s_t, a_0):

        y_k    = y - alpha 1[u in {a_0..a_{k-1}}] max(Q*(u), C)
        L_k    = mean w_k (Q_k(u) - y_k)^2,      L* = mean (Q*(u) - y)^2
        L_ed   = KL(P || P_hat) + MSE(s_hat, s),  P = softmax_k(Q*'(a_k) / T)
        L      = L* + sum_k L_k + L_ed
    """

    Settings = S2QSettings
    has_sub_values = True
    controller: S2QMAC

    def build(self, make: Make) -> None:
        self.n_copies = self.controller.n_copies
        self.mixer = make("mixer", n_agents=self.spec.n_agents, state_dim=self.spec.state_dim, copies=self.n_copies)
        self.central = CentralValue(self.spec, make)
        self.target_central = self.target_of(self.central)

    def loss(self, batch: EpisodeBatch) -> tuple[Tensor, Metrics]:
        cfg = self.settings
        steps = PackedSteps.with_value(batch)
        state, avail = steps.pack(batch["state"]), steps.pack(batch["avail_actions"])  # [P, S], [P, N, A]
        acted = steps.acted
        actions, state_acted = steps.pack(batch["actions"])[acted], state[acted]  # [R, N], [R, S]
        values, histories = self.controller.unroll_packed(batch, steps)  # [M, P, N, A], [M, P, N, H]
        q = self.mixer(chosen(values[:, acted], actions), state_acted)  # [M, R]
        utilities = self.central.utilities(batch, steps)[acted]
        q_star = self.central(utilities, actions.unsqueeze(0), state_acted)[0]  # [R]

        with torch.no_grad():
            candidates = greedy(values, avail)  # a_k: [M, P, N]
            values_at = self.target_central(self.target_central.utilities(batch, steps), candidates, state)  # [M, P]
            y = self.targets(batch, steps, values_at[:1])[0]  # [R]
            candidates, values_at = candidates[:, acted], values_at[:, acted]
            match = (actions == candidates).all(-1)  # [M, R]
            y_k = suppressed_targets(y, identified_earlier(match), q_star, cfg.alpha, cfg.suppress_floor)
            rivals = values_at if cfg.s2q_w0_rhs == "target" else self.central(utilities, candidates, state_acted)
            weight = successive_weights(q, y_k, q_star, rivals, cfg.w_c)
            promise = (values_at / cfg.T).softmax(0).T  # P: [R, M]

        loss_k = (weight * (q - y_k).square()).mean(-1)  # [M]
        loss_star = (q_star - y).square().mean()
        state_hat, log_p_hat = self.controller.predict(histories[0, acted])
        kl = kl_divergence(promise, log_p_hat).mean()
        state_error = (state_hat - state_acted).square().mean()

        metrics = {
            "loss_td": loss_k.sum().detach(),
            "loss_central": loss_star.detach(),
            "loss_kl": kl.detach(),
            "loss_state": state_error.detach(),
            "td_error_abs": (q[0] - y).detach().abs().mean(),
            "q_taken_mean": q[0].detach().mean(),
            "central_q_taken_mean": q_star.detach().mean(),
            "target_mean": y.mean(),
            "candidates_distinct": all_distinct(candidates).float().mean(),
            "identified": match.any(0).float().mean(),
        }
        executed = steps.pack(batch["sub_index"])[acted, 0].long()
        share = torch.bincount(executed, minlength=self.n_copies) / len(executed)
        metrics["sub_index_entropy"] = torch.special.entr(share).sum()
        per_copy = {
            "loss_td": loss_k.detach(),
            "w": weight.mean(-1),
            "p_hat": log_p_hat.detach().exp().mean(0),
            "sub_index": share,
            "central_q_candidate": values_at.mean(-1),
        }
        metrics |= {f"{name}_{k}": value[k] for name, value in per_copy.items() for k in range(self.n_copies)}
        return loss_k.sum() + loss_star + kl + state_error, metrics


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
