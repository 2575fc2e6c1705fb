"""The life of a codebook: who wins and moves, who starves, who is frozen."""

from typing import Any

import pytest
import torch

from shoal.modules.codebook.anchored import ANCHOR, AnchoredCodebook
from shoal.modules.codebook.codebook import Codebook, CodebookSettings, to_position
from shoal.modules.codebook.pruning import clashes
from shoal.utils.errors import UserError
from support.codebooks import SLOTS, book

close = torch.testing.assert_close
USAGE, FROZEN, SINCE_WIN = [10, 4, 2, 1, 6, 3, 0, 0], [0] * 7 + [30], [0, 3, 1, 2, 0, 21, 20, 40]


def example(**settings: Any) -> Codebook:
    """A worked example: eight slots, of which some clash, one has starved and one is frozen."""
    codebook = book(mq_k=8, **settings)
    codebook.position.copy_(to_position(SLOTS))
    for name, values in (("usage", USAGE), ("frozen_for", FROZEN), ("since_win", SINCE_WIN)):
        getattr(codebook, name).copy_(torch.tensor(values))
    return codebook


@pytest.mark.parametrize(("rule", "losers"), [("greedy", {1, 3}), ("pairwise", {1, 2, 3})])
def test_a_round_of_pruning(rule: str, losers: set[int]) -> None:
    codebook = example(mq_prune_rule=rule)
    done = codebook.manage()
    assert set(done.starved[0].nonzero().flatten().tolist()) == {5}
    assert set(done.clashing[0].nonzero().flatten().tolist()) == losers
    reset = done.reset[0]
    assert set(reset.nonzero().flatten().tolist()) == losers | {5}
    close(codebook.actions()[0][~reset], SLOTS[~reset], rtol=0, atol=1e-6)
    assert (codebook.frozen_for[0][reset] == 50).all()
    assert codebook.frozen_for[0, 7] == 30
    assert (codebook.since_win[0][reset] == 0).all()
    assert codebook.since_win[0, 6] == 20
    assert not codebook.usage.any()
    close(codebook.last_round, torch.tensor([len(losers) + 1, len(losers), 1]) / 8)


def test_utility_of_the_last_window_or_of_all_that_came_before() -> None:
    window, ema = example(), example(mq_utility="ema", mq_proximity=False, mq_starvation=False)
    ema.manage()
    ema.usage.copy_(torch.tensor(USAGE))
    ema.manage()
    close(ema.utility[0], 1.9 * torch.tensor(USAGE, dtype=torch.float32))
    window.manage()
    assert window.utility[0, 0] == 10


FREEZE = [7, 40, 0]
"""Shorter than a copy's life, longer than it, and not at all."""


@pytest.mark.parametrize("kind", [Codebook, AnchoredCodebook])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_slots_stay_in_the_box_and_frozen_ones_where_they_are(
    kind: type[Codebook], shared: bool, seed: int
) -> None:
    """Property test: random wins, gradients of any size, step sizes, picks and rounds."""
    torch.manual_seed(seed)
    codebook = book(
        kind, 2, 3, mq_k=20, mq_codebook="shared" if shared else "per_agent", mq_copies=0.2, mq_clash=0.3,
        mq_starve_after=4, mq_freeze=FREEZE[seed % 3], mq_copy_life=12, mq_prune_rule=["greedy", "pairwise"][seed % 2],
    )  # fmt: skip
    every = torch.arange(20)
    for update in range(1, 120):
        codebook.count(torch.randint(0, 20, (8, 2)), torch.rand(8, 2) < 0.9)
        before, frozen = codebook.position.clone(), codebook.frozen_for > 1
        gradient = torch.randn(2, 20, 3) * 10.0 ** torch.randint(-6, 6, (1,))
        won = torch.rand(2, 20) < 0.1
        codebook.climb(won.long(), gradient, float(10.0 ** -torch.randint(0, 5, (1,))))
        assert codebook.position[frozen].equal(before[frozen])
        team_won = won.any(0, keepdim=True) if shared else won
        assert codebook.position[~team_won].equal(before[~team_won])
        if kind is AnchoredCodebook:
            anchors = codebook.parent == ANCHOR
            assert codebook.position[anchors].equal(before[anchors])
        if update % 10 == 0:
            before, frozen = codebook.position.clone(), codebook.frozen_for > 0
            done = codebook.manage()
            assert not (done.reset & frozen).any()
            assert codebook.position[~done.reset].equal(before[~done.reset])
            assert (codebook.moves[done.reset] == 0).all()
            assert not codebook.mean[done.reset].any()
            if kind is Codebook:
                assert (codebook.frozen_for[done.reset] == FREEZE[seed % 3]).all()
                assert_apart(codebook)
            else:
                parents = codebook.parent[codebook.parent != ANCHOR]
                assert (parents >= 0).all()
                assert all(len(set(p[p >= 0].tolist())) == int((p >= 0).sum()) for p in codebook.parent)
                assert not any(int(i) in p[p >= 0].tolist() for p in codebook.parent for i in every[p >= 0])
        assert codebook.actions().abs().max() <= 1  # tanh rounds to 1
        assert codebook.position.isfinite().all()


