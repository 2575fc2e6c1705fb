"""The LAN tests' oracle, and the yardstick of ``benchmarks/lan_step.py``: MQ-LAN as a plain loop over time steps.

The same maths as ``shoal.learners.lan`` with ``mq_mac``, in the shape in which research code is usually written: one
recurrent cell call for each critic and time step, and for each step the history repeated K times beside the K slots.
It takes its weights and its codebook from a learner, so that losses and gradients can be compared.
"""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.batch import transition_mask
from shoal.learners.learner import Learner


def plain_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


class PlainCritic(nn.Module):
    """Critic ``k`` of an ``MQMAC``: an encoder with a recurrent cell, and a head that reads history and action."""

    def __init__(self, mac: Any, k: int) -> None:
        super().__init__()
        agent, head = mac.agent, mac.head
        H = agent.hidden_dim
        self.fc = plain_linear(agent.fc_in.weight[k], agent.fc_in.bias[k])
        self.rnn = nn.GRUCell(H, H)
        self.rnn.load_state_dict({name: parameter[k] for name, parameter in agent.rnn.state_dict().items()})
        joint = torch.cat([agent.fc_out.weight[k], head.action.weight[k]], dim=1)
        self.head = nn.Sequential(
            plain_linear(joint, agent.fc_out.bias[k]), nn.ReLU(), plain_linear(head.out.weight[k], head.out.bias[k])
        )

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        new: Tensor = self.rnn(self.fc(x).relu(), h)
        return new

    def advantage(self, h: Tensor, a: Tensor) -> Tensor:
        value: Tensor = self.head(torch.cat([h, a], dim=-1)).squeeze(-1)
        return value

    def all_slots(self, h: Tensor, slots: Tensor) -> Tensor:
        """Histories ``[B, N, H]``, slots ``[N, K, d]`` -> ``[B, N, K]``."""
        B, K = len(h), slots.shape[1]
        return self.advantage(h.unsqueeze(2).expand(-1, -1, K, -1), slots.expand(B, -1, -1, -1))


class PlainMQLAN(nn.Module):
    """Online and target critics and values, and codebooks; ``loss`` and ``ascent`` go through time step by step."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        lan: Any = learner
        self.gamma, self.n_winners = lan.settings.gamma, lan.controller.settings.mq_top_k
        self.critics = nn.ModuleList(PlainCritic(lan.controller, k) for k in range(2))
        self.targets = nn.ModuleList(PlainCritic(lan.target_controller, k) for k in range(2)).requires_grad_(False)
        self.value, self.target_value = lan.value, lan.target_value
        self.position = nn.Parameter(lan.controller.codebook.position.clone())
        self.target_position = lan.target_controller.codebook.position.clone()
        self.ids = torch.eye(lan.spec.n_agents)

    def inputs(self, batch: TensorDict) -> Tensor:
        actions = batch["actions"]
        last = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], dim=1)
        return torch.cat([batch["obs"], last, self.ids.expand(*batch.shape, -1, -1)], dim=-1)  # [B, T+1, N, d]

    def unroll(self, critic: Any, x: Tensor) -> list[Tensor]:
        B, T1, N, _ = x.shape
        h, histories = x.new_zeros(B * N, critic.rnn.hidden_size), []
        for t in range(T1):
            h = critic.step(x[:, t].reshape(B * N, -1), h)
            histories.append(h.view(B, N, -1))
        return histories

    def loss(self, batch: TensorDict) -> Tensor:
        mask, x = transition_mask(batch), self.inputs(batch)
        self.histories = [self.unroll(critic, x) for critic in self.critics]
        with torch.no_grad():
            target_histories = [self.unroll(critic, x) for critic in self.targets]
        slots, total = self.target_position.tanh(), x.new_zeros(())
        for t in range(x.shape[1] - 1):
            v = self.value(self.histories[0][t], x[:, t], batch["state"][:, t]).unsqueeze(-1)
            with torch.no_grad():
                tables = [c.all_slots(h[t + 1], slots) for c, h in zip(self.targets, target_histories, strict=True)]
                a_next = torch.minimum(*tables).amax(-1)  # [B, N]
                v_next = self.target_value(target_histories[0][t + 1], x[:, t + 1], batch["state"][:, t + 1])
                goes_on = ~batch["terminated"][:, t]
                y = batch["reward"][:, t] + self.gamma * goes_on * (v_next.unsqueeze(-1) + a_next)
            for critic, histories in zip(self.critics, self.histories, strict=True):
                q = v + critic.advantage(histories[t], batch["actions"][:, t])
                total = total + (mask[:, t, None] * (q - y).square()).sum()
        return total / (mask.sum() * x.shape[2])

    def climb(self, batch: TensorDict) -> Tensor:
        """Add to the slots' gradient that of the mean advantage over an agent's states and winners, step by step.

        Returns that mean, summed over agents. Uses the histories of the last ``loss``.
        """
        mask, critic = transition_mask(batch), self.critics[0]
        total = mask.new_zeros(())
        for t in range(mask.shape[1]):
            values = critic.all_slots(self.histories[0][t].detach(), self.position.tanh())  # [B, N, K]
            top = values.topk(self.n_winners, dim=-1).values
            mean = (mask[:, t, None, None] * top).sum() / (mask.sum() * self.n_winners)
            mean.backward(inputs=[self.position])
            total += mean.detach()
        return total
