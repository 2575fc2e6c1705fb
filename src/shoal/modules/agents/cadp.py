"""CADP's agent: in training the team exchanges advice, a loss prunes the exchange, and execution does without it."""

import copy
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from shoal.declare import Range, Role
from shoal.modules.agents.agent import Agent
from shoal.modules.agents.rnn import RNNAgentSettings
from shoal.modules.layers.gru import StackedGRU
from shoal.modules.layers.stacked import StackedLinear, StackedMLP

LARGEST_MATRIX = 10
"""Agents up to which the whole confidence matrix is recorded; of a larger team, its diagonal."""


@dataclass(frozen=True)
class CADPAgentSettings(RNNAgentSettings):
    att_heads: Annotated[int, "attention heads of the advice exchange (CADP)", Range(1, 100)] = 4
    att_embed_dim: Annotated[int, "width of each attention head's queries, keys and values (CADP)", Range(1)] = 32
    cadp_fusion: Annotated[
        Literal["late", "early"],
        "where advice enters: concatenated to the recurrent state (late, the released code) or fed into it "
        "(early, the paper)",
    ] = "late"
    cadp_alpha: Annotated[
        float, "weight of the pruning loss after the breakpoint (the released code's alpha)", Range(0)
    ] = 0.5
    breakpoint: Annotated[int, "environment steps before CADP starts pruning", Range(0)] = 700_000
    cadp_ramp: Annotated[
        int, "environment steps over which the pruning loss grows to its full weight; 0: at once", Range(0)
    ] = 0
    cadp_loss_reduction: Annotated[
        Literal["mean", "sum"], "reduction of the pruning loss: mean (the released code) or sum over agents (the paper)"
    ] = "mean"
    att_mask_dead: Annotated[bool, "exclude dead agents from the advice exchange and from the pruning loss (CADP)"] = (
        False
    )
    test_teacher: Annotated[
        bool, "also test the team with its advice exchange (test_teacher_...; CADP)", Role.MEASURE
    ] = True


