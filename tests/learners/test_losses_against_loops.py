"""Every learner's loss against plain loops over episodes, steps, agents and copies, straight from the equations."""

import math
from collections.abc import Callable

import pytest
import torch
from tensordict import TensorDict

from oracles.losses import at, best, central_value, episodes, mixed, prepared, td_targets
from shoal.components.batch import PackedSteps, episode_lengths
from shoal.learners.learner import Learner
from shoal.utils.errors import UserError
from support.teams import unrolled

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
OWN: dict[str, str | None] = {"central_mac": None, "central_mixer": None}


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.6])
@pytest.mark.parametrize("mixer", [None, "vdn", "qmix", "qplex"])
@torch.no_grad()
def test_q_learner(
    make_learner: MakeLearner, make_batch: MakeBatch, mixer: str | None, lam: float, double_q: bool
) -> None:
    """IQL regresses every agent on its own target; VDN and QMIX the joint value on one."""
    settings = {"mixer": mixer, "td_lambda": lam, "double_q": double_q}
    learner, batch = prepared(make_learner(learner="q_learner", **settings), make_batch())
    errors = []
    for episode in episodes(batch):
        online, target = unrolled(learner.controller, episode)[0], unrolled(learner.target_controller, episode)[0]
        state, rows = episode["state"][0], range(len(online))
        choosers = online if double_q else target
        avail = episode["avail_actions"][0]
        selected = [best(choosers[t], avail[t]) for t in rows]
        taken = [episode["actions"][0, t].tolist() for t in rows[:-1]]
        if mixer is None:
            for i in range(3):
                y = td_targets(episode, [float(at(target[t], selected[t])[i]) for t in rows], lam=lam)
                errors += [float(at(online[t], u)[i]) - y[t] for t, u in enumerate(taken)]
        else:
            v = [mixed(learner.target_mixer, target[t], selected[t], best(target[t], avail[t]), state[t]) for t in rows]
            y = td_targets(episode, v, lam=lam)
            errors += [
                mixed(learner.mixer, online[t], u, best(online[t], avail[t]), state[t]) - y[t]
                for t, u in enumerate(taken)
            ]
    loss, metrics = learner.loss(batch)
    assert float(loss) == pytest.approx(0.5 * sum(e * e for e in errors) / len(errors), rel=1e-6)
    assert float(metrics["td_error_abs"]) == pytest.approx(sum(map(abs, errors)) / len(errors), rel=1e-6)


@pytest.mark.parametrize("optimistic", [True, False])
@torch.no_grad()
def test_wqmix(make_learner: MakeLearner, make_batch: MakeBatch, optimistic: bool) -> None:
    settings = {"hysteretic_qmix": optimistic, "w": 0.3, "qmix_loss": 2.0, "central_loss": 3.0}
    learner, batch = prepared(make_learner(learner="wqmix_learner", **settings), make_batch())
    projection, central, weights = [], [], []
    for episode in episodes(batch):
        steps = PackedSteps.of(episode)
        online, state = unrolled(learner.controller, episode)[0], episode["state"][0]
        utilities = learner.central.utilities(episode, steps)
        target = learner.target_central.utilities(episode, steps)
        greedy = [best(q, avail) for q, avail in zip(online, episode["avail_actions"][0], strict=True)]
        v = [central_value(learner.target_central, target[t], a, state[t]) for t, a in enumerate(greedy)]
        for t, y in enumerate(td_targets(episode, v)):
            u = episode["actions"][0, t].tolist()
            q_tot = mixed(learner.mixer, online[t], u, greedy[t], state[t])
            trusted = q_tot < y if optimistic else (u == greedy[t] or y > v[t])
            weights.append(1.0 if trusted else 0.3)
            projection.append(weights[-1] * (q_tot - y) ** 2)
            central.append((central_value(learner.central, utilities[t], u, state[t]) - y) ** 2)
    loss, metrics = learner.loss(batch)
    R = len(projection)
    assert float(loss) == pytest.approx(2 * sum(projection) / R + 3 * 0.5 * sum(central) / R, rel=1e-6)
    assert float(metrics["w_to_use"]) == pytest.approx(sum(weights) / R, rel=1e-6)
    assert 0.3 < sum(weights) / R < 1  # both weights occur


