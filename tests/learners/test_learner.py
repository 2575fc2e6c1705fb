"""What holds for every learner: padding, targets, clipping, state, refusals."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.spec import TeamSpec
from shoal.learners.learner import Learner
from shoal.learners.value_learner import chosen
from shoal.utils.errors import NonFiniteError, UserError

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
Algorithm = dict[str, Any]
close = torch.testing.assert_close


def outcome(learner: Learner, batch: TensorDict) -> dict[str, Tensor]:
    """Loss, metrics and gradients."""
    learner.zero_grad()
    loss, metrics = learner.loss(batch)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    return {"loss": loss.detach()} | metrics | gradients


def padded(batch: TensorDict, rows: int) -> TensorDict:
    fields = {key: torch.cat([x, torch.zeros_like(x[:, :1]).repeat_interleave(rows, 1)], 1) for key, x in batch.items()}
    return TensorDict(fields, batch_size=[batch.shape[0], batch.shape[1] + rows])


def with_garbage(batch: TensorDict) -> TensorDict:
    """Other values in all padding, and in what the last row of an episode holds beside its observation."""
    garbage = {
        "obs": 9 * torch.randn_like(batch["obs"]),
        "state": 9 * torch.randn_like(batch["state"]),
        "avail_actions": torch.rand_like(batch["avail_actions"].float()) < 0.5,
        "actions": torch.randint_like(batch["actions"], 4),
        "reward": 9 * torch.randn_like(batch["reward"]),
        "sub_index": torch.randint_like(batch["sub_index"], 3),
    }
    filled = batch["filled"].squeeze(-1)
    acted = torch.cat([filled[:, 1:], torch.zeros_like(filled[:, :1])], 1)
    out = batch.clone()
    for key, values in garbage.items():
        real = filled if key in ("obs", "state", "avail_actions") else acted
        out[key] = torch.where(real.view(*real.shape, *[1] * (values.dim() - 2)), batch[key], values)
    return out


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        close(other[name], one[name], rtol=1e-5, atol=1e-6, msg=name)


def test_padding_alters_nothing(make_learner: MakeLearner, make_batch: MakeBatch, algorithm: Algorithm) -> None:
    """No loss, metric or gradient, whatever padding holds and however much there is."""
    learner, batch = make_learner(**algorithm), make_batch()
    with torch.no_grad():  # targets equal to what they follow would tie, and rounding would break the ties
        for p in learner.parameters():
            p += 0.0 if p.requires_grad else 0.1 * torch.randn_like(p)
    plain = outcome(learner, batch)
    assert_same(plain, outcome(learner, padded(batch, 3)))
    assert_same(plain, outcome(learner, with_garbage(padded(batch, 2))))
    assert_same(plain, outcome(learner, batch[torch.tensor([4, 2, 0, 3, 1])]))


def test_real_steps_do_matter(make_learner: MakeLearner, make_batch: MakeBatch, algorithm: Algorithm) -> None:
    """The bootstrap state of a truncated episode too, but not that of a terminated one."""
    learner, batch = make_learner(**algorithm, td_lambda=0.0), make_batch(lengths=(2, 4, 3))
    loss = learner.loss(batch)[0]
    for b, t, matters in [(0, 0, True), (2, 2, True), (2, 3, True), (0, 2, False)]:
        changed = batch.clone()
        changed["obs"][b, t] += 3.0
        changed["state"][b, t] += 3.0
        moved = not torch.allclose(learner.loss(changed)[0], loss, rtol=1e-5)
        assert moved is matters, (b, t)


def test_agents_without_an_available_action_count_with_their_first(
    make_learner: MakeLearner, make_batch: MakeBatch, algorithm: Algorithm
) -> None:
    """Loss, metrics and gradients are those of a mask that leaves them their first action, and within reach of rewards.

    What unavailable actions are worth to an argmax is no value: nothing may bootstrap from it.
    """
    learner, batch = make_learner(**algorithm), make_batch()
    idle = torch.rand(batch["actions"].shape) < 0.4
    idle[:, 1] = True  # the whole team too
    batch["actions"][idle] = 0
    batch["avail_actions"][idle] = False
    refused = outcome(learner, batch)
    batch["avail_actions"][..., 0] |= idle
    assert_same(refused, outcome(learner, batch))
    assert refused["loss"] < 60
    assert refused["target_mean"].abs() < 10


def test_targets_receive_no_gradient(make_learner: MakeLearner, make_batch: MakeBatch, algorithm: Algorithm) -> None:
    learner = make_learner(**algorithm)
    outcome(learner, make_batch())
    trained = {id(p) for group in learner.optimiser.param_groups for p in group["params"]}
    assert any(name.startswith("target_") for name, _ in learner.named_parameters())
    for name, p in learner.named_parameters():
        if name.startswith("target_"):
            assert p.grad is None
            assert id(p) not in trained
        else:
            assert p.grad is not None, name
            assert id(p) in trained


def test_targets_follow_every_interval_of_episodes(
    make_learner: MakeLearner, make_batch: MakeBatch, algorithm: Algorithm
) -> None:
    """At the first update at least 20 episodes after the last refresh, as exact copies."""
    learner, batch = make_learner(**algorithm, target_update_interval=20), make_batch()
    refreshed = []
    for episode in range(8, 80, 8):
        before = [p.clone() for target, _ in learner._followed for p in target.parameters()]
        learner.train_on(batch, t_env=0, episode=episode)
        after = [p for target, _ in learner._followed for p in target.parameters()]
        if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            refreshed.append(episode)
            for target, source in learner._followed:
                pairs = zip(target.state_dict().values(), source().values(), strict=True)
                assert all(torch.equal(a, b) for a, b in pairs)
    assert refreshed == [24, 48, 72]
    assert int(learner.last_target_update) == 72
    assert int(learner.n_updates) == 9


def test_gradient_is_clipped_as_a_whole(make_learner: MakeLearner, make_batch: MakeBatch, algorithm: Algorithm) -> None:
    learner, batch = make_learner(**algorithm, grad_norm_clip=0.01), make_batch()
    outcome(learner, batch)
    raw = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    norm = torch.cat([g.double().flatten() for g in raw.values()]).norm().float()
    metrics = learner.train_on(batch, t_env=0, episode=0)
    close(metrics["grad_norm"], norm, rtol=1e-5, atol=0)
    assert norm > 0.01
    for name, p in learner.named_parameters():
        if name in raw:
            close(p.grad, raw[name] * 0.01 / norm, rtol=1e-4, atol=1e-9)


def test_training_lowers_the_loss_on_one_batch(
    make_learner: MakeLearner, make_batch: MakeBatch, algorithm: Algorithm
) -> None:
    learner, batch = make_learner(**algorithm, lr=0.005), make_batch()
    first = float(learner.train_on(batch, 0, 0)["loss_td"])
    for _ in range(80):
        last = float(learner.train_on(batch, 0, 0)["loss_td"])
    assert last < 0.5 * first


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_state_survives_a_file_exactly(
    make_learner: MakeLearner, make_batch: MakeBatch, algorithm: Algorithm, optimizer: str
) -> None:
    """All networks and targets, the optimiser, the counters; training goes on bit by bit."""
    settings = {**algorithm, "optimizer": optimizer, "target_update_interval": 20}
    learner = make_learner(**settings)
    for update in range(4):  # targets are refreshed at the third update and differ after the fourth
        learner.train_on(make_batch(seed=update), t_env=0, episode=8 * (update + 1))
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    file.seek(0)
    torch.manual_seed(99)
    other = make_learner(**settings)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert int(other.last_target_update) == 24
    assert int(other.n_updates) == 4
    for update in range(4, 8):  # the next refresh is due at episode 48
        batch = make_batch(seed=update)
        ours, theirs = (one.train_on(batch, t_env=0, episode=8 * (update + 1)) for one in (learner, other))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    pairs = zip(learner.state_dict().items(), other.state_dict().items(), strict=True)
    for (name, mine), (_, restored) in pairs:
        if name != "_extra_state":
            assert torch.equal(mine, restored), name


def test_state_names_every_network(make_learner: MakeLearner) -> None:
    state = make_learner(learner="s2q_learner", mac="s2q_mac", K=3).state_dict()
    parts = {".".join(name.split(".")[:2]) for name in state}
    assert {"controller.agent", "controller.encoder", "controller.decoder", "central.mac", "central.mixer"} <= parts
    assert {"target_star.mac", "target_star.mixer", "last_target_update", "_extra_state"} <= parts
    assert len(state["controller.agent.fc_in.weight"]) == len(state["mixer.hyper_b1.weight"]) == 4


def test_state_of_another_size_is_refused(make_learner: MakeLearner) -> None:
    two, three = (make_learner(learner="s2q_learner", mac="s2q_mac", K=K) for K in (2, 3))
    with pytest.raises(RuntimeError, match="size mismatch"):
        three.load_state_dict(two.state_dict())


def test_continuous_actions_are_refused(make_learner: MakeLearner, spec: TeamSpec, algorithm: Algorithm) -> None:
    continuous = TeamSpec(3, 2, 5, 6, 6, discrete=False)
    with pytest.raises(UserError, match=r"needs? discrete actions|continuous actions: use"):
        make_learner(spec=continuous, **algorithm)


@pytest.mark.parametrize("settings", [{"gamma": 1.1}, {"td_lambda": -0.1}, {"lr": 0.0}, {"lr_finish": 0.0}])
def test_impossible_settings(make_learner: MakeLearner, settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        make_learner(learner="q_learner", **settings)


def test_optimisers_take_their_settings(make_learner: MakeLearner) -> None:
    adam = make_learner(learner="q_learner", lr=0.004).optimiser
    assert (adam.defaults["lr"], adam.defaults["eps"], adam.defaults["betas"]) == (0.004, 1e-8, (0.9, 0.999))
    rmsprop = make_learner(learner="q_learner", optimizer="rmsprop", optim_alpha=0.9, optim_eps=1e-4).optimiser
    assert isinstance(rmsprop, torch.optim.RMSprop)
    assert (rmsprop.defaults["alpha"], rmsprop.defaults["eps"]) == (0.9, 1e-4)


def test_learning_rate_goes_down_with_the_steps(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner = make_learner(learner="q_learner", lr=0.1, lr_finish=0.01, lr_anneal_time=100)
    rates = []
    for t_env in (0, 50, 100, 500):
        learner.train_on(make_batch(), t_env=t_env, episode=0)
        rates.append(learner.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.055, 0.01, 0.01])


def test_chosen_gathers_with_broadcast_axes() -> None:
    values, actions = torch.randn(2, 3, 4), torch.randint(4, (5, 2, 3))
    taken = chosen(values, actions)
    assert taken.shape == (5, 2, 3)
    for c, r, i in torch.cartesian_prod(torch.arange(5), torch.arange(2), torch.arange(3)).tolist():
        assert taken[c, r, i] == values[r, i, actions[c, r, i]]
    close(chosen(values.expand(5, -1, -1, -1), actions[0]), taken[0].expand(5, -1, -1))


def test_copies_of_a_learner_are_independent(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """Targets follow the networks of their own learner."""
    learner = make_learner(learner="q_learner", target_update_interval=1)
    twin = copy.deepcopy(learner)
    twin.train_on(make_batch(), t_env=0, episode=1)
    assert torch.equal(twin.target_mixer.hyper_b1.weight, twin.mixer.hyper_b1.weight)
    assert not torch.equal(twin.mixer.hyper_b1.weight, learner.mixer.hyper_b1.weight)


def test_fine_tuning_takes_the_networks_alone_and_its_targets_follow_again(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    old = make_learner(learner="q_learner")
    for episode in range(0, 1000, 100):
        old.train_on(make_batch(), 0, episode)
    new = make_learner(learner="q_learner", lr=0.02)
    new.load_networks(old.state_dict())
    for name, value in new.controller.state_dict().items():
        close(value, old.controller.state_dict()[name])
        close(value, new.target_controller.state_dict()[name])
    assert int(new.last_target_update) == int(new.n_updates) == 0
    assert new.optimiser.state_dict()["state"] == {}
    new.train_on(make_batch(), 0, 200)
    for name, value in new.controller.state_dict().items():
        close(value, new.target_controller.state_dict()[name])


def test_a_loaded_optimiser_keeps_its_moments_but_steps_as_the_settings_say(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    old = make_learner(learner="q_learner", lr=0.001)
    old.train_on(make_batch(), 0, 0)
    new = make_learner(learner="q_learner", lr=0.02)
    new.load_state_dict(old.state_dict())
    assert new.optimiser.param_groups[0]["lr"] == 0.02
    close(new.optimiser.state_dict()["state"], old.optimiser.state_dict()["state"])


def test_another_optimiser_does_not_load(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    old = make_learner(learner="q_learner")
    old.train_on(make_batch(), 0, 0)
    with pytest.raises(ValueError, match="optimiser"):
        make_learner(learner="q_learner", optimizer="rmsprop").load_state_dict(old.state_dict())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e30])
def test_a_loss_that_is_not_finite_changes_nothing(
    make_learner: MakeLearner, make_batch: MakeBatch, algorithm: Algorithm, wrong: float
) -> None:
    """Neither networks nor targets, optimiser or counters; the sentence names what it was and when."""
    learner, batch = make_learner(**algorithm), make_batch()
    learner.train_on(batch, 100, 10)
    before = copy.deepcopy(learner.state_dict())
    batch["reward"][0, 0] = wrong  # 1e30: its square is beyond what numbers hold
    with pytest.raises(
        NonFiniteError, match=r"NaN or infinity in loss, .*loss_td.* of update 2 at t_env 1,200"
    ) as caught:
        learner.train_on(batch, 1200, 20)
    assert "grad_norm" in str(caught.value)
    assert_equal(learner.state_dict(), before)


def test_a_gradient_that_is_not_finite_stops_where_the_loss_is(
    make_learner: MakeLearner, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slope of a root at zero."""
    learner, batch = make_learner(learner="q_learner"), make_batch()
    weight = next(p for p in learner.parameters() if p.requires_grad)
    monkeypatch.setattr(learner, "loss", lambda batch, t_env: ((0 * weight).sum().sqrt(), {}))
    with pytest.raises(NonFiniteError, match="NaN or infinity in grad_norm of update 1"):
        learner.train_on(batch, 0, 0)


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, Tensor):
        assert one.equal(other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def test_values_that_grew_before_are_said(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner, batch = make_learner(learner="q_learner"), make_batch()
    for k, reward in enumerate((1.0, 1e9, 1.0, 1e9, 1e9)):
        batch["reward"][0, 0] = reward
        learner.train_on(batch, 100 * k, k)
    batch["reward"][0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"update 6 at t_env 500 \(above 1e\+06 since update 4 at t_env 300\)"):
        learner.train_on(batch, 500, 6)


def test_returns_to_go_are_discounted_and_a_truncated_episode_goes_on_at_its_mean(make_learner: MakeLearner) -> None:
    learner = make_learner(learner="q_learner", gamma=0.9)
    reward = torch.tensor([[1.0, 0.0, 2.0, 0.0], [1.0, -3.0, 0.0, 0.0]]).unsqueeze(-1)
    terminated = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]]).bool().unsqueeze(-1)
    filled = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool().unsqueeze(-1)
    batch = TensorDict({"reward": reward, "terminated": terminated, "filled": filled}, batch_size=[2, 4])
    beyond = 0.9 * 2 / (1 - 0.9)  # the second episode's mean absolute reward, for ever
    expected = [[1 + 0.81 * 2, 0.9 * 2, 2.0], [1 + 0.9 * (-3 + beyond), -3 + beyond, 0.0]]
    torch.testing.assert_close(learner.returns_to_go(batch), torch.tensor(expected))
    assert learner.returns_to_go(batch[:1]).abs().max() == pytest.approx(2.62)


def test_returns_to_go_are_of_the_rewards_that_are_learnt_from(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
    learner, batch = make_learner(learner="q_learner", standardise_rewards=True), make_batch()
    plain = make_learner(learner="q_learner").returns_to_go(batch).abs().max()
    batch["reward"] *= 1000
    learner.observe(batch)
    assert learner.returns_to_go(batch).abs().max() < 3 * plain