class CADPAgent(Agent):
    """CADP (Zhou et al. 2025): agents advise each other in training, and execute each from its own value vector.

    Source: "CADP: Towards Better Centralized Learning for Decentralized Execution in MARL", equations 1-3. For every
    head, with x_i agent i's whole input:

        alpha_ij = q_i . k_j / sqrt(d),   c_i = softmax_j alpha_ij,   z_i = sum_j c_ij v_j,   m_i = ReLU(W_m z_i)
        late:     h = GRU(ReLU(W x), h),        Q = MLP([h, m])
        early:    h = GRU([m, ReLU(W x)], h),   Q = MLP(h)
        L_p = - sum_i log c_ii

    That is model (C). Model (D), ``decentralised()``, has v_i in the place of z_i and neither queries nor keys; both
    are one function where every c_i is the unit vector e_i, to which L_p drives it. The exchange reads inputs only, so
    it is computed for all steps at once. The paper's equation 2 is ``early``; its published curves are ``late``.
    """

    Settings = CADPAgentSettings

    def __init__(self, settings: CADPAgentSettings, input_dim: int, output_dim: int, copies: int = 1) -> None:
        super().__init__()
        self.settings = settings
        self.hidden_dim = H = settings.rnn_hidden_dim
        self.copies, self.heads = copies, settings.att_heads
        self.reads_alive = settings.att_mask_dead
        self.late = settings.cadp_fusion == "late"
        width = settings.att_heads * settings.att_embed_dim
        self.query_key: StackedLinear | None = StackedLinear(copies, input_dim, 2 * width, bias=False)
        self.value = StackedLinear(copies, input_dim, width, bias=False)
        self.fc_message = StackedLinear(copies, width, H)
        self.fc_in = StackedLinear(copies, input_dim, H)
        self.rnn = StackedGRU(copies, H if self.late else 2 * H, H)
        self.head = StackedMLP(copies, [2 * H, H, H, output_dim] if self.late else [H, H, output_dim])

    def forward(
        self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See ``Agent.forward``; model (D) takes any number of agents, one alone for instance."""
        outputs, states, _ = self._unroll(inputs, hidden, counts, alive)
        return outputs, states

    def forward_with_losses(
        self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None, acted: Tensor, t_env: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Adds ``loss_pruning`` of all copies, weighted; nothing while its weight is 0."""
        outputs, states, logits = self._unroll(inputs, hidden, counts, alive)
        weight = self.pruning_weight(t_env)
        if logits is None or weight == 0:
            return outputs, states, {}
        per_step = self._pruning_loss(logits[:, acted], None if alive is None else alive[acted])  # [M, R]
        return outputs, states, {"loss_pruning": weight * per_step.mean(-1).sum()}

    def _unroll(
        self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Outputs, states and, in model (C), the logits of the confidence ``[M, P, heads, N, N]``."""
        P, N, d = inputs.shape
        M, H = self.copies, self.hidden_dim
        x = inputs.reshape(1, P * N, d)
        advice = self.value(x)  # [M, P*N, heads * e]
        logits: Tensor | None = None
        if self.query_key is not None:
            logits = self.logits(inputs, alive)
            advice = advise(logits.softmax(-1), advice)
        message = self.fc_message(advice).relu_()  # [M, P*N, H]
        embedded = self.fc_in(x).view(M, P * N, H).relu_()
        rows = [count * N for count in counts]
        into_rnn = embedded if self.late else torch.cat([message, embedded], dim=-1)
        states = self.rnn(into_rnn, hidden.reshape(M, -1, H), rows)
        outputs = self.head(torch.cat([states, message.view_as(states)], dim=-1) if self.late else states)
        return outputs.view(M, P, N, -1), states.view(M, P, N, H), logits

    def logits(self, inputs: Tensor, alive: Tensor | None) -> Tensor:
        """alpha, receiver i by sender j: inputs ``[P, N, d]``, alive ``[P, N]`` or None -> ``[M, P, heads, N, N]``."""
        assert self.query_key is not None, "model (D) has no queries and keys"
        P, N, d = inputs.shape
        both = self.query_key(inputs.reshape(1, P * N, d)).view(self.copies, P, N, 2, self.heads, -1)
        q, k = both.permute(3, 0, 1, 4, 2, 5)  # [M, P, heads, N, e]
        return advice_logits(q, k, alive if self.settings.att_mask_dead else None)

    def pruning_weight(self, t_env: int) -> float:
        """0 up to and at the breakpoint, then ``cadp_alpha``, at once or along the ramp."""
        s = self.settings
        past = t_env - s.breakpoint
        if past <= 0:
            return 0.0
        return s.cadp_alpha * min(1.0, past / s.cadp_ramp) if s.cadp_ramp else s.cadp_alpha

    def _pruning_loss(self, logits: Tensor, alive: Tensor | None) -> Tensor:
        counted = alive if self.settings.att_mask_dead else None
        return pruning_loss(logits, self.settings.cadp_loss_reduction, counted)

    def diagnostics(self, inputs: Tensor, alive: Tensor | None, acted: Tensor, t_env: int) -> dict[str, Tensor]:
        """``confidence_i_j`` (how much i attends to j), ``confidence_self`` (mean of c_ii), pruning loss and weight.

        Means over the transitions and the heads, of copy 0, which is the one that is deployed.
        """
        if alive is not None:
            alive = alive[acted]
        logits = self.logits(inputs[acted], alive)[:1]
        R, N = len(acted), inputs.shape[1]
        counted = logits.new_ones(R, N) if alive is None else alive.to(logits.dtype)
        confidence = torch.einsum("rn,rnm->nm", counted, logits[0].softmax(-1).mean(1)) / counted.sum(0).unsqueeze(-1)
        own = confidence.diagonal()
        metrics = {
            "pruning_loss": self._pruning_loss(logits, alive).mean(),
            "pruning_weight": torch.tensor(self.pruning_weight(t_env)),
            "confidence_self": (own * counted.sum(0)).nansum() / counted.sum(),
        }
        pairs = [(i, j) for i in range(N) for j in range(N) if N <= LARGEST_MATRIX or i == j]
        return metrics | {f"confidence_{i}_{j}": confidence[i, j] for i, j in pairs}

    def executions(self) -> dict[str, Agent]:
        """Model (D), which is deployed, and with ``test_teacher`` (C): the released code's student and teacher."""
        models: dict[str, Agent] = {"": self.decentralised()}
        if self.settings.test_teacher:
            models["teacher_"] = self
        return models

    def decentralised(self) -> "CADPAgent":
        """Model (D): a snapshot without queries and keys, in which nothing goes from one agent to another."""
        agent = copy.deepcopy(self)
        agent.query_key, agent.reads_alive = None, False
        return agent


def advice_logits(q: Tensor, k: Tensor, alive: Tensor | None = None) -> Tensor:
    """alpha of equation 1: queries and keys ``[..., P, heads, N, e]`` -> ``[..., P, heads, N, N]``.

    Dead agents (``alive`` bool ``[P, N]``) advise only themselves, so that no row is empty.
    """
    alpha = q @ k.mT / math.sqrt(q.shape[-1])
    if alive is None:
        return alpha
    heard = alive.unsqueeze(-2) | torch.eye(alive.shape[-1], dtype=torch.bool, device=alive.device)  # [P, N, N]
    return alpha.masked_fill(~heard.unsqueeze(-3), -math.inf)


def advise(confidence: Tensor, values: Tensor) -> Tensor:
    """z of equation 1, heads side by side: ``[M, P, heads, N, N]``, values ``[M, P*N, heads*e]`` -> as the values."""
    M, P, heads, N, _ = confidence.shape
    v = values.view(M, P, N, heads, -1).transpose(2, 3)  # [M, P, heads, N, e]
    return (confidence @ v).transpose(2, 3).reshape(values.shape)


def pruning_loss(logits: Tensor, reduction: Literal["mean", "sum"] = "mean", counted: Tensor | None = None) -> Tensor:
    """L_p of equation 3, averaged over the heads: logits ``[..., heads, N, N]`` -> ``[...]``.

    "sum" is the paper's sum over agents. "mean" divides it by N^2: the released code averages the KL divergence over
    all entries of the matrix, of which only the diagonal is not zero, and all published weights are for that scale.
    Taken from logits, because the released log(c + 1e-8) loses its gradient where the confidence is smallest.
    ``counted`` (bool ``[..., N]``) leaves agents out; the divisor stays.
    """
    N = logits.shape[-1]
    log_own = logits.diagonal(dim1=-2, dim2=-1) - logits.logsumexp(-1)  # log c_ii: [..., heads, N]
    if counted is not None:
        log_own = log_own.masked_fill(~counted.unsqueeze(-2), 0.0)
    total = -log_own.sum(-1).mean(-1)
    return total if reduction == "sum" else total / N**2
