"""Anchors and the copies that explore for them."""

from typing import Any

import pytest
import torch

from shoal.modules.codebook.anchored import ANCHOR, AnchoredCodebook
from shoal.modules.codebook.codebook import to_position
from support.codebooks import book


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
