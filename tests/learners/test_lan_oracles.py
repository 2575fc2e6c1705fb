"""Numbers computed by hand for the LAN family: targets, losses, schedules, sizes, traps of a codebook's Adam."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from conftest import VECTORS
from shoal.components.schedules import LinearSchedule, anneal_steps
from shoal.components.spec import TeamSpec
from shoal.learners.learner import Learner
from shoal.modules.codebook.codebook import Codebook, CodebookSettings

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
def test_11_1_targets_of_lan(make_learner: MakeLearner, terminal: bool, masked: bool, dead: bool, loss: float) -> None:
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


def test_11_1_without_double_q_the_target_takes_its_own_maximum(make_learner: MakeLearner) -> None:
    learner = make_learner(TINY, learner="lan_learner", td_lambda=0, double_q=False)
    give(learner, V, TARGET_V, ONLINE_A.unsqueeze(0), TARGET_A.unsqueeze(0))
    _, metrics = learner.loss(tiny_batch(True))
    y = torch.tensor([1 + 0.99 * 1.7, 1 + 0.99 * 2.1, 0.99 * 2.2, 0.99 * 1.9, 2.0, 2.0])
    close(metrics["target_mean"], y.mean(), rtol=0, atol=1e-6)


def test_11_2_the_maximum_of_the_minimum_of_two_critics(make_learner: MakeLearner) -> None:
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


def one_slot(start: tuple[float, float]) -> Codebook:
    codebook = Codebook(CodebookSettings(mq_k=1), 1, 2)
    codebook.position.copy_(torch.tensor(start))
    return codebook


@pytest.mark.parametrize(
    ("updates", "drifted"), [(50, (0.79501, -0.49502)), (1000, (0.7029, -0.4047)), (5000, (0.3547, -0.1028))]
)
def test_11_6_a_slot_without_a_gradient_does_not_drift(updates: int, drifted: tuple[float, float]) -> None:
    """The released code's weight decay moves it by a whole step of Adam towards the origin, update after update."""
    theirs = nn.Parameter(torch.tensor([0.8, -0.5]))
    optimiser = torch.optim.Adam([theirs], lr=1e-4, weight_decay=1e-5)
    theirs.grad = torch.zeros(2)
    ours = one_slot((0.8, -0.5))
    for _ in range(updates):
        optimiser.step()
        ours.climb(torch.ones(1, 1, dtype=torch.int64), torch.zeros(1, 1, 2), 1e-4)
    close(theirs.data, torch.tensor(drifted), rtol=0, atol=6e-5)
    assert ours.position.flatten().equal(torch.tensor([0.8, -0.5]))


def test_11_6_the_first_step_after_a_restart_is_as_long_as_the_first_of_all() -> None:
    theirs = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([theirs], lr=1e-4)
    theirs.grad = torch.ones(1)
    ours, won = one_slot((0.0, 0.0)), torch.ones(1, 1, dtype=torch.int64)

    def climb() -> float:
        before = ours.position.clone()
        slope = 1 / (1 - before.tanh().square())  # a gradient of 1 in front of the tanh
        ours.climb(won, slope, 1e-4)
        return float((ours.position - before)[0, 0, 0]) / 1e-4

    for _ in range(1000):
        optimiser.step()
        climb()
    state, before = optimiser.state[theirs], theirs.item()
    state["exp_avg"].zero_()
    state["exp_avg_sq"].zero_()
    optimiser.step()
    assert (theirs.item() - before) / -1e-4 == pytest.approx(2.515, abs=2e-3)
    ours._restart(torch.ones(1, 1, dtype=torch.bool))
    ours.frozen_for.zero_()
    ours.position.zero_()
    assert climb() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("N", "at", "fraction", "start", "finish", "expected"),
    [
        (10_000, 1_000, 0.33333334, 1.0, 0.05, 0.714971),
        (10_000, 3_333, 0.33333334, 1.0, 0.05, 0.05),
        (10_000, 1_000, 0.66666667, 1e-4, 1e-5, 8.64986e-5),
        (10_000, 1_000, 1.0, 5e-4, 5e-5, 4.55e-4),
        (50_000, 5_000, 0.33333334, 1.0, 0.05, 0.714989),
        (50_000, 30_000, 0.66666667, 1e-4, 1e-5, 1.89992e-5),
        (50_000, 30_000, 1.0, 5e-4, 5e-5, 2.3e-4),
    ],
)
def test_11_7_schedules(N: int, at: int, fraction: float, start: float, finish: float, expected: float) -> None:
    schedule = LinearSchedule(start, finish, anneal_steps(fraction, N, 0))
    assert schedule(at) == pytest.approx(expected, rel=1e-5)


def test_11_7_the_schedules_of_a_run_are_fractions_of_it(make_learner: MakeLearner) -> None:
    """50,000 episodes of 6 steps: zeta is not scaled; of 1,000: it is, by 50."""
    fractions = {"epsilon_anneal_frac": 0.33333334, "lr_anneal_frac": 1.0, "lr": 5e-4, "lr_finish": 5e-5}
    learner: Any = make_learner(VECTORS, learner="lan_learner", mac="mq_mac", t_max=300_000, **fractions)
    mac = learner.controller
    assert mac.selector.epsilon(30_000) == pytest.approx(0.714989, rel=1e-4)
    assert learner.lr_schedule(learner.settings.lr)(180_000) == pytest.approx(2.3e-4)
    assert mac.zeta(180_000) == pytest.approx(1.89992e-5, rel=1e-4)
    short: Any = make_learner(VECTORS, learner="lan_learner", mac="mq_mac", t_max=6_000)
    assert short.controller.zeta(0) == pytest.approx(50 * 1e-4)
    plain: Any = make_learner(VECTORS, learner="lan_learner", mac="mq_mac", t_max=6_000, mq_lr_autoscale=False)
    assert plain.controller.zeta(0) == pytest.approx(1e-4)


MULTIWALKER, WATERWORLD = (31, 4), (242, 2)  # observation, action dimensions


@pytest.mark.parametrize(
    ("sizes", "settings", "parameters", "codebook"),
    [
        (MULTIWALKER, {}, 69_265, None),
        (MULTIWALKER, {"mac": "qf_mac"}, 74_879, None),
        (MULTIWALKER, {"mac": "mq_mac"}, 103_043, 800),
        (WATERWORLD, {}, 201_989, None),
        (WATERWORLD, {"mac": "qf_mac"}, 202_838, None),
        (WATERWORLD, {"mac": "mq_mac"}, 250_947, 400),
    ],
)
def test_11_9_parameter_counts(
    make_learner: MakeLearner, sizes: tuple[int, int], settings: dict[str, Any], parameters: int, codebook: int | None
) -> None:
    obs, d = sizes
    actions = d if settings else 2**d
    spec = TeamSpec(2, actions, obs, 2 * obs, 500, discrete=not settings)
    widths = {"rnn_hidden_dim": 64, "value_embed_dim": 64, "value_hidden_dims": [256]}
    learner: Any = make_learner(spec, learner="lan_learner", **widths, **settings)
    assert sum(p.numel() for p in learner.parameters() if p.requires_grad) == parameters
    if codebook is not None:
        assert learner.controller.codebook.position.numel() == codebook
