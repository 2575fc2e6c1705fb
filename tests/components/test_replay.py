"""The replay memory: what it keeps, what it forgets, what it refuses."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from shoal.components.batch import make_scheme
from shoal.components.replay import ReplayBuffer, ReplaySettings
from shoal.components.spec import TeamSpec
from shoal.utils.errors import UserError

CPU = torch.device("cpu")
SPEC = TeamSpec(n_agents=2, n_actions=3, obs_dim=1, state_dim=1, episode_limit=4, discrete=True)


def make_buffer(capacity: int = 5, spec: TeamSpec = SPEC, seed: int = 0) -> ReplayBuffer:
    settings = ReplaySettings(batch_size=1, buffer_size=capacity)
    return ReplayBuffer(settings, make_scheme(spec), spec.episode_limit, CPU, seed)


def episodes(numbers: list[int], lengths: list[int] | None = None, spec: TeamSpec = SPEC) -> TensorDict:
    """Episodes that carry their number in every real row, cut to the longest."""
    lengths = lengths or [spec.episode_limit] * len(numbers)
    B, rows = len(numbers), max(lengths) + 1
    filled = torch.arange(rows) <= torch.tensor(lengths)[:, None]
    number = torch.tensor(numbers)[:, None] * filled
    batch = {key: torch.zeros(B, rows, *f.shape, dtype=f.dtype) for key, f in make_scheme(spec).items()}
    batch["filled"][..., 0] = filled
    batch["state"][..., 0] = number.float()
    batch["obs"] += batch["state"].unsqueeze(-1)
    batch["reward"][..., 0] = number.float()
    batch["actions"] += (number % 3).unsqueeze(-1)
    batch["avail_actions"] |= filled[..., None, None]
    return TensorDict(batch, batch_size=[B, rows])


def numbers_in(buffer: ReplayBuffer) -> list[int]:
    """The episodes it holds."""
    return sorted(buffer.sample(buffer.n_episodes)["state"][:, 0, 0].int().tolist())


def test_first_in_first_out_around_the_end() -> None:
    buffer = make_buffer(capacity=5)
    held = []
    for first in (1, 4, 7, 10):
        buffer.insert(episodes([first, first + 1, first + 2]))
        held.append(numbers_in(buffer))
    assert held == [[1, 2, 3], [2, 3, 4, 5, 6], [5, 6, 7, 8, 9], [8, 9, 10, 11, 12]]


def test_more_episodes_than_it_holds() -> None:
    buffer = make_buffer(capacity=3)
    buffer.insert(episodes([1]))
    buffer.insert(episodes(list(range(2, 10))))
    assert numbers_in(buffer) == [7, 8, 9]
    buffer.insert(episodes([10]))
    assert numbers_in(buffer) == [8, 9, 10]


def test_there_are_batches_once_enough_episodes_are_stored() -> None:
    settings = ReplaySettings(batch_size=3, buffer_size=5, updates_per_rollout=2)
    buffer = ReplayBuffer(settings, make_scheme(SPEC), SPEC.episode_limit, CPU, 0)
    buffer.insert(episodes([1, 2]))
    assert list(buffer.batches(2)) == []
    buffer.insert(episodes([3, 4]))
    drawn = list(buffer.batches(4))
    assert len(drawn) == 2
    for batch in drawn:
        assert len(set(batch["state"][:, 0, 0].tolist())) == 3


def test_one_batch_must_fit() -> None:
    with pytest.raises(UserError, match="buffer_size=3 holds fewer episodes than one batch"):
        ReplaySettings(batch_size=4, buffer_size=3)


def test_sampling_is_uniform_without_replacement() -> None:
    buffer = make_buffer(capacity=6)
    buffer.insert(episodes([1, 2, 3, 4]))
    seen = torch.zeros(5)
    for _ in range(1500):
        drawn = buffer.sample(2)["state"][:, 0, 0].long()
        assert drawn[0] != drawn[1]
        seen[drawn] += 1
    assert seen[0] == 0  # the empty places
    assert ((seen[1:] / 3000 - 0.25).abs() < 0.04).all()


def test_sample_is_cut_to_its_longest_episode() -> None:
    buffer = make_buffer(capacity=3)
    buffer.insert(episodes([1, 2, 3], lengths=[2, 1, 4]))
    rows = {}
    for _ in range(100):
        drawn = buffer.sample(2)
        rows[tuple(sorted(drawn["state"][:, 0, 0].int().tolist()))] = drawn.batch_size[1]
    assert rows == {(1, 2): 3, (1, 3): 5, (2, 3): 5}


def test_what_goes_in_comes_out() -> None:
    buffer = make_buffer(capacity=4)
    batch = episodes([3], lengths=[3])
    batch["terminated"][0, 2] = True
    buffer.insert(batch)
    drawn = buffer.sample(1)
    assert drawn.batch_size == batch.batch_size
    for key, value in batch.items():
        assert drawn[key].dtype == value.dtype, key
        assert torch.equal(drawn[key], value), key


@pytest.mark.parametrize("lengths", [[1], [2], [4]])
def test_no_stale_rows(lengths: list[int]) -> None:
    """A place is reused by an episode shorter or longer than the one before."""
    buffer = make_buffer(capacity=2)
    buffer.insert(episodes([7, 8], lengths=[3, 3]))
    buffer.insert(episodes([5], lengths=lengths))
    buffer.insert(episodes([6], lengths=[4]))  # so that the sample is not cut
    drawn = buffer.sample(2)
    row = int((drawn["state"][:, 0, 0] == 5).nonzero())
    after = lengths[0] + 1
    assert drawn["filled"][row, :after].all()
    assert all(not drawn[key][row, after:].any() for key in drawn.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    ("n_actions", "stored"),
    [(256, torch.uint8), (257, torch.int16), (32_768, torch.int16), (32_769, torch.int32), (70_000, torch.int32)],
)
def test_actions_are_kept_small_and_restored(n_actions: int, stored: torch.dtype) -> None:
    spec = TeamSpec(2, n_actions, 1, 1, 4, discrete=True)
    buffer = make_buffer(2, spec)
    batch = episodes([1], spec=spec)
    batch["actions"].fill_(n_actions - 1)
    buffer.insert(batch)
    actions = buffer.sample(1)["actions"]
    assert actions.dtype == torch.int64
    assert actions.unique().tolist() == [n_actions - 1]
    assert buffer.state_dict(with_episodes=True)["episodes"]["actions"].dtype == stored


def test_continuous_actions_are_kept_as_they_are() -> None:
    spec = TeamSpec(2, 3, 1, 1, 4, discrete=False)
    buffer = make_buffer(2, spec)
    batch = {key: torch.zeros(1, 5, *f.shape, dtype=f.dtype) for key, f in make_scheme(spec).items()}
    batch["filled"][:] = True
    batch["actions"] = torch.rand(1, 5, 2, 3) * 2 - 1
    buffer.insert(TensorDict(batch, batch_size=[1, 5]))
    assert torch.equal(buffer.sample(1)["actions"], batch["actions"])


def test_says_how_much_memory_it_takes() -> None:
    # a row: obs 2, state and reward 1 each, as float32; terminated, filled, avail 2x3 and actions 2, a byte each
    assert make_buffer(capacity=10).gigabytes == pytest.approx(10 * 5 * (4 * 4 + 2 + 6 + 2) / 1e9)


def test_refuses_to_take_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = make_buffer(capacity=1000).gigabytes * 1e9
    free = SimpleNamespace(available=needed)
    monkeypatch.setattr("shoal.components.replay.psutil.virtual_memory", lambda: free)
    with pytest.raises(UserError, match=r"1000 episodes.*lower buffer_size"):
        make_buffer(capacity=1000)
    make_buffer(capacity=500)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("inserted", [2, 8])  # part full, and wrapped around
def test_state_dict_with_episodes_goes_on_as_before(inserted: int) -> None:
    buffer, other = make_buffer(capacity=5), make_buffer(capacity=5, seed=1)
    for number in range(1, inserted + 1):
        buffer.insert(episodes([number], lengths=[1 + number % 4]))
    buffer.sample(2)
    other.load_state_dict(through_a_file(buffer.state_dict(with_episodes=True)))
    for number in (50, 51, 52):
        for one in (buffer, other):
            one.insert(episodes([number], lengths=[2]))
        mine, theirs = buffer.sample(2), other.sample(2)
        assert mine.batch_size == theirs.batch_size
        assert all(torch.equal(mine[key], theirs[key]) for key in mine.keys())  # noqa: SIM118 (iterates over rows otherwise)
    assert numbers_in(buffer) == numbers_in(other)


def test_state_dict_without_episodes_starts_empty_with_the_same_draws() -> None:
    buffer, other = make_buffer(capacity=5), make_buffer(capacity=5, seed=1)
    buffer.insert(episodes([1, 2, 3, 4]))
    buffer.sample(2)
    state = through_a_file(buffer.state_dict(with_episodes=False))
    other.load_state_dict(state)
    assert other.n_episodes == 0
    other.insert(episodes([1, 2, 3, 4]))
    for _ in range(3):
        assert torch.equal(buffer.sample(2)["state"], other.sample(2)["state"])
