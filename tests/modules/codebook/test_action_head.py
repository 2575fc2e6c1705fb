"""The head that values many action vectors at once, against one by one and against autograd."""

import pytest
import torch

from shoal.modules.codebook.action_head import ActionHead

close = torch.testing.assert_close


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_table_of_slots_is_the_head_on_history_and_action(block: int) -> None:
    head = ActionHead(2, 6, 5, 3)
    states, slots = torch.randn(2, 11, 2, 5), torch.randn(2, 4, 3)
    one_by_one = torch.stack(
        [head(states, slots[:, k].expand(11, -1, -1)) for k in range(4)], dim=-1
    ).detach()  # [M, P, N, K]
    close(head.table(states[0], slots), one_by_one[0])
    close(head.table(states[1], slots, k=1), one_by_one[1])
    close(head.max_min(states, slots, block), one_by_one.amin(0).amax(-1))


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_ascent_is_autograd_on_the_winners(block: int) -> None:
    head, counted = ActionHead(2, 6, 5, 3), torch.rand(11, 2) < 0.7
    states, slots = torch.randn(2, 11, 2, 5), torch.randn(2, 6, 3, requires_grad=True)
    values = torch.stack([head(states, slots[:, k].expand(11, -1, -1))[0] for k in range(6)], dim=-1)
    top = values.topk(2, dim=-1)
    objective = (top.values.mean(-1) * counted).sum(0) / counted.sum(0)
    (expected,) = torch.autograd.grad(objective.sum(), slots)
    ascent = head.ascend(states[0], slots.detach(), 2, counted, block)
    close(ascent.gradient, expected)
    won = torch.zeros(11, 2, 6).scatter(-1, top.indices, 1.0) * counted.unsqueeze(-1)
    assert ascent.wins.equal(won.sum(0).long())