@pytest.mark.parametrize(
    ("alpha", "floor", "right_side"),
    [(1.0, 0.1, "target"), (1.0, 0.1, "online"), (0.5, None, "target"), (0.0, 5.0, "target")],
)
@pytest.mark.parametrize(
    "base",
    [{}, {"mixer": "vdn"}, {"mixer": "qplex"}, OWN | {"mixer": "vdn"}, OWN, OWN | {"mixer": "qplex"}],
    ids=["central-qmix", "central-vdn", "central-qplex", "own-vdn", "own-qmix", "own-qplex"],
)
@torch.no_grad()
def test_s2q(
    make_learner: MakeLearner,
    make_batch: MakeBatch,
    base: dict[str, str | None],
    alpha: float,
    floor: float | None,
    right_side: str,
) -> None:
    """Over any mixer, with a central Q* or Q^tot in its place."""
    settings = {"alpha": alpha, "suppress_floor": floor, "s2q_w0_rhs": right_side, "T": 0.5, "w_c": 0.3, **base}
    learner, batch = prepared(make_learner(learner="s2q_learner", mac="s2q_mac", **settings), make_batch())
    steps = PackedSteps.of(batch)
    values = steps.unpack(learner.controller.unroll_packed(batch, steps)[0])
    for k in range(3):  # step k does what copy k would, so that there is something to suppress
        usable = values[k].masked_fill(~batch["avail_actions"], -1e9)
        batch["actions"][:, k : k + 1] = usable[:, k : k + 1].argmax(-1)

    loss_k, loss_star, kl, state_error, identified = [0.0] * 3, 0.0, 0.0, 0.0, 0
    R = int(episode_lengths(batch).sum())
    for episode in episodes(batch):
        steps = PackedSteps.of(episode)
        copies, histories = learner.controller.unroll_packed(episode, steps)
        state, avail = episode["state"][0], episode["avail_actions"][0]
        target = learner.target_star.utilities(episode, steps)
        rows = range(len(state))
        a = [[best(copies[k, t], avail[t]) for k in range(3)] for t in rows]

        target_best = [best(target[t], avail[t]) for t in rows]
        if learner.central is None:
            star = learner.target_star.mixer
            promised = [[mixed(star, target[t], a_k, target_best[t], state[t]) for a_k in a[t]] for t in rows]
        else:
            online = learner.central.utilities(episode, steps)
            promised = [[central_value(learner.target_star, target[t], a_k, state[t]) for a_k in a[t]] for t in rows]
        for t, y in enumerate(td_targets(episode, [values[0] for values in promised])):
            u = episode["actions"][0, t].tolist()
            if learner.central is None:
                of_u, *of_rivals = (
                    mixed(learner.mixer, copies[0, t], joint, a[t][0], state[t], 0, copies=3) for joint in [u, *a[t]]
                )
            else:
                of_u, *of_rivals = (central_value(learner.central, online[t], joint, state[t]) for joint in [u, *a[t]])
                loss_star += (of_u - y) ** 2 / R
            q_star, rivals = of_u, promised[t] if right_side == "target" else of_rivals
            for k in range(3):
                suppressed = u in a[t][:k]
                y_k = y - alpha * suppressed * (q_star if floor is None else max(q_star, floor))
                q = mixed(learner.mixer, copies[k, t], u, a[t][k], state[t], k, copies=3)
                trusted = q_star >= max(rivals) if k == 0 else q < y_k
                loss_k[k] += (1.0 if trusted else 0.3) * (q - y_k) ** 2 / R
            identified += u in a[t]
            state_hat, log_p_hat = learner.controller.predict(histories[0, t])
            powers = [math.exp((v - max(promised[t])) / 0.5) for v in promised[t]]
            p = [power / sum(powers) for power in powers]
            kl += sum(x * (math.log(x) - float(log_p)) for x, log_p in zip(p, log_p_hat, strict=True) if x > 0) / R
            state_error += float((state_hat - state[t]).square().mean()) / R

    loss, metrics = learner.loss(batch)
    assert [float(metrics[f"loss_td_{k}"]) for k in range(3)] == pytest.approx(loss_k, rel=1e-6)
    if learner.central is not None:
        assert float(metrics["loss_central"]) == pytest.approx(loss_star, rel=1e-6)
    assert float(metrics["loss_kl"]) == pytest.approx(kl, rel=1e-5)
    assert float(metrics["loss_state"]) == pytest.approx(state_error, rel=1e-6)
    assert float(metrics["identified"]) == pytest.approx(identified / R)
    assert float(loss) == pytest.approx(sum(loss_k) + loss_star + kl + state_error, rel=1e-6)
    assert identified > 2


