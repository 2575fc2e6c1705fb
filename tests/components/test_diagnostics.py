"""Shares of action classes, on episodes small enough to count by hand."""

from collections.abc import Callable

import pytest
import torch
from tensordict import TensorDict

from shoal.components.batch import PackedSteps
from shoal.components.diagnostics import candidate_shares, class_shares, executed_shares
from shoal.components.spec import TeamSpec

CLASSES = (("stop", (0,)), ("move", (1, 2)))
SPEC = TeamSpec(2, 3, 1, 1, 3, discrete=True, action_classes=CLASSES)
MORTAL = TeamSpec(2, 3, 1, 1, 3, discrete=True, has_alive=True, action_classes=CLASSES)


@pytest.fixture
def batch() -> TensorDict:
    """Two episodes of two agents, of 3 steps and of 1.

    In the first, agent 1 is dead from step 1 on: it can only stop (action 0). What stands in rows without an action
    would change every share if it were counted.
    """
    actions = torch.tensor([[[1, 2], [2, 0], [0, 0], [1, 1]], [[0, 2], [1, 1], [1, 1], [1, 1]]])
    avail = torch.ones(2, 4, 2, 3, dtype=torch.bool)
    avail[0, 1:, 1, 1:] = False
    fields = {
        "actions": actions,
        "avail_actions": avail,
        "alive": avail.any(-1) & avail[..., 1],
        "terminated": torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]]).bool().unsqueeze(-1),
        "filled": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool().unsqueeze(-1),
    }
    return TensorDict(fields, batch_size=[2, 4])


@pytest.mark.parametrize("spec", [SPEC, MORTAL])
def test_executed_shares_leave_out_the_dead_and_the_padding(spec: TeamSpec, batch: TensorDict) -> None:
    """Episode 0: move, move | move | stop. Episode 1: stop, move."""
    shares = executed_shares(spec, batch)
    assert list(shares) == ["stop", "move"]
    assert shares["stop"].tolist() == [0.25, 0.5]
    assert shares["move"].tolist() == [0.75, 0.5]


def test_an_agent_alive_counts_even_if_it_can_only_stop(batch: TensorDict) -> None:
    batch["alive"][:] = True
    assert executed_shares(MORTAL, batch)["stop"].tolist() == [0.5, 0.5]
    assert executed_shares(SPEC, batch)["stop"].tolist() == [0.25, 0.5]


def test_an_episode_without_a_choice_has_no_share(batch: TensorDict) -> None:
    batch["avail_actions"][1, :, :, 1:] = False
    shares = executed_shares(SPEC, batch)
    assert shares["move"][0] == 0.75
    assert shares["move"][1].isnan()


def test_classes_may_overlap_and_leave_actions_out() -> None:
    spec = TeamSpec(2, 4, 1, 1, 1, discrete=True, action_classes=(("low", (0, 1)), ("odd", (1, 3)), ("none", ())))
    actions = torch.tensor([[[0, 1], [2, 3]], [[2, 2], [2, 1]]])
    shares = class_shares(spec, actions, torch.ones(2, 2, 2, dtype=torch.bool))
    assert {name: share.tolist() for name, share in shares.items()} == {
        "low": [0.5, 0.25],
        "odd": [0.5, 0.25],
        "none": [0.0, 0.0],
    }


def test_candidate_shares_are_over_the_same_choices(batch: TensorDict) -> None:
    """Six choices; the dead agent's two and the last rows are none."""
    steps = PackedSteps.of(batch)
    taken = steps.pack(batch["actions"])[steps.acted]  # [R, N]
    candidates = torch.stack([taken, torch.zeros_like(taken), torch.full_like(taken, 2)])
    shares = candidate_shares(SPEC, batch, steps, candidates)
    expected = {"stop": [2 / 6, 1, 0], "move": [4 / 6, 0, 1]}
    assert {name: float(share) for name, share in shares.items()} == pytest.approx(
        {f"candidate_{name}_{k}": value for name, values in expected.items() for k, value in enumerate(values)}
    )


def test_nothing_where_no_classes_are_declared(make_batch: Callable[..., TensorDict]) -> None:
    batch = make_batch()
    spec = TeamSpec(3, 2, 5, 6, 6, discrete=False)
    steps = PackedSteps.of(batch)
    assert executed_shares(spec, batch.exclude("avail_actions", "actions")) == {}
    assert candidate_shares(spec, batch, steps, torch.zeros(1, len(steps.acted), 3, dtype=torch.int64)) == {}
