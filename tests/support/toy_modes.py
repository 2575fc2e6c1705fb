"""The game of modes without an environment: its reward, and a learner trained on batches of it.

Two agents, four contexts; agent i is paid most at its own point m of the box for the context, and half of that at -m.
Each action is uniform in every other game. The best reward is 1, always zero earns 0.187.
"""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.spec import TeamSpec
from shoal.config.settings import RunSettings
from shoal.envs.toy_modes import MODES, WIDTH
from shoal.experiment import ExperimentSettings

POINTS = torch.tensor(MODES, dtype=torch.float32)  # [N, contexts, d]
CORNERS = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
UPDATES, B = 2000, 256
MQ = {
    "mac": "mq_mac",
    "mq_k": 16,
    "mq_top_k": 1,
    "mq_lr_start": 1e-2,
    "mq_lr_finish": 1e-3,
    "mq_lr_autoscale": False,
    "mq_manage_until": 0.8,
}
EVOLUTION = {**MQ, "mq_grad": False, "mq_proximity": False, "mq_spawn": "random"}
STATIC = {**EVOLUTION, "mq_starvation": False}


def reward(contexts: Tensor, actions: Tensor) -> Tensor:
    """Of each agent: contexts ``[B]``, actions ``[B, N, d]`` -> ``[B, N]``."""
    m = POINTS[:, contexts].transpose(0, 1)
    near, far = (torch.exp(-(actions - s * m).square().sum(-1) / (2 * WIDTH**2)) for s in (1, -1))
    return torch.maximum(near, 0.5 * far)


def step_in(contexts: Tensor, discrete: bool) -> TensorDict:
    """What the agents see of the contexts ``[B]``."""
    step = {"obs": torch.eye(4)[contexts].unsqueeze(1).expand(-1, 2, -1)}
    if discrete:
        step["avail_actions"] = torch.ones(len(contexts), 2, 4, dtype=torch.bool)
    return TensorDict(step, batch_size=[len(contexts)])


def act(mac: Any, contexts: Tensor, discrete: bool, test_mode: bool) -> tuple[Tensor, Tensor]:
    """What is stored of the actions, and the vectors that are executed."""
    state = mac.initial_state(len(contexts))
    chosen = mac.select_actions(step_in(contexts, discrete), state, 0, test_mode)[0]["actions"]
    return chosen, CORNERS[chosen] if discrete else chosen


def greedy_reward(seed: int, discrete: bool = False, updates: int = UPDATES, **settings: Any) -> float:
    """Mean greedy reward after training."""
    torch.manual_seed(seed)
    spec = TeamSpec(2, 4 if discrete else 2, 4, 4, 1, discrete)
    raw = {
        "env": "matrix_game", "learner": "lan_learner", "td_lambda": 0, "rnn_hidden_dim": 64, "lr": 1e-3,
        "t_max": updates, "value_embed_dim": 64, "value_hidden_dims": [64], "epsilon_start": 0.5, "epsilon_finish": 0.5,
    }  # fmt: skip
    run = RunSettings(raw | settings, ExperimentSettings)
    learner = run.make("learner", spec=spec, make=run.make)
    mac = learner.controller
    for n in range(updates):
        contexts = torch.randint(4, (B,))
        actions, executed = act(mac, contexts, discrete, test_mode=False)
        fields = {
            **step_in(contexts, discrete),
            "state": torch.eye(4)[contexts],
            "actions": actions,
            "reward": reward(contexts, executed).mean(-1, keepdim=True),
            "terminated": torch.ones(B, 1, dtype=torch.bool),
        }
        rows = {key: torch.stack([x, torch.zeros_like(x)], dim=1) for key, x in fields.items()}
        rows["filled"] = torch.ones(B, 2, 1, dtype=torch.bool)
        learner.train_on(TensorDict(rows, batch_size=[B, 2]), n, n)
    contexts = torch.arange(4)
    _, executed = act(mac.for_execution(), contexts, discrete, test_mode=True)
    return float(reward(contexts, executed).mean())
