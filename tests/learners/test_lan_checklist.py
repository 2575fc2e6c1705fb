"""What the LAN family must hold, item by item of its checklist (the numbers in the names).

Item 1's numbers are in ``test_lan_oracles.py``, ``modules/test_basis.py`` and ``components/test_codebook.py``; items 8
and 15 are there too, for the slots alone; item 11 for whole runs is in ``test_lan_runs.py``, item 14 in
``test_lan_toy.py`` and ``test_lan_waterworld.py``. Items 13 and 16 are about environments (``envs/test_sisl.py``) and
statistics and are tested beside those.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_mq_lan import PlainMQLAN
from tensordict import TensorDict
from torch import Tensor

from conftest import SPEC, VECTORS
from shoal.components.batch import PackedSteps
from shoal.components.spec import TeamSpec
from shoal.learners.learner import Learner
from shoal.modules.codebook.action_head import ActionHead
from shoal.modules.codebook.codebook import Codebook, CodebookSettings
from shoal.utils.errors import UserError

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
close = torch.testing.assert_close

LAN = {"learner": "lan_learner", "td_lambda": 0, "value_embed_dim": 8, "value_hidden_dims": [8]}
MQ = {**LAN, "mac": "mq_mac", "mq_k": 12, "mq_head_dim": 8, "mq_manage_interval": 3, "mq_chunk": 8}
QF = {**LAN, "mac": "qf_mac", "qf_rank": 3, "qf_samples": 20, "qf_test_samples": 20, "qf_pool": 200}
KINDS: dict[str, tuple[TeamSpec, dict[str, Any]]] = {
    "lan": (SPEC, LAN),
    "qf_lan": (VECTORS, QF),
    "mq_lan": (VECTORS, MQ),
    "mq_lan_one_critic": (VECTORS, {**MQ, "mq_double_critic": False}),
    "mq_lan_shared": (VECTORS, {**MQ, "mq_codebook": "shared"}),
    "mq_lan_stable": (VECTORS, {**MQ, "mq_copies": 0.25}),
    "mq_lan_evolution": (VECTORS, {**MQ, "mq_grad": False, "mq_proximity": False, "mq_spawn": "random"}),
}
MORTAL = TeamSpec(3, 4, 5, 6, 6, discrete=True, has_alive=True)


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> tuple[TeamSpec, dict[str, Any]]:
    """Each member of the family: environment and settings."""
    return KINDS[request.param]


def drifted(learner: Learner) -> Any:
    """The learner with targets that differ from what they follow."""
    for target, _ in learner._followed:
        for parameter in target.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return learner


def gradients(learner: Learner, loss: Tensor) -> dict[str, Tensor]:
    learner.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def test_02_the_batched_pass_is_a_loop_over_steps(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """Loss, gradients and the slots' gradient of MQ-LAN, variable lengths and both kinds of ending included."""
    learner = drifted(make_learner(VECTORS, **MQ))
    learner.target_controller.codebook.position.uniform_(-1.0, 1.0)
    batch = make_batch(VECTORS)
    plain = PlainMQLAN(learner)
    loss, expected = learner.loss(batch)[0], plain.loss(batch)
    close(loss, expected, rtol=1e-5, atol=1e-6)

    outputs, counted = learner._passed
    mac = learner.controller
    ascent = mac.head.ascend(outputs[0], mac.codebook.actions(), mac.settings.mq_top_k, counted, 8)
    plain.climb(batch)
    close(ascent.gradient * (1 - mac.codebook.actions().square()), plain.position.grad, rtol=1e-4, atol=1e-7)

    ours = gradients(learner, loss)
    value = {name: learner.value.get_parameter(name).grad.clone() for name, _ in learner.value.named_parameters()}
    plain.zero_grad()
    plain.loss(batch).backward()
    for name, grad in value.items():
        close(grad, plain.value.get_parameter(name).grad, rtol=1e-4, atol=1e-6)
    for k, critic in enumerate(plain.critics):
        for name, theirs in (("fc_in.weight", critic.fc.weight), ("rnn.weight_hh", critic.rnn.weight_hh)):
            close(ours[f"controller.agent.{name}"][k], theirs.grad, rtol=1e-4, atol=1e-6)
        joint = critic.head[0].weight.grad
        close(ours["controller.head.action.weight"][k], joint[:, -2:], rtol=1e-4, atol=1e-6)


