"""A controller without a network, for tests of who collects what."""

import torch
from tensordict import TensorDict
from torch import nn

from support.team_env import TeamEnv


class Reflex(nn.Module):
    """Acts by a fixed rule on each row alone, so that who else is in the batch cannot matter."""

    extra_fields = {}  # noqa: RUF012
    reads_state = False

    def __init__(self, continuous=False):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.continuous = continuous
        self.rows, self.seen, self.t_env, self.modes = [], [], [], []

    def initial_state(self, batch_size):
        return TensorDict({"age": torch.zeros(batch_size, dtype=torch.int64)}, batch_size=[batch_size])

    def select_actions(self, step, state, t_env, test_mode=False):
        self.rows.append(step.batch_size[0])
        self.seen.append(step.clone())
        self.t_env.append(t_env)
        self.modes.append(test_mode)
        age = state["age"].view(-1, 1, 1)
        scores = torch.sin(50 * step["obs"].sum(-1, keepdim=True) + torch.arange(TeamEnv.A) + age)
        if not self.continuous:
            scores = scores.masked_fill(~step["avail_actions"], -2).argmax(-1)
        return TensorDict({"actions": scores}, batch_size=step.batch_size), state.apply(lambda x: x + 1)
