"""What LAN's learner holds for every member of its family: gradients, padding, targets, checkpoints, sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from oracles.plain_mq_lan import PlainMQLAN
from shoal.components.batch import PackedSteps
from shoal.components.spec import TeamSpec
from shoal.learners.learner import Learner
from shoal.modules.codebook.codebook import Codebook
from support.lan_family import LAN, MORTAL, MQ, each_kind
from support.teams import SPEC, VECTORS

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
close = torch.testing.assert_close

MULTIWALKER, WATERWORLD = (31, 4), (242, 2)  # observation, action dimensions


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


def test_the_batched_pass_is_a_loop_over_steps(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
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


def test_discrete_targets_are_those_of_a_loop(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
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


@each_kind
def test_after_a_copy_the_target_has_seen_what_the_online_network_has(
    make_learner: MakeLearner, make_batch: MakeBatch, kind: tuple[TeamSpec, dict[str, Any]]
) -> None:
    spec, settings = kind
    learner, batch = drifted(make_learner(spec, **settings)), make_batch(spec)
    steps = PackedSteps.of(batch)
    online = learner.controller.unroll_packed(batch, steps)[1]
    assert not torch.allclose(online, learner.target_controller.unroll_packed(batch, steps)[1])
    learner.update_targets()
    close(learner.target_controller.unroll_packed(batch, steps)[1], online)


@each_kind
def test_only_what_was_seen_counts(
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


@each_kind
def test_credit_flows_through_time_and_from_the_value_alone(
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


@each_kind
def test_an_agent_acts_on_its_own_observations(
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


@each_kind
def test_what_is_saved_is_all_there_is(
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


def test_unavailable_actions_are_never_chosen(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
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


def test_centred_advantages_leave_unavailable_actions_out(make_learner: MakeLearner) -> None:
    outputs, avail = torch.tensor([[[[1.0, 5.0, 3.0]]]]), torch.tensor([[[True, False, True]]])
    for how, expected in (("mean", [-1.0, 3.0, 1.0]), ("max", [-2.0, 2.0, 0.0]), ("none", [1.0, 5.0, 3.0])):
        learner: Any = make_learner(SPEC, **LAN, lan_advantage_center=how)
        close(learner._centred(outputs, avail).flatten(), torch.tensor(expected))


def test_a_value_without_hidden_layers(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner = make_learner(SPEC, **LAN | {"value_hidden_dims": []})
    assert learner.loss(make_batch(SPEC))[0].isfinite()


@pytest.mark.parametrize(
    ("sizes", "settings", "parameters", "codebook"),
    [
        (MULTIWALKER, {}, 69_265, None),
        (MULTIWALKER, {"mac": "qf_mac"}, 74_879, None),
        (MULTIWALKER, {"mac": "mq_mac"}, 103_043, 800),
        (WATERWORLD, {}, 201_989, None),
        (WATERWORLD, {"mac": "qf_mac"}, 202_838, None),
        (WATERWORLD, {"mac": "mq_mac"}, 250_947, 400),
    ],
)
def test_parameter_counts(
    make_learner: MakeLearner, sizes: tuple[int, int], settings: dict[str, Any], parameters: int, codebook: int | None
) -> None:
    obs, d = sizes
    actions = d if settings else 2**d
    spec = TeamSpec(2, actions, obs, 2 * obs, 500, discrete=not settings)
    widths = {"rnn_hidden_dim": 64, "value_embed_dim": 64, "value_hidden_dims": [256]}
    learner: Any = make_learner(spec, learner="lan_learner", **widths, **settings)
    assert sum(p.numel() for p in learner.parameters() if p.requires_grad) == parameters
    if codebook is not None:
        assert learner.controller.codebook.position.numel() == codebook
