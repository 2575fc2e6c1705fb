"""A game of one step in which only precise actions pay: who learns it, and who cannot.

Four contexts, two agents; agent i is paid most at its own point m of the box for the context, and half of that at -m.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.spec import TeamSpec
from shoal.learners.learner import Learner
from shoal.modules.layers.basis import Basis

MakeLearner = Callable[..., Learner]

MODES = torch.tensor(
    [
        [[0.5, 0.3], [-0.4, 0.6], [-0.3, -0.5], [0.6, -0.2]],
        [[-0.2, 0.5], [0.3, 0.1], [0.1, -0.6], [-0.6, -0.1]],
    ]
)  # [N, contexts, d]
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
    m = MODES[:, contexts].transpose(0, 1)
    near, far = (torch.exp(-(actions - s * m).square().sum(-1) / (2 * 0.3**2)) for s in (1, -1))
    return torch.maximum(near, 0.5 * far)


def step_in(contexts: Tensor, discrete: bool) -> TensorDict:
    step = {"obs": torch.eye(4)[contexts].unsqueeze(1).expand(-1, 2, -1)}
    if discrete:
        step["avail_actions"] = torch.ones(len(contexts), 2, 4, dtype=torch.bool)
    return TensorDict(step, batch_size=[len(contexts)])


def act(mac: Any, contexts: Tensor, discrete: bool, test_mode: bool) -> tuple[Tensor, Tensor]:
    """What is stored of the actions, and the vectors that are executed."""
    state = mac.initial_state(len(contexts))
    chosen = mac.select_actions(step_in(contexts, discrete), state, 0, test_mode)[0]["actions"]
    return chosen, CORNERS[chosen] if discrete else chosen


def greedy_reward(
    make_learner: MakeLearner, seed: int, discrete: bool = False, updates: int = UPDATES, **settings: Any
) -> float:
    """Mean greedy reward after training on games in which each action was uniform in every other case."""
    torch.manual_seed(seed)
    spec = TeamSpec(2, 4 if discrete else 2, 4, 4, 1, discrete)
    learner: Any = make_learner(
        spec, learner="lan_learner", td_lambda=0, rnn_hidden_dim=64, lr=1e-3, t_max=updates, value_embed_dim=64,
        value_hidden_dims=[64], epsilon_start=0.5, epsilon_finish=0.5, **settings,
    )  # fmt: skip
    mac = learner.controller
    for n in range(updates):
        contexts = torch.randint(4, (B,))
        actions, executed = act(mac, contexts, discrete, test_mode=False)
        step = step_in(contexts, discrete)
        fields = {
            **step,
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


def test_14_the_game_is_the_published_one() -> None:
    contexts = torch.arange(4)
    corners = torch.stack([reward(contexts, c.expand(4, 2, 2)) for c in CORNERS]).amax(0)  # [contexts, N]
    expected = torch.tensor([[0.0164, 0.0556, 0.0164, 0.0117], [0.0071, 0.0007, 0.0046, 0.0046]])
    torch.testing.assert_close(corners.T, expected, rtol=0, atol=1e-4)
    assert float(corners.mean()) == pytest.approx(0.0146, abs=1e-4)
    assert float(reward(contexts, MODES.transpose(0, 1)).mean()) == pytest.approx(1.0)
    assert float(reward(contexts, torch.zeros(4, 2, 2)).mean()) == pytest.approx(0.187, abs=1e-3)
    many = torch.randint(4, (100_000,))
    assert float(reward(many, torch.rand(len(many), 2, 2) * 2 - 1).mean()) == pytest.approx(0.189, abs=5e-3)


def test_14_a_higher_rank_finds_the_modes_better() -> None:
    """Least squares of the true reward on the Legendre basis, and its best point."""
    axis = torch.linspace(-1, 1, 61, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    found = {}
    for rank in (3, 5, 8):
        phi = Basis("legendre", 2, rank)(grid)
        total = 0.0
        for context in range(4):
            r = reward(torch.full((len(grid),), context), grid.float().unsqueeze(1).expand(-1, 2, -1)).double()
            fit = phi @ torch.linalg.lstsq(phi, r).solution  # [points, N]
            total += float(r.gather(0, fit.argmax(0, keepdim=True)).mean()) / 4
        found[rank] = total
    assert found[3] == pytest.approx(0.759, abs=0.03)
    assert found[5] == pytest.approx(0.946, abs=0.03)
    assert found[8] == pytest.approx(0.996, abs=0.03)


@pytest.mark.slow
def test_14_a_codebook_finds_the_modes(make_learner: MakeLearner) -> None:
    moving = sum(greedy_reward(make_learner, seed, **MQ) for seed in range(3)) / 3
    assert moving >= 0.93
    assert moving > greedy_reward(make_learner, 0, **STATIC) + 0.1


@pytest.mark.slow
def test_14_evolution_finds_them_too(make_learner: MakeLearner) -> None:
    assert greedy_reward(make_learner, 0, **EVOLUTION) >= 0.88


@pytest.mark.slow
def test_14_anchored_slots_find_them_too(make_learner: MakeLearner) -> None:
    assert greedy_reward(make_learner, 0, **MQ, mq_copies=0.2) >= 0.85


@pytest.mark.slow
def test_14_q_functionals_find_them_too(make_learner: MakeLearner) -> None:
    assert greedy_reward(make_learner, 0, updates=1000, mac="qf_mac") >= 0.8


@pytest.mark.slow
def test_14_corners_cannot(make_learner: MakeLearner) -> None:
    assert greedy_reward(make_learner, 0, discrete=True, updates=300) <= 0.06
