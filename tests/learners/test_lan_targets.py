"""LAN's targets and losses of given values: numbers computed by hand from LAN's targets and MQ-LAN's twin critics."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.spec import TeamSpec
from shoal.learners.learner import Learner

MakeLearner = Callable[..., Learner]
close = torch.testing.assert_close

TINY = TeamSpec(n_agents=2, n_actions=3, obs_dim=1, state_dim=1, episode_limit=3, discrete=True, has_alive=True)
ONLINE_A = torch.tensor(
    [
        [[0.1, 0.3, -0.2], [0.0, 0.2, 0.5]],
        [[0.4, -0.1, 0.2], [-0.3, 0.6, 0.1]],
        [[0.0, 0.7, 0.3], [0.2, 0.1, -0.4]],
        [[0.5, 0.6, -0.5], [0.3, -0.2, 0.4]],
    ]
)  # [T+1, N, A]
TARGET_A = torch.tensor(
    [
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        [[0.2, 0.5, 0.1], [0.3, 0.4, 0.9]],
        [[0.6, 0.1, 0.4], [-0.1, 0.2, 0.3]],
        [[0.25, 0.35, 0.05], [0.15, 0.45, -0.05]],
    ]
)
V, TARGET_V = torch.tensor([0.5, 1.0, 1.5]), torch.tensor([0.0, 1.2, 1.6, 0.8])


class Given(nn.Module):
    """A value that is written down instead of computed."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.given = value

    def forward(self, histories: Tensor, inputs: Tensor, state: Tensor, alive: Tensor | None = None) -> Tensor:
        return self.given[: len(state)]


def give(learner: Learner, v: Tensor, target_v: Tensor, outputs: Tensor, target_outputs: Tensor) -> None:
    """Put written-down values and outputs ``[M, T+1, N, A]`` in the place of the learner's networks."""
    lan: Any = learner
    lan.value, lan.target_value = Given(v), Given(target_v)

    def unroll(outputs: Tensor) -> Callable[..., Any]:
        def of(batch: TensorDict, steps: Any, t_env: int = 0) -> Any:
            P = sum(steps.counts)
            return outputs[:, :P], torch.zeros(1, P, outputs.shape[2], 1), {}

        return of

    lan.controller.unroll_for_loss = unroll(outputs)
    lan.target_controller.unroll_packed = lambda batch, steps: unroll(target_outputs)(batch, steps)[:2]


def tiny_batch(terminal: bool) -> TensorDict:
    end = torch.tensor([0, 0, int(terminal), 0]).bool()
    fields = {
        "obs": torch.zeros(4, 2, 1),
        "state": torch.zeros(4, 1),
        "avail_actions": torch.ones(4, 2, 3, dtype=torch.bool),
        "alive": torch.ones(4, 2, dtype=torch.bool),
        "actions": torch.tensor([[1, 2], [0, 1], [2, 0], [0, 0]]),
        "reward": torch.tensor([1.0, 0.0, 2.0, 0.0]).unsqueeze(-1),
        "terminated": end.unsqueeze(-1),
        "filled": torch.ones(4, 1, dtype=torch.bool),
    }
    return TensorDict({key: x.unsqueeze(0) for key, x in fields.items()}, batch_size=[1, 4])