def test_02_discrete_targets_are_those_of_a_loop(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner, batch = drifted(make_learner(MORTAL, **LAN, mask_dead=True)), make_batch(MORTAL)
    steps = PackedSteps.of(batch)
    mac, target = learner.controller, learner.target_controller
    x = mac.inputs.of_batch(batch, steps)

    def per_step(value: Tensor) -> Tensor:
        return steps.unpack(value.unsqueeze(0))[0]

    def passed(mac: Any, value: Any) -> tuple[Tensor, Tensor]:
        outputs, histories = mac.unroll_packed(batch, steps)
        v = value(histories[0], x, steps.pack(batch["state"]), steps.pack(batch["alive"]))
        return per_step(outputs[0]), per_step(v)

    a, v = passed(mac, learner.value)
    target_a, target_v = passed(target, learner.target_value)
    total, n = torch.zeros(()), 0
    for b in range(batch.shape[0]):
        for t in range(int(batch["filled"][b].sum()) - 1):
            for i in range(MORTAL.n_agents):
                if not batch["alive"][b, t, i]:
                    continue
                avail = batch["avail_actions"][b, t + 1, i].nonzero().flatten().tolist()
                best = max(avail, key=lambda u, b=b, t=t, i=i: a[b, t + 1, i, u].item()) if avail else 0
                bootstrap = target_v[b, t + 1] + target_a[b, t + 1, i, best]
                y = batch["reward"][b, t, 0] + 0.99 * (~batch["terminated"][b, t, 0]) * bootstrap
                q = v[b, t] + a[b, t, i, batch["actions"][b, t, i]]
                total, n = total + (q - y.detach()).square(), n + 1
    close(learner.loss(batch)[0], total / n, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_03_the_table_of_slots_is_the_head_on_history_and_action(block: int) -> None:
    head = ActionHead(2, 6, 5, 3)
    states, slots = torch.randn(2, 11, 2, 5), torch.randn(2, 4, 3)
    one_by_one = torch.stack(
        [head(states, slots[:, k].expand(11, -1, -1)) for k in range(4)], dim=-1
    ).detach()  # [M, P, N, K]
    close(head.table(states[0], slots), one_by_one[0])
    close(head.table(states[1], slots, k=1), one_by_one[1])
    close(head.max_min(states, slots, block), one_by_one.amin(0).amax(-1))


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_03_the_ascent_is_autograd_on_the_winners(block: int) -> None:
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


def test_04_after_a_copy_the_target_has_seen_what_the_online_network_has(
    make_learner: MakeLearner, make_batch: MakeBatch, kind: tuple[TeamSpec, dict[str, Any]]
) -> None:
    spec, settings = kind
    learner, batch = drifted(make_learner(spec, **settings)), make_batch(spec)
    steps = PackedSteps.of(batch)
    online = learner.controller.unroll_packed(batch, steps)[1]
    assert not torch.allclose(online, learner.target_controller.unroll_packed(batch, steps)[1])
    learner.update_targets()
    close(learner.target_controller.unroll_packed(batch, steps)[1], online)


def test_05_only_what_was_seen_counts(
    make_learner: MakeLearner, make_batch: MakeBatch, kind: tuple[TeamSpec, dict[str, Any]]
) -> None:
    """Padding and what follows an end change nothing; the last observation counts where a time limit came before it."""
    spec, settings = kind
    learner, batch = drifted(make_learner(spec, **settings)), make_batch(spec)

    def outcome(batch: TensorDict) -> tuple[Tensor, ...]:
        torch.manual_seed(0)  # the samples of a Q-functional
        loss = learner.loss(batch)[0].detach()
        outputs, counted = learner._passed
        if not isinstance(getattr(learner.controller, "codebook", None), Codebook):
            return (loss,)
        head, slots = learner.controller.head, learner.controller.codebook.actions()
        ascent = head.ascend(outputs[0], slots, 3, counted, 8)
        return loss, ascent.gradient, ascent.wins

    def changed(rows: Tensor) -> TensorDict:
        other = batch.clone()
        for key in ("obs", "state", "reward", "actions"):
            noise = torch.ones_like(other[key])
            other[key] = torch.where(rows.view(*rows.shape, *[1] * (noise.dim() - 2)), noise, other[key])
        return other

    before = outcome(batch)
    filled, lengths = batch["filled"].squeeze(-1), batch["filled"].sum(1).flatten() - 1
    last = torch.arange(batch.shape[1]) == lengths.unsqueeze(1)
    ended = batch["terminated"].squeeze(-1).any(1, keepdim=True)
    for rows in (~filled, last & ended):
        assert rows.any()
        assert all(torch.equal(a, b) for a, b in zip(before, outcome(changed(rows)), strict=True))
    assert outcome(changed(last & ~ended))[0] != before[0]


def test_06_credit_flows_through_time_and_from_the_value_alone(
    make_learner: MakeLearner, make_batch: MakeBatch, kind: tuple[TeamSpec, dict[str, Any]]
) -> None:
    spec, settings = kind
    batch = make_batch(spec)
    learner: Any = make_learner(spec, **settings)
    late = batch.clone()
    late["obs"] = late["obs"].requires_grad_()
    steps = PackedSteps.of(late)
    outputs = learner.controller.unroll_for_loss(late, steps, 0)[0]
    q = learner._value_taken(outputs, steps.pack(late["actions"]))
    fifth = steps.unpack(q)[:, 0, 5].sum()
    (grad,) = torch.autograd.grad(fifth, late["obs"])
    assert grad[0, 0].abs().sum() > 0
    for own in (True, False):
        learner = make_learner(spec, **settings, lan_value_grad_to_encoder=own)
        learner._value_taken = lambda outputs, actions: torch.zeros(*outputs.shape[:-1])
        encoder = gradients(learner, learner.loss(batch)[0]).get("controller.agent.rnn.weight_hh", torch.zeros(1))
        assert bool(encoder.any()) is own


def test_07_the_ascent_moves_winners_alone_and_leaves_the_critic(
    make_learner: MakeLearner, make_batch: MakeBatch
) -> None:
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


def test_07_slots_climb_to_the_peak_of_a_fixed_critic() -> None:
    """-|a - peak|^2, whose gradient is given; both slots win."""
    codebook, peak = Codebook(CodebookSettings(mq_k=2), 1, 2), torch.tensor([0.4, -0.6])
    for _ in range(2000):
        codebook.climb(torch.ones(1, 2, dtype=torch.int64), -2 * (codebook.actions() - peak), 5e-3)
    close(codebook.actions(), peak.expand(1, 2, 2), rtol=0, atol=1e-2)


def test_08_respawned_slots_are_written_into_the_target_too(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
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


def test_09_an_agent_acts_on_its_own_observations(
    make_learner: MakeLearner, kind: tuple[TeamSpec, dict[str, Any]]
) -> None:
    spec, settings = kind
    mac = make_learner(spec, **settings).controller.for_execution()

    def actions(others: float) -> Tensor:
        torch.manual_seed(0)
        obs = torch.ones(1, spec.n_agents, spec.obs_dim)
        obs[:, 1:] = others
        step = TensorDict({"obs": obs}, batch_size=[1])
        if spec.discrete:
            step["avail_actions"] = torch.ones(1, spec.n_agents, spec.n_actions, dtype=torch.bool)
        state, taken = mac.initial_state(1), []
        for _ in range(3):
            out, state = mac.select_actions(step, state, 0, test_mode=True)
            taken.append(out["actions"][:, 0])
        return torch.stack(taken)

    assert actions(-2.0).equal(actions(5.0))


def test_10_tests_leave_no_trace(make_learner: MakeLearner) -> None:
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


def test_11_what_is_saved_is_all_there_is(
    make_learner: MakeLearner, make_batch: MakeBatch, kind: tuple[TeamSpec, dict[str, Any]]
) -> None:
    """A learner that goes on from another's state does what the other does, bit for bit."""
    spec, settings = kind
    batches = [make_batch(spec, seed=seed) for seed in range(12)]
    learner = make_learner(spec, **settings)
    for n, batch in enumerate(batches[:5]):
        learner.train_on(batch, n, n)
    other = make_learner(spec, **settings)
    other.load_state_dict(learner.state_dict())
    traces = []
    for one in (learner, other):
        torch.manual_seed(3)
        traces.append([one.train_on(batch, 5 + n, 5 + n) for n, batch in enumerate(batches[5:])])
    for ours, theirs in zip(*traces, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    state = other.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in learner.state_dict().items() if isinstance(x, Tensor))


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


def test_12_unavailable_actions_are_never_chosen(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner: Any = make_learner(MORTAL, **LAN)
    step = TensorDict({"obs": torch.randn(50, 3, 5), "alive": torch.ones(50, 3).bool()}, batch_size=[50])
    avail = torch.rand(50, 3, 4) < 0.4
    avail[..., 3] |= ~avail.any(-1)
    step["avail_actions"] = avail
    for test_mode in (True, False):
        out, _ = learner.controller.select_actions(step, learner.controller.initial_state(50), 0, test_mode)
        assert avail.gather(-1, out["actions"].unsqueeze(-1)).all()
    batch = make_batch(MORTAL)
    batch["avail_actions"][:, 1:] &= batch["alive"][:, 1:].unsqueeze(-1)  # the dead have no action at all
    for center in ("none", "mean", "max"):
        loss, _ = make_learner(MORTAL, **LAN, lan_advantage_center=center).loss(batch)
        assert loss < 10  # not the square of what an unavailable action is worth


def test_12_centred_advantages_leave_unavailable_actions_out(make_learner: MakeLearner) -> None:
    outputs, avail = torch.tensor([[[[1.0, 5.0, 3.0]]]]), torch.tensor([[[True, False, True]]])
    for how, expected in (("mean", [-1.0, 3.0, 1.0]), ("max", [-2.0, 2.0, 0.0]), ("none", [1.0, 5.0, 3.0])):
        learner: Any = make_learner(SPEC, **LAN, lan_advantage_center=how)
        close(learner._centred(outputs, avail).flatten(), torch.tensor(expected))


def test_a_value_without_hidden_layers(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner = make_learner(SPEC, **LAN | {"value_hidden_dims": []})
    assert learner.loss(make_batch(SPEC))[0].isfinite()


def test_usage_is_of_slots_that_are_executed_as_they_are(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match="use epsilon_uniform"):
        make_learner(VECTORS, **MQ, action_selector="gaussian")


def test_15_evolution_moves_nothing_and_anchors_stay(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
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
