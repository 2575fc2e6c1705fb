"""The range alarm: when it goes off, what it says, that it does so once."""

import pytest
import torch
from tensordict import TensorDict

from shoal.components.alarm import LARGE, LONG, MANY, MARGIN, SLACK, RangeAlarm, quarter_means

B, T, N, D, S = 4, 40, 3, 5, 6
NAMES = {"obs": [f"seen_{i}" for i in range(D)], "state": [f"true_{i}" for i in range(S)]}


def episodes(lengths=(T,) * B):
    """Inputs within [-1, 1], episodes of these lengths."""
    rng = torch.Generator().manual_seed(0)
    filled = torch.arange(T + 1) <= torch.tensor(lengths)[:, None]
    fields = {
        "obs": torch.rand(len(lengths), T + 1, N, D, generator=rng) * 2 - 1,
        "state": torch.rand(len(lengths), T + 1, S, generator=rng) * 2 - 1,
    }
    fields = {key: x * filled.view(*filled.shape, *[1] * (x.dim() - 2)) for key, x in fields.items()}
    return TensorDict(fields | {"filled": filled.unsqueeze(-1)}, batch_size=[len(lengths), T + 1])


def sentences(alarm, batch, times=1):
    return [a.sentence for _ in range(times) for a in alarm.look_at_episodes(batch, torch.zeros(1))]


@pytest.fixture
def alarm():
    return RangeAlarm(NAMES, "Do this.")


def test_inputs_of_ordinary_size_are_not_mentioned(alarm):
    batch = episodes()
    batch["obs"] *= LARGE
    assert sentences(alarm, batch, 2 * MANY) == []


def test_a_large_entry_is_named_once_with_its_agent_and_step(alarm):
    batch = episodes()
    batch["obs"][2, 7, 1, 3] = -40
    batch["obs"][0, 9, 2, 0] = 11
    (said,) = sentences(alarm, batch, 3)
    assert said.startswith("Entry 3 (seen_3) of the observation of agent 1 is -40 at step 7, and 1 more entry is above")
    assert said.endswith("Do this.")
    batch["state"][1, 2, 4] = 12.5
    (also,) = sentences(alarm, batch, 2)  # another kind
    assert also.startswith("The state's entry 4 (true_4) is 12.5 at step 2; ")


def test_without_names_the_index_has_to_do():
    batch = episodes()
    batch["state"][1, 2, 4] = 12.5
    assert sentences(RangeAlarm({}, ""), batch)[0].startswith("The state's entry 4 is 12.5")


def growing(batch, key="state", where=(2,), to=8.0):
    """One entry rises from 0 to ``to`` along every episode."""
    t = torch.arange(T + 1) / T * to
    batch[key][(..., *where)] = t * batch["filled"].squeeze(-1)
    return batch


@pytest.mark.parametrize(
    ("key", "where", "named"),
    [
        ("state", (2,), "The state's entry 2 (true_2) grows"),
        ("obs", (1, 4), "Entry 4 (seen_4) of the observation of agent 1 grows"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_an_entry_that_grows_along_episodes_is_named_once(alarm, key, where, named, sign):
    batch = growing(episodes(), key, where, sign * 8.0)
    assert sentences(alarm, batch, MANY // B - 1) == []  # not from a few episodes
    (said,) = sentences(alarm, batch, MANY)
    assert said.startswith(named)


def test_what_grows_far_is_large_and_said_once(alarm):
    assert len(sentences(alarm, growing(episodes(), to=-50.0), MANY)) == 1


@pytest.mark.parametrize(
    "batch",
    [
        growing(episodes(), to=1.9),  # a clock, scaled
        growing(episodes((LONG - 2,) * B)),  # short episodes
    ],
)
def test_growth_that_harms_nobody_is_not_mentioned(alarm, batch):
    assert sentences(alarm, batch, MANY) == []


def test_an_entry_that_drifts_in_half_of_the_episodes_is_not_mentioned(alarm):
    batch = growing(episodes())
    batch["state"][: B // 2, :, 2] = 5.0
    assert sentences(alarm, batch, 3 * MANY) == []


def test_quarters_are_those_of_each_episode():
    """By hand: episodes of 8 and 4 rows with the row's number as value; padding is left out."""
    filled = torch.arange(8) < torch.tensor([8, 4])[:, None]
    values = (torch.arange(8.0) * filled).unsqueeze(-1)
    assert quarter_means(-values, filled).squeeze(-1).tolist() == [[0.5, 2.5, 4.5, 6.5], [0, 1, 2, 3]]


def test_values_beyond_all_returns_are_said_once(alarm):
    list(alarm.look_at_episodes(episodes(), torch.tensor([[3.0, -20.0]])))
    assert list(alarm.look_at_values({"q_taken_mean": 1e6})) == []  # a few episodes do not show what returns can be
    for _ in range(MANY // B):
        list(alarm.look_at_episodes(episodes(), torch.tensor([[1.0, 2.0]])))
    assert alarm.largest_return == 20
    bound = MARGIN * 20 + SLACK
    within = {"q_taken_mean": torch.tensor(-bound), "target_max_abs": bound - 1, "loss_td": 1e9, "v_mean": 1e9}
    assert list(alarm.look_at_values(within)) == []
    (one,) = alarm.look_at_values({"target_max_abs": torch.tensor(100.0), "central_q_taken_mean": -bound - 1})
    assert (one.metric, one.value) == ("alarm_q_range", 5.0)
    assert "target_max_abs is 100" in one.sentence
    assert "beyond 20" in one.sentence
    assert list(alarm.look_at_values({"q_taken_mean": -1e6})) == []


def test_inputs_that_are_normalised_are_not_looked_at():
    alarm = RangeAlarm(NAMES, "", inputs=False)
    batch = episodes()
    batch["obs"] *= 1000
    assert sentences(alarm, growing(batch), MANY) == []


def test_it_goes_on_from_its_state(alarm):
    """What was said stays said, what was counted stays counted."""
    batch = growing(episodes())
    batch["obs"][0, 0] = 50
    assert len(sentences(alarm, batch, MANY // B - 1)) == 1  # the observation; the state needs one batch more
    list(alarm.look_at_episodes(batch[:0], torch.tensor([7.0])))
    later = RangeAlarm(NAMES, "Do this.")
    later.load_state_dict(alarm.state_dict())
    assert later.largest_return == 7
    assert later.state_dict()["episodes"] == alarm.state_dict()["episodes"] > 0
    assert sentences(later, batch) == sentences(alarm, batch)
    assert later.state_dict()["said"] == ["obs growth", "obs size", "state growth"]