def assert_apart(codebook: Codebook) -> None:
    """Slots that are not frozen are at least sigma apart."""
    pairs = clashes(codebook.position.tanh(), codebook.frozen_for == 0, codebook.settings.mq_clash)
    assert not pairs.any()


def test_new_slots_start_inside_the_box() -> None:
    codebook = book(mq_k=50, mq_starve_after=0)
    codebook.since_win.fill_(1)
    done = codebook.manage()
    assert done.reset.all()
    assert codebook.actions().abs().max() < 1


def test_first_slots_fill_the_box_or_the_released_part_of_it() -> None:
    widest = [float(book(mq_k=2000, mq_init=init).actions().abs().max()) for init in ("action", "preact")]
    assert widest[0] > 0.98
    assert 0.75 < widest[1] < 0.7616


def test_freezing_blocks_one_update_less_than_its_number() -> None:
    codebook = book(mq_k=1)
    codebook._restart(torch.ones(1, 1, dtype=torch.bool))
    start, won = codebook.position.clone(), torch.ones(1, 1, dtype=torch.int64)
    for _ in range(49):
        codebook.climb(won, torch.ones(1, 1, 2), 1e-3)
    assert codebook.position.equal(start)
    codebook.climb(won, torch.ones(1, 1, 2), 1e-3)
    assert not codebook.position.equal(start)


def test_a_shared_codebook_pools_picks_wins_and_gradients() -> None:
    codebook = book(agents=2, mq_k=3, mq_codebook="shared")
    codebook.count(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[True, True], [True, False]]))
    assert codebook.usage.tolist() == [[2, 1, 0]]
    assert codebook.actions().shape == (2, 3, 2)
    wins = torch.tensor([[1, 0, 0], [0, 4, 0]])
    gradient = torch.tensor([[[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], [[-3.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])
    before = codebook.position.clone()
    codebook.climb(wins, gradient, 0.1)
    moved = codebook.position - before
    close(moved[0, :2].sign(), torch.tensor([[-1.0, 1.0], [1.0, 1.0]]))
    assert codebook.since_win.tolist() == [[0, 0, 1]]
    assert not moved[0, 2].any()


@pytest.mark.parametrize("wins_late", [True, False])
def test_the_round_after_the_freeze_judges_a_new_slot(wins_late: bool) -> None:
    """What docs/lan.md says: by default it is fixed for 49 updates, moves in the 50th, and then it must have won."""
    codebook = example(mq_proximity=False)
    new = codebook.manage().reset
    start, steady = codebook.position[new].clone(), torch.ones(1, 8, 2)
    for update in range(1, 51):
        wins = torch.ones(1, 8)
        wins[new] = float(wins_late or update < 30)
        codebook.climb(wins, steady, rate=0.01)
        assert codebook.position[new].equal(start) is (update < 50 or not wins_late)
    assert codebook.manage().reset[new].all().item() is not wins_late


def test_tests_leave_frozen_slots_out_unless_all_are() -> None:
    codebook = book(agents=2, mq_k=3)
    codebook.frozen_for.copy_(torch.tensor([[5, 0, 0], [1, 1, 1]]))
    assert codebook.eligible().tolist() == [[False, True, True], [True, True, True]]


@pytest.mark.parametrize(
    "wrong", [{"mq_k": 0}, {"mq_clash": -1.0}, {"mq_manage_until": 1.5}, {"mq_copies": 0.1, "mq_grad": False}]
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        CodebookSettings(**wrong)