@pytest.mark.parametrize(
    ("terminal", "masked", "dead", "loss"),
    [
        (True, False, False, 0.8746276667),
        (False, False, False, 1.3326924167),
        (False, True, False, 1.3573269167),
        (True, False, True, 1.0315532),
    ],
    ids=["terminal", "time limit", "unavailable actions", "a dead agent"],
)
def test_targets_of_lan(make_learner: MakeLearner, terminal: bool, masked: bool, dead: bool, loss: float) -> None:
    learner = make_learner(TINY, learner="lan_learner", td_lambda=0, mask_dead=dead)
    give(learner, V, TARGET_V, ONLINE_A.unsqueeze(0), TARGET_A.unsqueeze(0))
    batch = tiny_batch(terminal)
    if masked:
        batch["avail_actions"][0, 1, 0, 0] = batch["avail_actions"][0, 3, 1, 2] = False
    if dead:
        batch["alive"][0, 2, 1] = False
    seen: dict[str, Tensor] = {}
    value_next = learner._value_next
    learner._value_next = lambda *args: seen.setdefault("next", value_next(*args))  # type: ignore[method-assign]
    targets = learner.targets
    learner.targets = lambda *args: seen.setdefault("y", targets(*args))  # type: ignore[method-assign]
    found, metrics = learner.loss(batch)
    close(found, torch.tensor(loss), rtol=0, atol=1e-6)
    best = [(2, 1), (1, 0), (1, 0)] if masked else [(0, 1), (1, 0), (1, 2)]  # of the online network, by agent
    rows = len(seen["next"])  # a state in which the task is over has no value
    chosen = torch.tensor([[TARGET_A[t + 1, i, a] for i, a in enumerate(pair)] for t, pair in enumerate(best)])
    close(seen["next"][1:], chosen[: rows - 1], rtol=0, atol=0)
    y = {
        (True, False): [2.386, 2.584, 1.683, 1.485, 2.0, 2.0],
        (False, False): [2.386, 2.584, 1.683, 1.485, 3.1385, 2.7425],
        (False, True): [2.287, 2.584, 1.683, 1.485, 3.1385, 2.9405],
    }[terminal, masked]
    close(seen["y"].T.flatten(), torch.tensor(y), rtol=0, atol=1e-6)
    counted = y[:5] if dead else y
    close(metrics["target_mean"], torch.tensor(counted).mean(), rtol=0, atol=1e-6)


def test_without_double_q_the_target_takes_its_own_maximum(make_learner: MakeLearner) -> None:
    learner = make_learner(TINY, learner="lan_learner", td_lambda=0, double_q=False)
    give(learner, V, TARGET_V, ONLINE_A.unsqueeze(0), TARGET_A.unsqueeze(0))
    _, metrics = learner.loss(tiny_batch(True))
    y = torch.tensor([1 + 0.99 * 1.7, 1 + 0.99 * 2.1, 0.99 * 2.2, 0.99 * 1.9, 2.0, 2.0])
    close(metrics["target_mean"], y.mean(), rtol=0, atol=1e-6)


def test_the_maximum_of_the_minimum_of_two_critics(make_learner: MakeLearner) -> None:
    """Heads that value the k-th unit vector at the k-th given number: slots and action are unit vectors."""
    spec = TeamSpec(1, 4, 1, 1, 1, discrete=False)
    learner: Any = make_learner(spec, learner="lan_learner", mac="mq_mac", td_lambda=0, mq_k=4, mq_head_dim=4)
    both = torch.tensor([[0.9, 0.2, 0.5, 0.4], [0.1, 0.3, 0.45, 0.6]])
    taken = torch.tensor([[0.1, 0.0, 0.0, 0.0], [-0.3, 0.0, 0.0, 0.0]])
    for mac, values in ((learner.controller, taken), (learner.target_controller, both)):
        mac.head.action.weight.data = 2 * torch.eye(4).expand(2, -1, -1).clone()
        mac.head.out.weight.data, mac.head.out.bias.data = values.unsqueeze(1), torch.zeros(2, 1)
    learner.target_controller.codebook.position.copy_(torch.eye(4).atanh())
    states = -torch.ones(2, 2, 1, 4)
    give(learner, torch.tensor([1.5]), torch.tensor([0.0, 1.2]), states, states)
    batch = TensorDict(
        {
            "obs": torch.zeros(1, 2, 1, 1),
            "state": torch.zeros(1, 2, 1),
            "actions": torch.eye(4)[0].expand(1, 2, 1, 4),
            "reward": torch.ones(1, 2, 1),
            "terminated": torch.zeros(1, 2, 1, dtype=torch.bool),
            "filled": torch.ones(1, 2, 1, dtype=torch.bool),
        },
        batch_size=[1, 2],
    )
    loss, metrics = learner.loss(batch)
    close(metrics["target_mean"], torch.tensor(2.6335), rtol=0, atol=1e-6)
    close(loss, torch.tensor(3.1230445), rtol=0, atol=1e-5)
