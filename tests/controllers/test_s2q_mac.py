"""S2Q's behaviour policy, and what remains of it at execution."""

from collections.abc import Callable

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.action_selectors import greedy
from shoal.components.batch import PackedSteps
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC
from shoal.controllers.s2q import S2QMAC
from shoal.learners.learner import Learner
from shoal.utils.errors import NonFiniteError, UserError

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
PAIR = TeamSpec(n_agents=2, n_actions=3, obs_dim=2, state_dim=2, episode_limit=3, discrete=True)
P_HAT = torch.tensor([8.0, 7.0, 6.0]).softmax(0)


class Predicts(nn.Module):
    """Stands in for the decoder: the same P_hat whatever happened."""

    def __init__(self, p_hat: Tensor) -> None:
        super().__init__()
        self.p_hat = p_hat

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, self.p_hat.log().expand(*z.shape[:-1], -1)


def make_mac(make_learner: MakeLearner, **settings: object) -> S2QMAC:
    """A controller that never acts at random around the value it follows."""
    no_epsilon = {"epsilon_start": 0.0, "epsilon_finish": 0.0}
    fixed = {"learner": "s2q_learner", "mac": "s2q_mac", "rnn_hidden_dim": 4}
    mac = make_learner(**{"spec": PAIR} | fixed | no_epsilon | settings).controller
    assert isinstance(mac, S2QMAC)
    return mac


def first_step(B: int) -> TensorDict:
    fields = {"obs": torch.randn(B, 2, 2), "avail_actions": torch.ones(B, 2, 3, dtype=torch.bool)}
    return TensorDict(fields, batch_size=[B])


def close_to_law(share: Tensor, expected: Tensor, draws: int) -> bool:
    return bool(((share - expected).abs() < 5 * (expected * (1 - expected) / draws).sqrt()).all())


def test_more_sub_values_than_a_byte_can_count(make_learner: MakeLearner) -> None:
    mac = make_mac(make_learner, K=299, s2q_fix_prob=0.0)
    mac.decoder = Predicts(torch.nn.functional.one_hot(torch.tensor(299), 300).float())
    out, _ = mac.select_actions(first_step(4), mac.initial_state(4), t_env=0)
    assert (out["sub_index"] == 299).all()
    assert out["sub_index"].dtype == mac.extra_fields["sub_index"].dtype


