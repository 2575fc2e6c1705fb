"""S2Q's equations 2, 4 and C.1 to C.5 (arXiv 2602.17062): worked examples, what carries gradients, and its limits."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.spec import TeamSpec
from shoal.learners.learner import Learner
from shoal.learners.s2q import (
    all_distinct,
    identified_earlier,
    kl_divergence,
    successive_weights,
    suppressed_targets,
)
from shoal.utils.errors import UserError

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
S2Q = {"learner": "s2q_learner", "mac": "s2q_mac"}
OWN: dict[str, str | None] = {"central_mac": None, "central_mixer": None}
close = torch.testing.assert_close

GAME = torch.tensor([8.0, 0, -12, 0, 7, 0, -12, 0, 6])
AA, BB, CC = 0, 4, 8
DOES_AA_BB_CC = torch.stack([torch.arange(9) == joint for joint in (AA, BB, CC)])  # match: [M, joint actions]


@pytest.mark.parametrize(
    ("alpha", "first", "second", "best_first", "best_second"),
    [
        (0.1, 7.2, 6.3, {AA}, {AA}),
        (0.25, 6, 5.25, {BB}, {AA, CC}),
        (0.5, 4, 3.5, {BB}, {CC}),
        (1.0, 0, 0, {BB}, {CC}),
        (2.0, -8, -7, {BB}, {CC}),
    ],
)
def test_suppression_moves_the_argmax(
    alpha: float, first: float, second: float, best_first: set[int], best_second: set[int]
) -> None:
    """Equation 2 with the floor C = 1, on the payoff game."""
    y_k = suppressed_targets(GAME, identified_earlier(DOES_AA_BB_CC), GAME, alpha, floor=1.0)
    close(y_k[0], GAME)
    close(y_k[1:, AA], torch.tensor([first, first], dtype=torch.float32))
    close(y_k[2, BB], torch.tensor(second, dtype=torch.float32))
    untouched = [joint for joint in range(9) if joint not in (AA, BB)]
    close(y_k[:, untouched], GAME[untouched].expand(3, -1))
    winners = [set((row >= row.max() - 1e-6).nonzero().flatten().tolist()) for row in y_k[1:]]
    assert winners == [best_first, best_second]


@pytest.mark.parametrize(("floor", "expected"), [(None, 0.0), (5.0, -6.0), (1.0, -2.0)])
def test_suppression_of_a_negative_value(floor: float | None, expected: float) -> None:
    """Raw, it would raise the target of what it should suppress."""
    y_k = suppressed_targets(torch.tensor([-1.0]), torch.tensor([[True]]), torch.tensor([-1.0]), 1.0, floor)
    assert y_k.item() == expected


def test_no_suppression_at_alpha_0() -> None:
    y = torch.randn(9)
    assert torch.equal(suppressed_targets(y, identified_earlier(DOES_AA_BB_CC), GAME, 0.0, 1.0), y.expand(3, -1))


def test_identified_is_any_earlier_match() -> None:
    match = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]).bool()
    expected = [[0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 1, 0], [1, 1, 1, 1, 0]]
    assert identified_earlier(match).int().tolist() == expected
    assert identified_earlier(match[:1]).any().item() is False


def test_distinct_candidates() -> None:
    a = torch.tensor([[[0, 0], [0, 1]], [[0, 1], [0, 1]], [[1, 0], [2, 2]]])  # [M, 2 steps, N]
    assert all_distinct(a).tolist() == [True, False]
    assert all_distinct(a[:1]).tolist() == [True, True]


Y = torch.tensor([8.0, 7, 5])
Q_STAR = torch.tensor([7.5, 7.2, 9])
Q = torch.tensor([[7, 6.5, 1], [2, 6, -3], [0.5, -1, 4]])
PROMISED = torch.tensor([8.0, 7, 6])
Y_K = torch.tensor([[8.0, 7, 5], [0.5, 7, 5], [0.5, -0.2, 5]])
W_K = torch.tensor([[0.9, 0.9, 1], [0.9, 1, 1], [0.9, 1, 1]])


def test_targets_weights_and_losses_of_a_worked_example() -> None:
    """Equations 2, C.3 and C.5, a worked example; the last step is padding."""
    identified = identified_earlier(torch.eye(3).bool())
    assert identified.int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    y_k = suppressed_targets(Y, identified, Q_STAR, alpha=1.0, floor=1.0)
    close(y_k, Y_K)
    weight = successive_weights(Q, y_k, Q_STAR, PROMISED[:, None].expand(3, 3), w_c=0.9)
    close(weight, W_K)
    losses = (weight * (Q - y_k).square())[:, :2].mean(1)
    close(losses, torch.tensor([0.5625, 1.5125, 0.32]))
    close((Q_STAR - Y).square()[:2].mean(), torch.tensor(0.145))


def test_weight_of_q_tot_trusts_ties() -> None:
    rivals = torch.tensor([[3.0, 3], [3, 4]])
    weight = successive_weights(torch.zeros(2, 2), torch.ones(2, 2), torch.tensor([3.0, 3]), rivals, 0.5)
    assert weight.tolist() == [[1, 0.5], [1, 1]]


P = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]])
P_HAT = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.25, 0.25], [0.9, 0.05, 0.05]])


def test_divergences_of_a_worked_example() -> None:
    """P of equation 4, and the divergence of equation C.1: a worked example."""
    p, p_hat = torch.tensor([8.0, 7, 6]).softmax(0), torch.tensor([0.5, 0.3, 0.2])
    entropy = torch.special.entr(p).sum()
    close(entropy, torch.tensor(0.832396), rtol=0, atol=1e-6)
    close(kl_divergence(p, p_hat.log()), torch.tensor(0.068259), rtol=0, atol=1e-6)
    close(kl_divergence(P, P_HAT.log())[:2].mean(), torch.tensor(0.0184401), rtol=0, atol=1e-6)
    assert kl_divergence(P, P.log()).abs().max() < 1e-6
    # The cross-entropy, which has the same gradient, is more by P's entropy.
    cross = kl_divergence(p, p_hat.log()) + entropy
    close(cross, torch.tensor(0.900655), rtol=0, atol=1e-6)
    cross = kl_divergence(P, P_HAT.log()) + torch.special.entr(P).sum(-1)
    close(cross[:2].mean(), torch.tensor(0.9341759), rtol=0, atol=1e-6)
    assert kl_divergence(torch.tensor([1.0, 0, 0]), p_hat.log()).item() == pytest.approx(-p_hat[0].log().item())


@pytest.mark.parametrize(
    ("alpha", "first_left", "all_left"),
    [(0.12, False, False), (0.13, True, False), (0.24, True, False), (0.26, True, True)],
)
def test_how_much_suppression_is_enough(alpha: float, first_left: bool, all_left: bool) -> None:
    """Equation 2: alpha > 0.125 hides (A,A), 0.25 (B,B) too; at exactly so much two actions tie."""
    table = torch.tensor([[8.0, 0, -12], [0, 7, 0], [-12, 0, 6]]).flatten()
    identified = torch.zeros(3, 9, dtype=torch.bool)
    identified[1, 0] = identified[2, 0] = identified[2, 4] = True
    y_k = suppressed_targets(table, identified, table, alpha, 1.0)
    assert (y_k[1].argmax() == 4) == first_left
    assert (y_k[2].argmax() == 8) == all_left
    assert suppressed_targets(table, identified, table, 0.125, 1.0)[1, [0, 4]].tolist() == [7, 7]
    assert suppressed_targets(table, identified, table, 0.25, 1.0)[2, [0, 8]].tolist() == [6, 6]


PAIR = TeamSpec(n_agents=2, n_actions=3, obs_dim=2, state_dim=2, episode_limit=3, discrete=True)


@dataclass
class Scripted:
    """A learner whose networks say what 8.8 says, on the episode of 8.8."""

    learner: Learner
    batch: TensorDict
    q: Tensor
    q_star: Tensor
    values: Tensor
    log_p_hat: Tensor
    state_hat: Tensor


@pytest.fixture
def scripted(
    make_learner: MakeLearner, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Scripted]:
    def make(
        promised: Tensor = PROMISED, joint: tuple[tuple[int, int], ...] = ((0, 0), (1, 1), (2, 2)), **settings: object
    ) -> Scripted:
        numbers = {"gamma": 0.0, "T": 1.0, "w_c": 0.9, "alpha": 1.0, "suppress_floor": 1.0}
        learner = make_learner(**{"spec": PAIR} | S2Q | numbers | settings)
        batch = make_batch(PAIR, lengths=(2, 3))[:1]  # two steps, then padding; gamma = 0 makes the reward y
        batch["avail_actions"][:] = True
        batch["reward"][0, :3, 0] = Y
        batch["actions"][0, : len(joint)] = torch.tensor(joint)
        q, q_star = Q[:, :2].clone().requires_grad_(), Q_STAR[:2].clone().requires_grad_()
        # Copy k longs for action k in every row: [M, P, N, A].
        values = torch.eye(3)[:, None, None, :].repeat(1, 2, 2, 1).requires_grad_()
        log_p_hat = torch.tensor([0.5, 0.3, 0.2]).log().expand(2, -1).clone().requires_grad_()
        state_hat = (batch["state"][0, :2] + 0.5).requires_grad_()
        at = {1: lambda rows: q_star[None, :rows], 3: lambda rows: promised[:, None].expand(-1, rows)}

        def central(utilities: Tensor, actions: Tensor, state: Tensor, avail: Tensor | None = None) -> Tensor:
            return at[len(actions)](actions.shape[1])

        histories = torch.randn(3, 2, 2, 8)
        monkeypatch.setattr(learner.controller, "unroll_for_loss", lambda *args: (values, histories, {}))
        monkeypatch.setattr(learner.controller, "predict", lambda histories: (state_hat, log_p_hat))
        monkeypatch.setattr(learner.mixer, "forward", lambda taken, state, maxima, actions: q)
        monkeypatch.setattr(learner.central, "forward", central)
        monkeypatch.setattr(learner.target_star, "forward", central)
        return Scripted(learner, batch, q, q_star, values, log_p_hat, state_hat)

    return make


def test_loss_of_a_worked_example_from_end_to_end(scripted: Callable[..., Scripted]) -> None:
    s = scripted()
    loss, metrics = s.learner.loss(s.batch)
    per_copy = [float(metrics[f"loss_td_{k}"]) for k in range(3)]
    assert per_copy == pytest.approx([0.5625, 1.5125, 0.32])
    assert float(metrics["loss_central"]) == pytest.approx(0.145)
    assert float(metrics["loss_kl"]) == pytest.approx(0.068259, abs=1e-6)
    assert float(metrics["loss_state"]) == pytest.approx(0.25)
    assert loss.item() == pytest.approx(2.54 + 0.068259 + 0.25, abs=1e-5)
    assert [float(metrics[f"w_{k}"]) for k in range(3)] == pytest.approx([0.9, 0.95, 0.95])
    assert float(metrics["identified"]) == 1.0
    assert float(metrics["candidates_distinct"]) == 1.0


def test_candidates_are_counted_by_class(scripted: Callable[..., Scripted]) -> None:
    """Agent 1 has no choice at step 1, and in the last row, where nothing is done, all candidates would be action 0."""
    s = scripted(spec=replace(PAIR, action_classes=(("stop", (0,)), ("attack", (1, 2)))))
    s.batch["avail_actions"][0, 1, 1, 1:] = False
    s.batch["avail_actions"][0, 2:, :, 1:] = torch.tensor([True, False])
    metrics = s.learner.loss(s.batch)[1]
    assert [float(metrics[f"candidate_stop_{k}"]) for k in range(3)] == [1, 0, 0]
    assert [float(metrics[f"candidate_attack_{k}"]) for k in range(3)] == [0, 1, 1]


def test_targets_weights_and_promises_carry_no_gradient(scripted: Callable[..., Scripted]) -> None:
    """Only the errors do: d L_k / d Q_k = 2 w_k (Q_k - y_k) / R, and Q* is moved by L* alone."""
    s = scripted()
    s.learner.loss(s.batch)[0].backward()
    close(s.q.grad, W_K[:, :2] * (Q - Y_K)[:, :2])
    close(s.q_star.grad, (Q_STAR - Y)[:2])
    assert s.values.grad is None or not s.values.grad.any()
    close(s.log_p_hat.grad, -PROMISED.softmax(0).expand(2, -1) / 2)
    close(s.state_hat.grad, torch.full((2, 2), 2 * 0.5 / 4))


def test_one_matching_agent_is_no_match(scripted: Callable[..., Scripted]) -> None:
    """u = (A, B), then (B, C): every agent agrees with some candidate, no candidate is the joint action."""
    s = scripted(joint=((0, 1), (1, 2)))
    loss, metrics = s.learner.loss(s.batch)
    loss.backward()
    assert float(metrics["identified"]) == 0.0
    weight = torch.where(Q < Y, 1.0, 0.9)[:, :2]
    weight[0] = 0.9
    close(s.q.grad, weight * (Q - Y)[:, :2])


@pytest.mark.parametrize(
    ("promised", "T", "expected"),
    [
        ((8, 7, 6), 0.1, (0.999955, 0.000045, 0)),
        ((8, 7, 6), 0.2, (0.993262, 0.006693, 0.000045)),
        ((8, 7, 6), 1, (0.665241, 0.244728, 0.090031)),
        ((8, 7, 6), 5, (0.401760, 0.328933, 0.269307)),
        ((15.2, 15.0, 14.7), 0.1, (0.875601, 0.118500, 0.005900)),
        ((15.2, 15.0, 14.7), 0.2, (0.689672, 0.253716, 0.056612)),
        ((15.2, 15.0, 14.7), 1, (0.412327, 0.337585, 0.250089)),
        ((15.2, 15.0, 14.7), 5, (0.348964, 0.335281, 0.315755)),
    ],
)
def test_promises_of_a_worked_example(
    scripted: Callable[..., Scripted],
    monkeypatch: pytest.MonkeyPatch,
    promised: tuple[float, ...],
    T: float,
    expected: tuple[float, ...],
) -> None:
    """Equation C.1: what the decoder is taught."""
    s, taught = scripted(promised=torch.tensor(promised).float(), T=T), []

    def spy(p: Tensor, log_p_hat: Tensor) -> Tensor:
        taught.append(p)
        return kl_divergence(p, log_p_hat)

    monkeypatch.setattr("shoal.learners.s2q.kl_divergence", spy)
    s.learner.loss(s.batch)
    close(taught[0], torch.tensor([expected, expected], dtype=torch.float32), rtol=0, atol=2e-6)
    assert not taught[0].requires_grad


def gradients(learner: Learner, batch: TensorDict) -> dict[str, Tensor]:
    learner.zero_grad()
    learner.loss(batch)[0].backward()
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def test_encoder_decoder_teaches_no_agent(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """Another decoder changes the loss, but no gradient outside the decoder."""
    learner, batch = make_learner(**S2Q), make_batch()
    before, loss = gradients(learner, batch), learner.loss(batch)[0]
    with torch.no_grad():
        for p in learner.controller.decoder.parameters():
            p += torch.randn_like(p)
    after = gradients(learner, batch)
    assert (learner.loss(batch)[0] - loss).abs() > 0.1
    own = {name for name in before if name.startswith(("controller.encoder.", "controller.decoder."))}
    assert own
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - own)
    assert not any(name.startswith("target_") for name in before)


def test_copy_0_alone_is_wqmix_with_weight_1(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """K = 0, w_c = 1 has WQMIX's monotonic loss and gradients, and twice its central loss."""
    s2q, batch = make_learner(**S2Q, K=0, w_c=1.0), make_batch()
    wqmix = make_learner(learner="wqmix_learner", w=1.0, central_loss=2.0)
    with torch.no_grad():
        for p in s2q.target_star.parameters():
            p += 0.1 * torch.randn_like(p)
    shared = {
        name.replace("target_star", "target_central"): tensor
        for name, tensor in s2q.state_dict().items()
        if "coder" not in name and name != "_extra_state"
    }
    missing, unexpected = wqmix.load_state_dict(shared, strict=False)
    assert not unexpected
    assert missing in ([], ["_extra_state"])
    ours, theirs = s2q.loss(batch)[1], wqmix.loss(batch)[1]
    close(ours["loss_td_0"], theirs["loss_td"], rtol=1e-6, atol=0)
    close(ours["loss_central"], 2 * theirs["loss_central"], rtol=1e-6, atol=0)
    mine = gradients(s2q, batch)
    for name, gradient in gradients(wqmix, batch).items():
        close(mine[name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mixer", ["vdn", "qmix"])
def test_copy_0_alone_with_its_own_value_is_twice_the_base(
    make_learner: MakeLearner, make_batch: MakeBatch, mixer: str
) -> None:
    """Without a central Q*, K = 0 and w_c = 1 leave the base's loss, without PyMARL2's half."""
    s2q, batch = make_learner(**S2Q, **OWN, mixer=mixer, K=0, w_c=1.0), make_batch()
    base = make_learner(learner="q_learner", mixer=mixer, td_loss=0.5)
    state = s2q.state_dict()
    online = {name: state[name] for name in base.state_dict() if name.startswith(("controller.", "mixer."))}
    base.load_state_dict(base.state_dict() | online)
    base.update_targets()
    s2q.update_targets()
    close(s2q.loss(batch)[1]["loss_td_0"], 2 * base.loss(batch)[0].detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("mixer", ["vdn", "qmix", "qplex"])
@pytest.mark.parametrize("K", [0, 1, 3])
def test_any_number_of_sub_values_trains_on_any_base(
    make_learner: MakeLearner, make_batch: MakeBatch, mixer: str, K: int
) -> None:
    for central in ({}, OWN):
        learner = make_learner(**S2Q, **central, mixer=mixer, K=K)
        before = [p.detach().clone() for p in learner.mixer.parameters()]
        for update in range(2):
            metrics = learner.train_on(make_batch(seed=update), t_env=0, episode=update)
        assert all(torch.isfinite(value).all() for value in metrics.values())
        assert sum(name.startswith("loss_td_") for name in metrics) == K + 1
        assert all((p != old).any() for p, old in zip(learner.mixer.parameters(), before, strict=True))


@pytest.mark.parametrize("K", [0, 1, 2, 3, 5])
def test_any_number_of_sub_values_trains(make_learner: MakeLearner, make_batch: MakeBatch, K: int) -> None:
    """Every slice of every network moves."""
    learner = make_learner(**S2Q, K=K)
    before = {name: p.detach().clone() for name, p in learner.named_parameters() if p.requires_grad}
    for update in range(20):
        metrics = learner.train_on(make_batch(seed=update), t_env=0, episode=update)
    assert all(torch.isfinite(value).all() for value in metrics.values())
    assert sum(name.startswith("loss_td_") for name in metrics) == K + 1
    for name, p in learner.named_parameters():
        if not p.requires_grad or (K == 0 and "candidate_head" in name):  # one candidate: P is always 1
            continue
        stacked = name.startswith(("controller.agent.", "mixer."))
        assert len(p) == K + 1 or not stacked
        assert all((p[k] != before[name][k]).any() for k in range(len(p) if stacked else 0)), name
        assert (p != before[name]).any(), name


@pytest.mark.parametrize(
    ("spec", "settings", "parts", "total"),
    [
        (TeamSpec(5, 12, 55, 98, 70, True), {}, (30_092, 31_521, 184_066, 39_621), 438_618),
        (TeamSpec(5, 12, 55, 98, 70, True), {"obs_agent_id": True}, (30_412, 31_521, 184_066, 39_621), 439_898),
        (TeamSpec(10, 18, 176, 322, 180, True), {}, (38_610, 84_929, 300_034, 74_661), 783_922),
        (TeamSpec(27, 36, 285, 1170, 180, True), {}, (47_908, 283_105, 738_562, 199_413), 1_978_922),
        (
            TeamSpec(3, 19, 26, 26, 150, True),
            {"obs_agent_id": True, "rnn_hidden_dim": 256},
            (412_179, 13_537, 146_690, 63_613),
            1_899_630,
        ),
    ],
    ids=["5m_vs_6m", "5m_vs_6m_with_id", "MMM2", "27m_vs_30m", "academy_3_vs_2"],
)
def test_parameter_counts(
    make_learner: MakeLearner, spec: TeamSpec, settings: dict[str, object], parts: tuple[int, ...], total: int
) -> None:
    """K = 2; counted by hand from the layers."""
    learner = make_learner(**{"spec": spec, "obs_agent_id": False, "rnn_hidden_dim": 64} | S2Q | settings)

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    agent, mixer = count(learner.controller.agent), count(learner.mixer)
    latent = count(learner.controller.encoder) + count(learner.controller.decoder)
    assert (agent // 3, mixer // 3, count(learner.central.mixer), latent) == parts
    assert count(learner.central.mac) == parts[0]
    assert sum(p.numel() for p in learner.parameters() if p.requires_grad) == total


def test_needs_its_own_controller(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match=r"mac=s2q_mac.*BasicMAC"):
        make_learner(learner="s2q_learner", mac="basic_mac")


@pytest.mark.parametrize("settings", [{"T": 0.0}, {"w_c": 0.0}, {"w_c": 1.1}, {"alpha": -0.5}])
def test_impossible_settings(make_learner: MakeLearner, settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        make_learner(**S2Q, **settings)
