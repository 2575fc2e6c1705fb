"""S2Q as a plain loop over time steps and copies: the yardstick of ``benchmarks/training_step.py``.

The same maths as ``shoal.learners.s2q`` in the shape in which research code is usually written: one recurrent cell call
for each copy and time step with its inputs built on the spot, one mixer call a copy, the central mixer called once for
each candidate on its own. It takes its weights from a learner, so that both losses can be compared.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from shoal.learners.s2q import S2QLearner


class PlainAgent(nn.Module):
    def __init__(self, stacked: nn.Module, k: int) -> None:
        super().__init__()
        hidden, inputs = stacked.fc_in.weight.shape[1:]
        self.fc1, self.rnn = nn.Linear(inputs, hidden), nn.GRUCell(hidden, hidden)
        self.fc2 = nn.Linear(hidden, stacked.fc_out.weight.shape[1])
        with torch.no_grad():
            for mine, theirs in (
                (self.fc1.weight, stacked.fc_in.weight), (self.fc1.bias, stacked.fc_in.bias),
                (self.rnn.weight_ih, stacked.rnn.weight_ih), (self.rnn.weight_hh, stacked.rnn.weight_hh),
                (self.rnn.bias_ih, stacked.rnn.bias_ih), (self.rnn.bias_hh, stacked.rnn.bias_hh),
                (self.fc2.weight, stacked.fc_out.weight), (self.fc2.bias, stacked.fc_out.bias),
            ):  # fmt: skip
                mine.copy_(theirs[k])

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.rnn(self.fc1(x).relu(), h)
        return self.fc2(h), h


def plain_mlp(stacked: Any, k: int) -> nn.Module:
    """Copy ``k`` of a StackedLinear or StackedMLP as ordinary layers."""
    layers: list[nn.Module] = []
    for layer in stacked if isinstance(stacked, nn.Sequential) else [stacked]:
        if isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
            continue
        linear = nn.Linear(layer.weight.shape[2], layer.weight.shape[1])
        with torch.no_grad():
            linear.weight.copy_(layer.weight[k])
            linear.bias.copy_(layer.bias[k])
        layers.append(linear)
    return nn.Sequential(*layers)


class PlainMixer(nn.Module):
    def __init__(self, stacked: Any, k: int) -> None:
        super().__init__()
        self.w1, self.b1 = plain_mlp(stacked.hyper_w1, k), plain_mlp(stacked.hyper_b1, k)
        self.w2, self.b2 = plain_mlp(stacked.hyper_w2, k), plain_mlp(stacked.hyper_b2, k)

    def forward(self, q: Tensor, s: Tensor) -> Tensor:  # [B, T, N], [B, T, S] -> [B, T]
        B, T, N = q.shape
        q, s = q.reshape(B * T, 1, N), s.reshape(B * T, -1)
        w1 = self.w1(s).abs().view(B * T, N, -1)
        hidden = elu(torch.bmm(q, w1) + self.b1(s).unsqueeze(1))
        out = torch.bmm(hidden, self.w2(s).abs().unsqueeze(-1)).view(B * T, 1) + self.b2(s)
        return out.view(B, T)


class PlainCentralMixer(nn.Module):
    def __init__(self, mixer: Any) -> None:
        super().__init__()
        self.first, self.rest = mixer.first, mixer.rest
        self.v = mixer.state_value

    def forward(self, q: Tensor, s: Tensor) -> Tensor:
        value: Tensor = (self.rest(self.first(torch.cat([s, q], -1)).relu()) + self.v(s)).squeeze(-1)
        return value


class PlainS2Q(nn.Module):
    """Loss of S2Q by plain loops. Weights are those of ``learner`` at construction."""

    def __init__(self, learner: S2QLearner) -> None:
        super().__init__()
        self.cfg, self.M = learner.settings, learner.n_copies
        self.n_agents, self.n_actions = learner.spec.n_agents, learner.spec.n_actions
        self.last_action = learner.controller.inputs.obs_last_action
        self.agent_id = learner.controller.inputs.ids is not None
        self.central_id = learner.central.mac.inputs.ids is not None
        self.agents = nn.ModuleList(PlainAgent(learner.controller.agent, k) for k in range(self.M))
        self.mixers = nn.ModuleList(PlainMixer(learner.mixer, k) for k in range(self.M))
        self.central_agent = PlainAgent(learner.central.mac.agent, 0)
        self.central_mixer = PlainCentralMixer(learner.central.mixer)
        self.target_agent = PlainAgent(learner.target_star.mac.agent, 0).requires_grad_(False)
        self.target_mixer = PlainCentralMixer(learner.target_star.mixer)
        self.encoder, self.decoder = learner.controller.encoder, learner.controller.decoder

    def inputs(self, batch: Any, t: int, with_id: bool) -> Tensor:
        parts = [batch["obs"][:, t]]
        B, N = parts[0].shape[:2]
        if self.last_action:
            last = torch.zeros(B, N, self.n_actions)
            if t > 0:
                last = nn.functional.one_hot(batch["actions"][:, t - 1], self.n_actions).float()
            parts.append(last)
        if with_id:
            parts.append(torch.eye(N).expand(B, -1, -1))
        return torch.cat([p.reshape(B * N, -1) for p in parts], -1)

    def unroll(self, agent: nn.Module, batch: Any, with_id: bool) -> tuple[Tensor, Tensor]:
        B, T1 = batch.shape
        h = torch.zeros(B * self.n_agents, agent.rnn.hidden_size)
        values, hidden = [], []
        for t in range(T1):
            q, h = agent(self.inputs(batch, t, with_id), h)
            values.append(q.view(B, self.n_agents, -1))
            hidden.append(h.view(B, self.n_agents, -1))
        return torch.stack(values, 1), torch.stack(hidden, 1)

    def loss(self, batch: Any) -> Tensor:
        cfg, s = self.cfg, batch["state"]
        reward, terminated = batch["reward"][:, :-1, 0], batch["terminated"][:, :-1, 0].float()
        mask = batch["filled"][:, 1:, 0].float()
        u = batch["actions"][:, :-1]
        avail = batch["avail_actions"]
        per_copy, greedy, q = [], [], []
        for k in range(self.M):
            values, hidden = self.unroll(self.agents[k], batch, self.agent_id)
            per_copy.append((values, hidden))
            taken = values[:, :-1].gather(-1, u.unsqueeze(-1)).squeeze(-1)
            q.append(self.mixers[k](taken, s[:, :-1]))
            best = values.clone().detach()
            best[~avail] = -9999999
            greedy.append(best.argmax(-1))
        central, _ = self.unroll(self.central_agent, batch, self.central_id)
        q_star = self.central_mixer(central[:, :-1].gather(-1, u.unsqueeze(-1)).squeeze(-1), s[:, :-1])
        with torch.no_grad():
            target, _ = self.unroll(self.target_agent, batch, self.central_id)
            at = [self.target_mixer(target.gather(-1, a.unsqueeze(-1)).squeeze(-1), s) for a in greedy]
            y = torch.zeros_like(reward)
            g = at[0][:, -1] * (1 - terminated.sum(1))
            for t in reversed(range(reward.shape[1])):
                g = cfg.td_lambda * cfg.gamma * g + mask[:, t] * (
                    reward[:, t] + (1 - cfg.td_lambda) * cfg.gamma * at[0][:, t + 1] * (1 - terminated[:, t])
                )
                y[:, t] = g
            p = torch.softmax(torch.stack([a[:, :-1] for a in at], -1) / cfg.T, -1)
        loss = (((q_star - y) * mask) ** 2).sum() / mask.sum()
        seen = torch.zeros_like(mask)
        for k in range(self.M):
            y_k = y - cfg.alpha * seen * q_star.detach().clamp(min=cfg.suppress_floor)
            if k == 0:
                best_of = torch.stack([a[:, :-1] for a in at]).max(0).values
                w = torch.where(q_star >= best_of, 1.0, cfg.w_c)
            else:
                w = torch.where(q[k] < y_k, 1.0, cfg.w_c)
            loss = loss + (w.detach() * ((q[k] - y_k) * mask) ** 2).sum() / mask.sum()
            seen = torch.maximum(seen, (u == greedy[k][:, :-1]).all(-1).float())
        history = per_copy[0][1][:, :-1].detach().flatten(2)
        s_hat, log_p = self.decoder(self.encoder(history))
        kl = (p * (p.clamp(min=1e-30).log() - log_p)).sum(-1)
        mse = ((s_hat - s[:, :-1]) ** 2).mean(-1)
        return loss + ((kl + mse) * mask).sum() / mask.sum()