@torch.no_grad()
def test_s2q_without_weights(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """S2Q_no_wTD: every error counts in full."""
    batch, S2Q = make_batch(), {"learner": "s2q_learner", "mac": "s2q_mac", "w_c": 0.3, "K": 1}
    torch.manual_seed(1)
    weighted = make_learner(**S2Q)
    torch.manual_seed(1)
    plain = make_learner(**S2Q, s2q_weighted=False)
    (_, ours), (_, theirs) = plain.loss(batch), weighted.loss(batch)
    assert [float(ours[f"w_{k}"]) for k in range(2)] == [1.0, 1.0]
    for k in range(2):
        assert ours[f"loss_td_{k}"] > theirs[f"loss_td_{k}"] > 0.3 * ours[f"loss_td_{k}"]
    assert torch.equal(ours["loss_central"], theirs["loss_central"])


@torch.no_grad()
def test_s2q_with_the_released_scale_of_the_divergence(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    batch, S2Q = make_batch(), {"learner": "s2q_learner", "mac": "s2q_mac", "K": 3}
    torch.manual_seed(1)
    total = make_learner(**S2Q).loss(batch)[1]["loss_kl"]
    torch.manual_seed(1)
    mean = make_learner(**S2Q, latent_kl_reduction="mean").loss(batch)[1]["loss_kl"]
    assert float(mean) == pytest.approx(float(total) / 4)


@torch.no_grad()
def test_s2q_of_independent_agents(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """S2Q_independent: every agent's own prediction is taught the same P and the same state."""
    settings = {"learner": "s2q_learner", "mac": "s2q_mac", "s2q_select": "independent", "T": 0.5}
    learner, batch = prepared(make_learner(**settings), make_batch())
    steps = PackedSteps.of(batch)
    copies, histories = learner.controller.unroll_packed(batch, steps)
    state, avail = steps.pack(batch["state"]), steps.pack(batch["avail_actions"])
    target = learner.target_star.utilities(batch, steps)
    kl, error = [], []
    for row in steps.acted.tolist():
        a = [best(copies[k, row], avail[row]) for k in range(3)]
        p = (
            torch.tensor([central_value(learner.target_star, target[row], a_k, state[row]) for a_k in a]) / 0.5
        ).softmax(0)
        for i in range(3):
            state_hat, log_p_hat = learner.controller.decoder(learner.controller.encoder(histories[0, row, i]))
            kl.append(float((torch.special.xlogy(p, p) - p * log_p_hat).sum()))
            error.append(float((state_hat - state[row]).square().mean()))
    _, metrics = learner.loss(batch)
    assert float(metrics["loss_kl"]) == pytest.approx(sum(kl) / len(kl), rel=1e-5)
    assert float(metrics["loss_state"]) == pytest.approx(sum(error) / len(error), rel=1e-6)


def test_a_central_value_is_whole_or_absent(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match="central_mac and central_mixer go together"):
        make_learner(learner="s2q_learner", mac="s2q_mac", central_mac=None)
