"""The life of a codebook: who wins and moves, who goes, and where new slots start."""

from typing import Any

import pytest
import torch
from torch import Tensor

from shoal.modules.codebook.anchored import ANCHOR, AnchoredCodebook
from shoal.modules.codebook.codebook import Codebook, CodebookSettings, to_position
from shoal.modules.codebook.pruning import clashes, greedy_losers, maximin, pairwise_losers
from shoal.utils.errors import UserError

close = torch.testing.assert_close

SLOTS = torch.tensor(
    [[0.0, 0.0], [0.03, 0.0], [0.06, 0.0], [0.5, 0.5], [0.52, 0.53], [-0.7, 0.2], [0.9, -0.9], [0.9, -0.88]]
)
USAGE, FROZEN, SINCE_WIN = [10, 4, 2, 1, 6, 3, 0, 0], [0] * 7 + [30], [0, 3, 1, 2, 0, 21, 20, 40]


def book(cls: type[Codebook] = Codebook, agents: int = 1, dim: int = 2, **settings: Any) -> Codebook:
    return cls(CodebookSettings(**settings), agents, dim)


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


def test_new_slots_start_in_the_largest_voids() -> None:
    survivors = SLOTS[[0, 2, 4, 6, 7]]
    drawn = torch.tensor([[-0.9, -0.9], [-0.8, -0.8], [0.9, 0.9], [-0.5, 0.9], [0.2, -0.5], [0.0, 0.1]])
    close(maximin(drawn, survivors, 3), drawn[[0, 3, 2]])
    close(maximin(drawn, survivors[:0], 2), drawn[[0, 2]])


def test_utility_of_the_last_window_or_of_all_that_came_before() -> None:
    window, ema = example(), example(mq_utility="ema", mq_proximity=False, mq_starvation=False)
    ema.manage()
    ema.usage.copy_(torch.tensor(USAGE))
    ema.manage()
    close(ema.utility[0], 1.9 * torch.tensor(USAGE, dtype=torch.float32))
    window.manage()
    assert window.utility[0, 0] == 10


def chosen_one_by_one(clash: Tensor, utility: Tensor) -> set[int]:
    gone: set[int] = set()
    for i in sorted(range(len(utility)), key=lambda i: (-float(utility[i]), i)):
        if i not in gone:
            gone |= {j for j in range(len(utility)) if clash[i, j]}
    return gone


@pytest.mark.parametrize("seed", range(25))
def test_pruning_all_at_once_is_pruning_one_by_one(seed: int) -> None:
    """Greedy: no two survivors clash, and none that went could have stayed. Pairwise: each pair's worse half goes."""
    torch.manual_seed(seed)
    G, K = 3, 30
    u = torch.rand(G, K, 2) * 2 - 1
    eligible, utility = torch.rand(G, K) < 0.8, torch.randint(0, 4, (G, K)).float()
    clash = clashes(u, eligible, 0.3)
    goes, pairwise = greedy_losers(clash, utility), pairwise_losers(clash, utility)
    for g in range(G):
        assert set(goes[g].nonzero().flatten().tolist()) == chosen_one_by_one(clash[g], utility[g])
        stays = ~goes[g]
        assert not clash[g][stays][:, stays].any()
        assert clash[g][goes[g]][:, stays].any(-1).all()
        worse = {
            (j if utility[g, i] >= utility[g, j] else i) for i in range(K) for j in range(i + 1, K) if clash[g, i, j]
        }
        assert set(pairwise[g].nonzero().flatten().tolist()) == worse


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


def settled(**settings: Any) -> AnchoredCodebook:
    """Ten anchors far apart, the first of which are the most useful."""
    codebook: Any = book(AnchoredCodebook, mq_k=10, mq_copies=0.2, **settings)
    grid = torch.linspace(-0.9, 0.9, 10)
    codebook.position.copy_(to_position(torch.stack([grid, -grid], dim=-1)))
    codebook.usage.copy_(torch.tensor([9, 8, 3, 3, 3, 3, 3, 3, 0, 0]))
    anchored: AnchoredCodebook = codebook
    return anchored


