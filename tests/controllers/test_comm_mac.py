"""Communicating agents: messages, their gradients, and what remains at execution."""

from collections.abc import Callable

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.batch import PackedSteps
from shoal.controllers.comm import CommMAC
from shoal.learners.learner import Learner
from shoal.utils.errors import UserError

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
close = torch.testing.assert_close

S2Q_COMM = {"learner": "s2q_learner", "mac": "s2q_mac", "comm": True}
QMIX_COMM = {"learner": "q_learner", "mac": "comm_mac"}


def step_by_step(mac: CommMAC, batch: TensorDict) -> Tensor:
    """The equations, one step after another with autograd through all of it: values ``[M, B, T, N, A]``."""
    B, T = batch.shape[0], batch.shape[1]
    last, hidden, values = torch.zeros(B, 3, 4).double(), mac.agent.initial_hidden(B, 3), []
    for t in range(T):
        z = mac.encoder(hidden[0].detach().flatten(1))  # what copy 0 remembered before this step
        inputs = torch.cat([batch["obs"][:, t], last, torch.eye(3).double().expand(B, -1, -1)], -1)
        inputs = torch.cat([inputs, z[:, None].expand(-1, 3, -1)], -1)
        out, hidden = mac.agent(inputs, hidden, [B])
        values.append(out)
        last = torch.nn.functional.one_hot(batch["actions"][:, t], 4).double()
    return torch.stack(values, 2)


@pytest.mark.parametrize("settings", [S2Q_COMM, QMIX_COMM], ids=["s2q", "qmix"])
def test_unroll_equals_the_step_by_step_graph(
    make_learner: MakeLearner, make_batch: MakeBatch, settings: dict[str, object]
) -> None:
    """Values and every parameter's gradient, the encoder's through the messages included."""
    mac = make_learner(**settings).double().controller
    batch = make_batch(lengths=(6, 6, 6))
    batch = TensorDict({k: x.double() if x.is_floating_point() else x for k, x in batch.items()}, batch.batch_size)
    steps = PackedSteps.of(batch)
    plain = step_by_step(mac, batch)
    ours = steps.unpack(mac.unroll_packed(batch, steps)[0])
    close(ours, plain, rtol=0, atol=1e-12)

    weight = torch.randn_like(plain)
    parameters = [*mac.agent.parameters(), *mac.encoder.parameters()]
    pairs = zip(
        torch.autograd.grad((ours * weight).sum(), parameters),
        torch.autograd.grad((plain * weight).sum(), parameters),
        strict=True,
    )
    for mine, theirs in pairs:
        assert theirs.any()
        close(mine, theirs, rtol=0, atol=1e-10)


def test_no_gradient_from_a_message_into_the_histories(make_learner: MakeLearner) -> None:
    mac = make_learner(**QMIX_COMM).controller
    histories = torch.randn(4, 3, 8, requires_grad=True)
    mac.encode(histories).sum().backward()
    assert histories.grad is None
    assert all(p.grad is not None for p in mac.encoder.parameters())


@pytest.mark.parametrize("settings", [S2Q_COMM, QMIX_COMM], ids=["s2q", "qmix"])
def test_the_td_loss_reaches_the_encoder(
    make_learner: MakeLearner, make_batch: MakeBatch, settings: dict[str, object]
) -> None:
    """With the decoder's own losses taken away."""
    learner, batch = make_learner(**settings), make_batch()
    learner.controller.decoder.requires_grad_(False)
    loss, metrics = learner.loss(batch)
    own = [metrics[name] for name in ("loss_td", "loss_central", "loss_kl", "loss_state") if name in metrics]
    assert float(sum(own)) == pytest.approx(loss.item(), rel=1e-5)
    learner.controller.auxiliary_losses = lambda *args: {}
    if "comm" in settings:
        learner.controller.predict = lambda histories: (
            torch.zeros(*histories.shape[:-2], 6),
            torch.full((*histories.shape[:-2], 3), 1 / 3).log(),
        )
    learner.loss(batch)[0].backward()
    assert all(p.grad.any() for p in learner.controller.encoder.parameters())


def test_the_first_message_encodes_zeros(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """z is used from the first step, and every agent and copy reads the same one."""
    mac, batch = make_learner(**S2Q_COMM).controller, make_batch()
    seen: list[Tensor] = []
    mac.agent.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    step = batch[:, 0].select("obs", "avail_actions")
    mac.select_actions(step, mac.initial_state(5), 0)
    message = seen[0][..., -32:]
    close(message, mac.encoder(torch.zeros(24)).expand(5, 3, -1))


@pytest.mark.parametrize("settings", [S2Q_COMM, QMIX_COMM], ids=["s2q", "qmix"])
def test_execution_keeps_the_encoder_alone(
    make_learner: MakeLearner, make_batch: MakeBatch, settings: dict[str, object]
) -> None:
    mac = make_learner(**settings).controller
    execution = mac.for_execution()
    assert {name.partition(".")[0] for name, _ in execution.named_parameters()} == {"agent", "encoder"}
    batch = make_batch(lengths=(6, 6, 6, 6))
    theirs, mine = execution.initial_state(4), mac.initial_state(4)
    for t in range(6):
        step = batch[:, t].select("obs", "avail_actions")
        out, theirs = execution.select_actions(step, theirs, 0, test_mode=True)
        expected, mine = mac.select_actions(step, mine, 0, test_mode=True)
        assert torch.equal(out["actions"], expected["actions"])
    encoder = next(execution.encoder.parameters())
    before = encoder.clone()
    with torch.no_grad():
        next(mac.encoder.parameters()).zero_()
    assert torch.equal(encoder, before)  # a snapshot


def test_the_decoder_reads_the_state_out_of_the_latent(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner, batch = make_learner(**QMIX_COMM), make_batch()
    mac, steps = learner.controller, PackedSteps.of(batch)
    _, histories = mac.unroll_packed(batch, steps)
    total, count = 0.0, 0
    for row, index in enumerate(steps.index.tolist()):
        b, t = divmod(index, batch.shape[1])
        if row in steps.acted.tolist():
            state_hat = mac.decoder(mac.encoder(histories[0, row].flatten()))[0]
            total += float((state_hat - batch["state"][b, t]).square().mean())
            count += 1
    loss, metrics = learner.loss(batch)
    assert float(metrics["loss_state"]) == pytest.approx(total / count, rel=1e-5)
    assert loss.item() == pytest.approx(float(metrics["loss_td"]) + total / count, rel=1e-5)


def test_full_communication_shows_everyone_everything(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """FullComm: all observations side by side, then the agent's own last action and id."""
    mac, batch = make_learner(learner="q_learner", full_comm=True).controller, make_batch()
    steps = PackedSteps.of(batch)
    inputs = mac.inputs.of_batch(batch, steps)
    assert inputs.shape[-1] == mac.inputs.dim == 3 * 5 + 4 + 3
    close(inputs[:, 2, :15], steps.pack(batch["obs"]).flatten(1))
    close(inputs[:, 2, -3:], torch.tensor([0.0, 0, 1]).expand(len(inputs), -1))


def test_independent_agents_have_no_common_message(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match=r"comm=True.*independent_joint"):
        make_learner(**S2Q_COMM, s2q_select="independent")