def test_behaviour_law(make_learner: MakeLearner) -> None:
    """S2Q, equation 4 and appendix C.2: p_fix e_0 + (1 - p_fix) P_hat, a coin an episode, fresh draws every step."""
    B = 100_000
    mac = make_mac(make_learner, s2q_fix_prob=0.5)
    mac.decoder = Predicts(P_HAT)
    step, state = first_step(B), mac.initial_state(B)
    coins, drawn = state["follows_q0"], []
    for _ in range(3):
        out, state = mac.select_actions(step, state, t_env=0)
        assert torch.equal(state["follows_q0"], coins)
        drawn.append(out["sub_index"][:, 0].long())

    first, second = drawn[0], drawn[2]
    share = torch.bincount(first, minlength=3) / B
    assert close_to_law(share, torch.tensor([0.832620, 0.122364, 0.045015]), B)
    # The coin is fair, holds for the whole episode, and is thrown for each environment by itself.
    assert close_to_law(coins.float().mean(), torch.tensor(0.5), B)
    assert close_to_law((coins[1:] & coins[:-1]).float().mean(), torch.tensor(0.25), B // 2)
    assert not torch.stack(drawn)[:, coins].any()
    # Without it every step draws anew from P_hat.
    free = ~coins
    pairs = torch.bincount(3 * first[free] + second[free], minlength=9) / free.sum()
    assert close_to_law(pairs, torch.outer(P_HAT, P_HAT).flatten(), int(free.sum()))


def test_the_whole_team_follows_the_drawn_value(make_learner: MakeLearner) -> None:
    B = 2000
    mac = make_mac(make_learner, s2q_fix_prob=0.0)
    mac.decoder = Predicts(torch.tensor([0.2, 0.4, 0.4]))
    step, state = first_step(B), mac.initial_state(B)
    values, _ = mac.step(step, state)
    out, _ = mac.select_actions(step, state, t_env=0)
    k = out["sub_index"][:, 0].long()
    assert k.unique().tolist() == [0, 1, 2]
    assert torch.equal(out["actions"], values.argmax(-1)[k, torch.arange(B)])
    assert (values[0].argmax(-1) != values[1].argmax(-1)).any()  # the copies do disagree


def test_random_selection_is_uniform(make_learner: MakeLearner) -> None:
    """S2Q_random: on episodes without the coin, every k alike, whatever the decoder says."""
    B = 60_000
    mac = make_mac(make_learner, s2q_select="random", s2q_fix_prob=0.25)
    mac.decoder = Predicts(P_HAT)
    out, _ = mac.select_actions(first_step(B), mac.initial_state(B), t_env=0)
    share = torch.bincount(out["sub_index"][:, 0].long(), minlength=3) / B
    assert close_to_law(share, torch.tensor([0.25 + 0.25, 0.25, 0.25]), B)
    assert (out["sub_index"] == out["sub_index"][:, :1]).all()


def test_no_selection_follows_q_tot(make_learner: MakeLearner) -> None:
    """S2Q_no_soft."""
    mac = make_mac(make_learner, s2q_select="none", s2q_fix_prob=0.0)
    mac.decoder = Predicts(torch.tensor([0.0, 0.5, 0.5]))
    out, _ = mac.select_actions(first_step(500), mac.initial_state(500), t_env=0)
    assert not out["sub_index"].any()


@pytest.mark.parametrize("select", ["independent", "independent_joint"])
def test_independent_agents_draw_for_themselves(make_learner: MakeLearner, select: str) -> None:
    """S2Q_independent: same law, separate draws; the coin still holds for the whole team."""
    B = 60_000
    mac = make_mac(make_learner, s2q_select=select, s2q_fix_prob=0.5)
    mac.decoder = Predicts(P_HAT)
    step, state = first_step(B), mac.initial_state(B)
    values, _ = mac.step(step, state)
    out, _ = mac.select_actions(step, state, t_env=0)
    k, free = out["sub_index"].long(), ~state["follows_q0"]
    assert not k[~free].any()
    pairs = torch.bincount(3 * k[free, 0] + k[free, 1], minlength=9) / free.sum()
    assert close_to_law(pairs, torch.outer(P_HAT, P_HAT).flatten(), int(free.sum()))
    assert torch.equal(out["actions"], values.argmax(-1)[k, torch.arange(B)[:, None], torch.arange(2)])


def test_independent_agents_predict_from_their_own_history(make_learner: MakeLearner) -> None:
    mac = make_mac(make_learner, s2q_select="independent")
    histories = torch.randn(5, 2, 4)
    other = histories.clone()
    other[:, 1] = torch.randn(5, 4)
    (s_hat, log_p), (s_hat_2, log_p_2) = mac.predict(histories), mac.predict(other)
    assert s_hat.shape == (5, 2, 2)
    assert log_p.shape == (5, 2, 3)
    torch.testing.assert_close(log_p[:, 0], log_p_2[:, 0])
    assert (log_p[:, 1] != log_p_2[:, 1]).any()
    assert (s_hat[:, 1] != s_hat_2[:, 1]).any()


@pytest.mark.parametrize("own", [False, True], ids=["central", "q_tot"])
def test_the_oracle_draws_from_the_true_promises(make_learner: MakeLearner, make_batch: MakeBatch, own: bool) -> None:
    """S2Q_oracle: while acting, P is what the loss calls P on the same episode, from states and target networks."""
    base = {"central_mac": None, "central_mixer": None} if own else {}
    learner = make_learner(learner="s2q_learner", mac="s2q_mac", s2q_select="oracle", T=2.0, **base)
    mac, batch = learner.controller, make_batch(lengths=(6, 6, 6, 6))
    with torch.no_grad():
        for p in learner.target_star.parameters():
            p += 0.3 * torch.randn_like(p)
    assert learner.behaviour.reads_state
    drawn_from: list[Tensor] = []
    mac._draw = lambda p: (drawn_from.append(p), torch.zeros(len(p), 3, dtype=torch.int64))[1]
    state = mac.initial_state(4)
    for t in range(6):
        step = batch[:, t].select("obs", "avail_actions", "state")
        out, state = learner.behaviour.select_actions(step, state, 10**9)
        batch["actions"][:, t] = out["actions"]

    steps = PackedSteps.of(batch)
    star, avail = learner.target_star, steps.pack(batch["avail_actions"])
    candidates = greedy(mac.unroll_packed(batch, steps)[0], avail)
    promised = star(star.utilities(batch, steps), candidates, steps.pack(batch["state"]), avail)
    expected = steps.unpack((promised / 2.0).softmax(0).unsqueeze(-1)).squeeze(-1)[:, :, :6]  # [M, B, T]
    torch.testing.assert_close(torch.stack(drawn_from, 1), expected.permute(1, 2, 0), rtol=0, atol=1e-6)
    assert expected.std(1).max() > 0.01  # something to tell apart


@pytest.mark.parametrize(("fix_prob", "indices"), [(1.0, [0]), (0.0, [0, 1, 2])])
def test_extreme_coins(make_learner: MakeLearner, fix_prob: float, indices: list[int]) -> None:
    mac = make_mac(make_learner, s2q_fix_prob=fix_prob)
    out, _ = mac.select_actions(first_step(500), mac.initial_state(500), t_env=0)
    assert out["sub_index"].unique().tolist() == indices


def test_predicts_from_the_histories_after_this_observation(make_learner: MakeLearner) -> None:
    """P_hat is the decoder's at h_t of copy 0, not at h_{t-1}."""
    mac, seen = make_mac(make_learner), []
    mac.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    _, state = mac.select_actions(first_step(4), mac.initial_state(4), t_env=0)
    assert torch.equal(seen[0], state["hidden"][:, 0].flatten(1))


@pytest.mark.parametrize("test_mode", [True, False])
def test_unavailable_actions_are_never_taken(make_learner: MakeLearner, make_batch: MakeBatch, test_mode: bool) -> None:
    mac = make_mac(make_learner, spec=PAIR, s2q_fix_prob=0.2)
    with torch.no_grad():
        mac.agent.fc_out.bias[:, 1] = 100.0  # every copy longs for action 1
    step = first_step(3000)
    step["avail_actions"] = torch.rand(3000, 2, 3) < 0.5
    step["avail_actions"][..., 2] |= ~step["avail_actions"].any(-1)
    out, _ = mac.select_actions(step, mac.initial_state(3000), t_env=0, test_mode=test_mode)
    assert step["avail_actions"].gather(-1, out["actions"].unsqueeze(-1)).all()
    assert (out["actions"] == 1).any()


def test_tests_follow_copy_0_alone(make_learner: MakeLearner) -> None:
    mac = make_mac(make_learner, s2q_fix_prob=0.0)
    mac.decoder = Predicts(torch.tensor([0.0, 0.5, 0.5]))
    step, state = first_step(200), mac.initial_state(200)
    out, _ = mac.select_actions(step, state, t_env=0, test_mode=True)
    assert not out["sub_index"].any()
    assert torch.equal(out["actions"], mac.step(step, state)[0][0].argmax(-1))


def test_execution_needs_copy_0_and_observations_only(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """No encoder, decoder or later copy, and no state."""
    mac = make_learner(learner="s2q_learner", mac="s2q_mac").controller
    batch = make_batch(lengths=(6, 6, 6, 6))
    before = torch.get_rng_state()
    execution = mac.for_execution()
    assert torch.equal(torch.get_rng_state(), before)
    assert type(execution) is BasicMAC
    assert {name.partition(".")[0] for name, _ in execution.named_parameters()} == {"agent"}
    assert sum(p.numel() for p in execution.parameters()) * 3 == sum(p.numel() for p in mac.agent.parameters())

    theirs, mine = execution.initial_state(4), mac.initial_state(4)
    assert not torch.equal(torch.get_rng_state(), before)  # the training controller throws its coins
    for t in range(6):
        step = batch[:, t].select("obs", "avail_actions")
        out, theirs = execution.select_actions(step, theirs, 0, test_mode=True)
        expected, mine = mac.select_actions(step, mine, 0, test_mode=True)
        assert torch.equal(out["actions"], expected["actions"])
        torch.testing.assert_close(theirs["hidden"], mine["hidden"][:, :1], rtol=0, atol=1e-6)
    steps = PackedSteps.of(batch)
    torch.testing.assert_close(
        execution.unroll_packed(batch, steps)[0], mac.unroll_packed(batch, steps)[0][:1], rtol=0, atol=1e-6
    )


def test_each_agent_executes_from_its_own_observations(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    execution = make_learner(learner="s2q_learner", mac="s2q_mac").controller.for_execution()
    batch = make_batch()
    step = batch[:, 0].select("obs", "avail_actions")
    other = step.clone()
    other["obs"][:, 1:] = torch.randn(5, 2, 5)
    state = execution.initial_state(5)
    one, one_state = execution.select_actions(step, state, 0, test_mode=True)
    two, two_state = execution.select_actions(other, state, 0, test_mode=True)
    assert torch.equal(one["actions"][:, 0], two["actions"][:, 0])
    torch.testing.assert_close(one_state["hidden"][:, :, 0], two_state["hidden"][:, :, 0])
    assert not torch.equal(one_state["hidden"][:, :, 1], two_state["hidden"][:, :, 1])


def test_execution_is_a_snapshot(make_learner: MakeLearner) -> None:
    mac = make_mac(make_learner)
    execution = mac.for_execution()
    before = execution.agent.fc_out.weight.clone()
    with torch.no_grad():
        mac.agent.fc_out.weight.zero_()
    assert torch.equal(execution.agent.fc_out.weight, before)


def test_greedy_candidates_are_available_in_every_copy(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    mac, batch = make_learner(learner="s2q_learner", mac="s2q_mac", K=3).controller, make_batch()
    steps = PackedSteps.of(batch)
    avail = steps.pack(batch["avail_actions"])
    candidates = greedy(mac.unroll_packed(batch, steps)[0], avail)
    assert candidates.shape[0] == 4
    assert avail.expand(4, -1, -1, -1).gather(-1, candidates.unsqueeze(-1)).all()


def test_prediction_sends_no_gradient_into_the_histories(make_learner: MakeLearner) -> None:
    mac = make_mac(make_learner)
    histories = torch.randn(5, 2, 4, requires_grad=True)
    state_hat, log_p = mac.predict(histories)
    assert state_hat.shape == (5, 2)
    assert log_p.shape == (5, 3)
    (state_hat.sum() + log_p[:, 0].sum()).backward()
    assert histories.grad is None
    assert all(p.grad is not None for p in [*mac.encoder.parameters(), *mac.decoder.parameters()])


@pytest.mark.parametrize("settings", [{"K": -1}, {"s2q_fix_prob": 1.5}, {"s2q_fix_prob": -0.1}])
def test_impossible_settings(make_learner: MakeLearner, settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        make_learner(learner="s2q_learner", mac="s2q_mac", **settings)


def test_probabilities_that_are_no_numbers_are_said(make_learner: MakeLearner) -> None:
    mac = make_mac(make_learner)
    mac.decoder = Predicts(torch.tensor([float("nan"), 0.5, 0.5]))
    with pytest.raises(NonFiniteError, match="probabilities that sub-values are drawn from"):
        mac.select_actions(first_step(4), mac.initial_state(4), 0)
