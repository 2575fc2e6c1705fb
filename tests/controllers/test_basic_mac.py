"""The shared controller: its inputs, and acting step by step against the unroll used in training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import PackedSteps
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC
from shoal.controllers.team import TeamInputs
from shoal.learners.learner import Learner
from shoal.utils.errors import UserError

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
close = torch.testing.assert_close
S2Q = {"learner": "s2q_learner", "mac": "s2q_mac"}


class Spy:
    """Stands before a selector and keeps the values it was asked about."""

    discrete = True

    def __init__(self, selector: Any) -> None:
        self.selector, self.seen = selector, list[Tensor]()

    def select(self, values: Tensor, avail_actions: Tensor, t_env: int, test_mode: bool) -> Tensor:
        self.seen.append(values)
        actions: Tensor = self.selector.select(values, avail_actions, t_env, test_mode)
        return actions


def act_through(mac: BasicMAC, batch: TensorDict, test_mode: bool) -> tuple[TensorDict, list[Tensor]]:
    """Act on the observations of ``batch``, step by step, episodes leaving when they end.

    Returns the batch with the actions that were taken, and each step's recurrent states ``[B_live, M, N, H]``.
    """
    batch, live = batch.clone(), torch.arange(batch.shape[0])
    state, hidden = mac.initial_state(len(live)), []
    for t in range(batch.shape[1]):
        stay = batch["filled"][live, t, 0]
        live, state = live[stay], state[stay]
        step = TensorDict({key: batch[key][live, t] for key in ("obs", "avail_actions")}, batch_size=[len(live)])
        out, state = mac.select_actions(step, state, t_env=0, test_mode=test_mode)
        for key, value in out.items():
            batch[key][live, t] = value
        hidden.append(state["hidden"])
    return batch, hidden


@pytest.mark.parametrize("test_mode", [True, False])  # greedy actions, and random ones (epsilon is 1 at t_env 0)
@pytest.mark.parametrize(
    "settings",
    [{}, {"full_comm": True}, {"mac": "comm_mac"}, S2Q, S2Q | {"comm": True}, S2Q | {"s2q_select": "independent"}],
    ids=["basic_mac", "full_comm", "comm_mac", "s2q_mac", "s2q_comm", "s2q_independent"],
)
def test_acting_step_by_step_equals_the_unroll(
    make_learner: MakeLearner, make_batch: MakeBatch, settings: dict[str, Any], test_mode: bool
) -> None:
    """Values, greedy actions and recurrent states on the same episodes."""
    controller = make_learner(**{"learner": "q_learner"} | settings).controller
    controller.selector = spy = Spy(controller.selector)
    batch, hidden = act_through(controller, make_batch(), test_mode)

    steps = PackedSteps.of(batch)
    values, states = (steps.unpack(x) for x in controller.unroll_packed(batch, steps))  # [M, B, T+1, N, ...]
    for t in range(batch.shape[1]):
        live = batch["filled"][:, t, 0].nonzero().squeeze(-1)
        close(hidden[t], states[:, live, t].transpose(0, 1), rtol=0, atol=1e-6)
        agents = torch.arange(3)
        followed = (
            batch["sub_index"][live, t].long() if len(values) > 1 else torch.zeros(len(live), 3, dtype=torch.int64)
        )
        close(spy.seen[t], values[followed, live[:, None], t, agents], rtol=0, atol=1e-6)
    if test_mode:
        real = batch["filled"].squeeze(-1)
        assert torch.equal(greedy(values[0], batch["avail_actions"])[real], batch["actions"][real])


@pytest.mark.parametrize(("last_action", "agent_id"), [(True, True), (True, False), (False, True), (False, False)])
def test_inputs_are_observation_last_action_and_id(
    spec: TeamSpec, make_batch: MakeBatch, last_action: bool, agent_id: bool
) -> None:
    batch = make_batch(lengths=(2, 4, 3))
    inputs = TeamInputs(spec, last_action, agent_id)
    steps = PackedSteps.of(batch)
    built = steps.unpack(inputs.of_batch(batch, steps).unsqueeze(0))[0]
    assert built.shape[-1] == inputs.dim
    for b, t, i in batch["filled"].squeeze(-1).unsqueeze(-1).expand(-1, -1, 3).nonzero().tolist():
        expected = batch["obs"][b, t, i].tolist()
        if last_action:
            expected += [float(t > 0 and a == batch["actions"][b, t - 1, i]) for a in range(4)]
        if agent_id:
            expected += [float(i == j) for j in range(3)]
        assert built[b, t, i].tolist() == expected


def test_states_of_fresh_episodes_are_zero(make_learner: MakeLearner) -> None:
    state = make_learner(learner="q_learner").controller.initial_state(4)
    assert state["hidden"].shape == (4, 1, 3, 8)
    assert state["last_actions"].shape == (4, 3, 4)
    assert not state["hidden"].any()
    assert not state["last_actions"].any()


def test_next_state_carries_the_last_action(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    mac = make_learner(learner="q_learner").controller
    step = make_batch()[:, 0].select("obs", "avail_actions")
    out, state = mac.select_actions(step, mac.initial_state(5), t_env=0)
    assert out["actions"].dtype == torch.int64
    assert torch.equal(state["last_actions"].argmax(-1), out["actions"])
    assert (state["last_actions"].sum(-1) == 1).all()


def test_acting_builds_no_graph(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    for settings in ({"learner": "q_learner"}, {"learner": "s2q_learner", "mac": "s2q_mac"}):
        mac = make_learner(**settings).controller
        _, state = mac.select_actions(make_batch()[:, 0].select("obs", "avail_actions"), mac.initial_state(5), 0)
        assert not state["hidden"].requires_grad


def test_executes_itself_and_reports_exploration(make_learner: MakeLearner) -> None:
    mac = make_learner(learner="q_learner", epsilon_anneal_time=100).controller
    assert mac.for_execution() is mac
    assert mac.metrics(50)["epsilon"] == pytest.approx(0.525)
    assert mac.extra_fields == {}


def test_selector_must_fit_the_actions(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match=r"gaussian.*discrete.*epsilon_greedy"):
        make_learner(learner="q_learner", action_selector="gaussian")
