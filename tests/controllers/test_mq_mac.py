"""MQ-LAN's controller: its slots in training and in tests, and the schedule of their step length."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from shoal.learners.learner import Learner
from shoal.utils.errors import UserError
from support.lan_family import KINDS, MQ
from support.teams import VECTORS

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
close = torch.testing.assert_close


def test_the_ascent_moves_winners_alone_and_leaves_the_critic(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner: Any = make_learner(VECTORS, **{**MQ, "mq_top_k": 1, "mq_manage_interval": 1000})
    codebook = learner.controller.codebook
    codebook.frozen_for[:, :6] = 10
    learner.loss(make_batch(VECTORS))
    learner.optimiser.zero_grad()
    parameters = {name: p.clone() for name, p in learner.named_parameters()}
    before = codebook.position.clone()
    learner.before_step(0)
    assert all(p.equal(parameters[name]) for name, p in learner.named_parameters())
    won = codebook.since_win == 0
    assert won.any()
    assert not won.all()
    frozen = codebook.frozen_for > 0
    assert codebook.position[~won | frozen].equal(before[~won | frozen])
    assert (codebook.position[won & ~frozen] != before[won & ~frozen]).any(-1).all()


def test_respawned_slots_are_written_into_the_target_too(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """Every third update is a round; between two target copies, targets and slots differ elsewhere."""
    learner: Any = make_learner(
        VECTORS, **MQ, target_update_unit="gradient_steps", mq_lr_autoscale=False, mq_lr_start=0.1
    )
    online, target = learner.controller.codebook, learner.target_controller.codebook
    for _ in range(3):
        online.since_win[:, :4] = 100
        learner.train_on(make_batch(VECTORS), 0, 0)
    reset = online.frozen_for == 50
    assert reset.any()
    assert target.position[reset].equal(online.position[reset])
    assert not target.position[~reset].equal(online.position[~reset])


def test_evolution_moves_nothing_and_anchors_stay(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    for name in ("mq_lan_evolution", "mq_lan_stable"):
        spec, settings = KINDS[name]
        learner: Any = make_learner(spec, **{**settings, "mq_manage_interval": 1000})
        codebook = learner.controller.codebook
        before = codebook.position.clone()
        for n in range(4):
            learner.train_on(make_batch(spec, seed=n), n, n)
        assert codebook.position.equal(before)
        assert codebook.position.grad is None
        assert not codebook.position.requires_grad


def test_tests_leave_no_trace(make_learner: MakeLearner) -> None:
    mac: Any = make_learner(VECTORS, **MQ).controller
    before = {name: x.clone() for name, x in mac.state_dict().items()}
    random = torch.get_rng_state()
    step, state = TensorDict({"obs": torch.randn(4, 2, 5)}, batch_size=[4]), mac.initial_state(4)
    random = torch.get_rng_state()
    for controller in (mac, mac.for_execution()):
        controller.select_actions(step, state, 0, test_mode=True)
    assert torch.get_rng_state().equal(random)
    assert all(x.equal(before[name]) for name, x in mac.state_dict().items())
    mac.select_actions(step, state, 10**9, test_mode=False)
    assert int(mac.codebook.usage.sum()) >= 4  # greedy but for one in twenty


def test_usage_is_of_slots_that_are_executed_as_they_are(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match="use epsilon_uniform"):
        make_learner(VECTORS, **MQ, action_selector="gaussian")


def test_the_schedules_of_a_run_are_fractions_of_it(make_learner: MakeLearner) -> None:
    """50,000 episodes of 6 steps: zeta is not scaled; of 1,000: it is, by 50."""
    fractions = {"epsilon_anneal_frac": 0.33333334, "lr_anneal_frac": 1.0, "lr": 5e-4, "lr_finish": 5e-5}
    learner: Any = make_learner(VECTORS, learner="lan_learner", mac="mq_mac", t_max=300_000, **fractions)
    mac = learner.controller
    assert mac.selector.epsilon(30_000) == pytest.approx(0.714989, rel=1e-4)
    assert learner.lr_schedule(learner.settings.lr)(180_000) == pytest.approx(2.3e-4)
    assert mac.zeta(180_000) == pytest.approx(1.89992e-5, rel=1e-4)
    short: Any = make_learner(VECTORS, learner="lan_learner", mac="mq_mac", t_max=6_000)
    assert short.controller.zeta(0) == pytest.approx(50 * 1e-4)
    plain: Any = make_learner(VECTORS, learner="lan_learner", mac="mq_mac", t_max=6_000, mq_lr_autoscale=False)
    assert plain.controller.zeta(0) == pytest.approx(1e-4)
