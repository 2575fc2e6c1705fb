"""The fields of a batch, the one mask, and packed steps."""

from collections.abc import Callable

import pytest
import torch
from tensordict import TensorDict

from shoal.components.batch import PackedSteps, episode_lengths, make_scheme, one_hot, transition_mask
from shoal.components.spec import TeamSpec


def batch_of(filled: list[int], terminated: list[int]) -> TensorDict:
    rows = len(filled)
    fields = {"filled": torch.tensor(filled).bool(), "terminated": torch.tensor(terminated).bool()}
    return TensorDict({k: v.view(1, rows, 1) for k, v in fields.items()}, batch_size=[1, rows])


@pytest.mark.parametrize(
    ("filled", "terminated", "expected"),
    [
        ([1, 1, 1, 1, 1], [0, 0, 1, 0, 0], [1, 1, 1, 0]),  # rows after the end were filled by a careless writer
        ([1, 1, 1, 1, 0], [0, 0, 1, 0, 0], [1, 1, 1, 0]),
        ([1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1]),
        ([1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0]),  # truncated early: PyMARL's formula gives 1, 1, 1, 0
        ([1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0]),
    ],
)
def test_mask_counts_executed_actions(filled: list[int], terminated: list[int], expected: list[int]) -> None:
    mask = transition_mask(batch_of(filled, terminated))
    assert mask.dtype == torch.float32
    assert mask.tolist() == [expected]


def test_mask_adds_up_to_the_lengths(make_batch: Callable[..., TensorDict]) -> None:
    batch = make_batch(lengths=(6, 2, 5))
    assert episode_lengths(batch).tolist() == [6, 2, 5]
    assert transition_mask(batch).sum(1).tolist() == [6, 2, 5]


def test_scheme_of_discrete_and_continuous_teams(spec: TeamSpec) -> None:
    scheme = make_scheme(spec)
    assert (scheme["actions"].shape, scheme["actions"].dtype) == ((3,), torch.int64)
    assert (scheme["avail_actions"].shape, scheme["avail_actions"].dtype) == ((3, 4), torch.bool)
    assert "alive" not in scheme
    continuous = make_scheme(TeamSpec(3, 2, 5, 6, 7, discrete=False, has_alive=True))
    assert (continuous["actions"].shape, continuous["actions"].dtype) == ((3, 2), torch.float32)
    assert "avail_actions" not in continuous
    assert continuous["alive"].shape == (3,)


def test_one_hot() -> None:
    assert one_hot(torch.tensor([[2, 0]]), 3).tolist() == [[[0, 0, 1], [1, 0, 0]]]


def test_packed_steps_are_the_real_ones_longest_episode_first(make_batch: Callable[..., TensorDict]) -> None:
    batch = make_batch(lengths=(2, 4, 1))
    batch["state"][..., 0] = 10 * torch.arange(3)[:, None] + torch.arange(5)
    steps = PackedSteps.of(batch)
    assert steps.counts == [3, 3, 2, 1, 1]
    packed = steps.pack(batch["state"])[:, 0].tolist()
    assert packed == [10, 0, 20, 11, 1, 21, 12, 2, 13, 14]
    acted = [packed[row] for row in steps.acted.tolist()]
    assert acted == [10, 0, 20, 11, 1, 12, 13]  # without the last states 2, 21 and 14


def test_states_after_a_tasks_end_are_left_out(make_batch: Callable[..., TensorDict]) -> None:
    batch = make_batch(lengths=(2, 4, 3))  # the third is truncated: its last state has a value
    batch["state"][..., 0] = 10 * torch.arange(3)[:, None] + torch.arange(5)
    steps = PackedSteps.with_value(batch)
    assert steps.counts == [3, 3, 2, 2]
    packed = steps.pack(batch["state"])[:, 0].tolist()
    assert packed == [10, 20, 0, 11, 21, 1, 12, 22, 13, 23]
    acted = [packed[row] for row in steps.acted.tolist()]
    assert acted == [10, 20, 0, 11, 21, 1, 12, 22, 13]


def test_unpacking_undoes_packing(make_batch: Callable[..., TensorDict]) -> None:
    batch = make_batch(lengths=(2, 4, 1, 4))
    steps = PackedSteps.of(batch)
    obs = batch["obs"] + 100.0  # padding is not zero here
    both = torch.stack([steps.pack(obs), 2 * steps.pack(obs)])
    real = batch["filled"].unsqueeze(-1)
    assert torch.equal(steps.unpack(both), torch.stack([obs * real, 2 * obs * real]))


def test_packed_transitions_are_those_of_the_mask(make_batch: Callable[..., TensorDict]) -> None:
    batch = make_batch()
    steps = PackedSteps.of(batch)
    counted = torch.zeros(5, 7).flatten()
    counted[steps.index[steps.acted]] += 1
    assert torch.equal(counted.view(5, 7)[:, :-1], transition_mask(batch))
    assert not counted.view(5, 7)[:, -1].any()


def test_values_of_transitions_go_there_and_back(make_batch: Callable[..., TensorDict]) -> None:
    batch = make_batch()
    for steps in (PackedSteps.of(batch), PackedSteps.with_value(batch)):
        values = torch.randn(2, 5, 6) * transition_mask(batch)
        packed = steps.pack_acted(values)
        assert packed.shape == (2, len(steps.acted)) == (2, int(transition_mask(batch).sum()))
        assert torch.equal(packed[0], steps.pack(torch.nn.functional.pad(values[0], (0, 1)))[steps.acted])
        assert torch.equal(steps.unpack_acted(packed), values)