def test_copies_of_the_most_useful_anchors_explore_in_the_place_of_the_unused() -> None:
    codebook = settled()
    anchors = codebook.position.clone()
    done = codebook.manage()
    assert done.reset[0].nonzero().flatten().tolist() == [8, 9]
    assert codebook.parent[0].tolist() == [ANCHOR] * 8 + [0, 1]
    assert codebook.position[0, 8:].equal(anchors[0, :2])
    for _ in range(30):
        codebook.climb(torch.ones(1, 10, dtype=torch.int64), torch.ones(1, 10, 2), 0.01)
    assert codebook.position[0, :8].equal(anchors[0, :8])
    assert (codebook.position[0, 8:] > anchors[0, :2]).all()
    assert codebook.age[0].tolist() == [0] * 8 + [30, 30]


def test_a_young_copy_may_be_close_to_its_parent_alone() -> None:
    codebook = settled(mq_starvation=False)
    codebook.manage()
    done = codebook.manage()
    assert not done.clashing[0, [0, 8]].any()
    codebook.position[0, 8] = codebook.position[0, 3]
    done = codebook.manage()
    assert done.clashing[0, [3, 8]].any()


@pytest.mark.parametrize("grown", [True, False])
def test_a_copy_that_left_its_parent_stays_if_it_wins(grown: bool) -> None:
    codebook = settled(mq_copy_life=5)
    codebook.manage()
    codebook.position[0, 8] = to_position(torch.tensor([0.9, 0.9]))
    codebook.age[0, 8] = 5
    codebook.since_win[0, 8] = 0 if grown else 21
    done = codebook.manage()
    assert bool(done.reset[0, 8]) is not grown
    if grown:
        assert codebook.parent[0, 8] == ANCHOR


@pytest.mark.parametrize(("picks", "goes"), [(1, 8), (9, 0)])
def test_of_a_copy_that_did_not_leave_and_its_parent_the_more_useful_stays(picks: int, goes: int) -> None:
    codebook = settled(mq_copy_life=5)
    codebook.manage()
    codebook.age[0, 8] = 5
    codebook.usage[0, [0, 8]] = torch.tensor([5, picks])
    codebook.usage[0, 1:8] = 1
    done = codebook.manage()
    assert done.clashing[0].nonzero().flatten().tolist() == [goes]
    assert codebook.parent[0, 8 - goes] == ANCHOR  # who stays stands for itself


def test_of_a_parent_that_starved_and_the_copy_that_takes_its_wins_one_stays() -> None:
    codebook = settled(mq_copy_life=5)
    codebook.manage()
    codebook.age[0, 8] = 5
    codebook.usage[0, [0, 8]] = torch.tensor([5, 3])
    codebook.since_win[0, [0, 8]] = torch.tensor([21, 0])
    done = codebook.manage()
    assert done.reset[0, [0, 8]].tolist() == [True, False]
    assert codebook.parent[0, 8] == ANCHOR


def test_a_small_codebook_has_a_copy_too() -> None:
    codebook: Any = book(AnchoredCodebook, mq_k=4, mq_copies=0.1)
    codebook.usage.copy_(torch.tensor([3, 1, 1, 0]))
    codebook.manage()
    assert (codebook.parent != ANCHOR).sum() == 1


@pytest.mark.parametrize("seed", range(10))
def test_the_best_anchor_of_a_window_survives_its_copy(seed: int) -> None:
    """Whatever becomes of the copies, nothing takes the most useful anchor away while it wins."""
    torch.manual_seed(seed)
    codebook = settled(mq_copy_life=20, mq_clash=0.2, mq_freeze=5)
    start = codebook.position[0, 0].clone()
    for update in range(1, 200):
        wins = (torch.rand(1, 10) < 0.3).long()
        wins[0, 0] = 1
        codebook.climb(wins, torch.randn(1, 10, 2), 0.05)
        codebook.usage[0] += torch.randint(0, 3, (10,)) * (torch.arange(10) > 0)
        codebook.usage[0, 0] += 3
        if update % 10 == 0:
            assert not codebook.manage().reset[0, 0]
    assert codebook.position[0, 0].equal(start)


@pytest.mark.parametrize(
    "wrong", [{"mq_k": 0}, {"mq_clash": -1.0}, {"mq_manage_until": 1.5}, {"mq_copies": 0.1, "mq_grad": False}]
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        CodebookSettings(**wrong)
