"""QF-LAN's controller: the pool of action samples."""

from collections.abc import Callable
from typing import Any

import torch

from shoal.learners.learner import Learner
from support.lan_family import QF
from support.teams import VECTORS

MakeLearner = Callable[..., Learner]
close = torch.testing.assert_close


def test_the_pool_of_samples_is_the_runs_own_and_goes_where_its_networks_go(make_learner: MakeLearner) -> None:
    pools = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        learner: Any = make_learner(VECTORS, **QF)
        assert learner.target_controller.pool.equal(learner.controller.pool)
        pools.append(learner.controller.pool)
    assert pools[0].equal(pools[1])
    assert not pools[0].equal(pools[2])
    assert pools[0].min() < -0.9
    assert pools[0].max() > 0.9

    torch.manual_seed(3)
    fresh: Any = make_learner(VECTORS, **QF)
    fresh.load_state_dict(learner.state_dict())
    for mac in (fresh.controller, fresh.target_controller):
        assert mac.pool.equal(pools[2])
        close(mac.features, mac.basis(pools[2]), rtol=0, atol=0)
    old = {name: value for name, value in learner.state_dict().items() if "pool_seed" not in name}
    fresh.load_state_dict(old)  # from before it was saved
    assert fresh.controller.pool.equal(2 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) - 1)
