"""CADP in training: when pruning begins, what it adds to each learner's loss, and what is tested and recorded of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import PackedSteps
from shoal.components.spec import TeamSpec
from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.controllers.basic import BasicMAC
from shoal.experiment import ExperimentSettings
from shoal.learners.learner import Learner
from shoal.modules.agents.cadp import CADPAgent, pruning_loss
from shoal.utils.errors import UserError

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
close = torch.testing.assert_close

CADP = {"agent": "att_rnn", "att_heads": 2, "att_embed_dim": 4, "breakpoint": 100}
S2Q = {"learner": "s2q_learner", "mac": "s2q_mac"}
LEARNERS: dict[str, dict[str, Any]] = {
    "vdn": {"learner": "q_learner", "mixer": "vdn"},
    "qmix": {"learner": "q_learner", "mixer": "qmix"},
    "qplex": {"learner": "q_learner", "mixer": "qplex"},
    "ow_qmix": {"learner": "wqmix_learner"},
    "s2q": S2Q,
    "qmix_comm": {"learner": "q_learner", "mac": "comm_mac"},
}
MORTAL = TeamSpec(n_agents=3, n_actions=4, obs_dim=5, state_dim=6, episode_limit=6, discrete=True, has_alive=True)


@pytest.fixture(params=sorted(LEARNERS))
def base(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of each algorithm that CADP's agent goes with."""
    settings: dict[str, Any] = LEARNERS[request.param] | CADP
    return settings


def own_loss(learner: Learner, batch: TensorDict) -> Tensor:
    """The unweighted pruning loss of all copies together."""
    mac, steps = learner.controller, PackedSteps.of(batch)
    logits = mac.agent.logits(mac.agent_inputs(batch, steps), None)[:, steps.acted]
    return pruning_loss(logits).mean(-1).sum()


def test_pruning_changes_nothing_up_to_the_breakpoint(
    make_learner: MakeLearner, make_batch: MakeBatch, base: dict[str, Any]
) -> None:
    """Bit by bit, with weights 0 and 1, up to and at the breakpoint; and something after it.

    Bug D3 of the release: QPLEX is never pruned.
    """
    learners = []
    for alpha in (0.0, 1.0):
        torch.manual_seed(1)
        learners.append(make_learner(**base, cadp_alpha=alpha))
    for t_env in (0, 100, 101):
        metrics = [learner.train_on(make_batch(), t_env, 0) for learner in learners]
        assert ("loss_pruning" in metrics[1]) is (t_env == 101)
        assert "loss_pruning" not in metrics[0]
        pairs = zip(learners[0].parameters(), learners[1].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) is (t_env <= 100)


def test_the_pruning_loss_is_added_with_its_weight(
    make_learner: MakeLearner, make_batch: MakeBatch, base: dict[str, Any]
) -> None:
    learner, batch = make_learner(**base, cadp_alpha=0.5), make_batch()
    before, _ = learner.loss(batch, 100)
    after, metrics = learner.loss(batch, 101)
    expected = 0.5 * own_loss(learner, batch)
    close(metrics["loss_pruning"], expected.detach())
    close(after - before, expected, rtol=1e-4, atol=1e-5)


def test_padding_is_not_pruned(make_learner: MakeLearner, make_batch: MakeBatch, base: dict[str, Any]) -> None:
    learner, batch = make_learner(**base), make_batch()
    other = batch.clone()
    other["obs"][~batch["filled"].squeeze(-1)] = 9.0
    losses = [learner.loss(one, 101)[1]["loss_pruning"] for one in (batch, other)]
    close(*losses)
    other["obs"][0, 2] += 3.0
    assert not torch.allclose(learner.loss(other, 101)[1]["loss_pruning"], losses[0])


def test_nothing_is_computed_while_the_weight_is_zero(
    make_learner: MakeLearner, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(**LEARNERS["qmix"], **CADP)

    def refuse(*args: Any) -> Tensor:
        raise AssertionError("computed")

    monkeypatch.setattr("shoal.modules.agents.cadp.pruning_loss", refuse)
    learner.loss(make_batch(), 100)
    with pytest.raises(AssertionError, match="computed"):
        learner.loss(make_batch(), 101)


def test_no_model_but_the_centralised_one_is_run_in_training(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    """The release also runs model (D); and the target network is model (C) too."""
    learner = make_learner(**LEARNERS["qmix"], **CADP)
    calls: list[str] = []
    for owner in ("controller", "target_controller"):
        agent = getattr(learner, owner).agent
        for layer in ("query_key", "head"):
            name = f"{owner}.{layer}"
            agent.get_submodule(layer).register_forward_hook(lambda *_, name=name: calls.append(name))
    learner.train_on(make_batch(), 101, 0)
    assert sorted(calls) == [
        "controller.head",
        "controller.query_key",
        "target_controller.head",
        "target_controller.query_key",
    ]


def test_s2q_follows_the_centralised_model_without_a_central_value(make_learner: MakeLearner) -> None:
    """Q* is Q^tot's own target: what the team trains with, not what it is deployed with."""
    learner = make_learner(**S2Q, **CADP, central_mac=None, central_mixer=None)
    assert learner.target_star.mac.agent.query_key is not None
    close(learner.target_star.mac.agent.query_key.weight, learner.controller.agent.query_key.weight[:1])


# What is tested and deployed.


@pytest.mark.parametrize("name", ["qmix", "ow_qmix", "s2q", "qmix_comm"])
def test_the_decentralised_model_is_deployed_and_both_are_tested(
    make_learner: MakeLearner, make_batch: MakeBatch, name: str
) -> None:
    """Bugs D1 and D8 of the release: what is tested is decided by what the agent offers; nothing changes by it."""
    learner = make_learner(**LEARNERS[name], **CADP)
    mac, random = learner.controller, torch.get_rng_state()
    before = {key: value.clone() for key, value in learner.state_dict().items() if isinstance(value, Tensor)}
    executions = mac.executions()
    assert torch.equal(torch.get_rng_state(), random)
    assert list(executions) == ["", "teacher_"]
    deployed, teacher = executions[""], executions["teacher_"]
    assert deployed.agent.query_key is None
    assert mac.for_execution().agent.query_key is None
    assert not any("query_key" in key for key in deployed.state_dict())
    batch = make_batch(lengths=(6, 6, 6, 6))
    steps = PackedSteps.of(batch)
    close(teacher.unroll_packed(batch, steps)[0], mac.unroll_packed(batch, steps)[0][:1], rtol=0, atol=1e-6)
    alone, together = (greedy_values(one, batch) for one in (deployed, teacher))
    assert not torch.allclose(alone, together, atol=1e-4)
    after = learner.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(module.training for module in learner.modules())
    assert mac.agent.query_key is not None


def greedy_values(mac: BasicMAC, batch: TensorDict) -> Tensor:
    """Values of the first steps."""
    step = batch[:, 0].select("obs", "avail_actions")
    return mac.step(step, mac.initial_state(len(step)))[0]


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_an_agent_acts_from_its_own_observations(make_learner: MakeLearner, make_batch: MakeBatch, fusion: str) -> None:
    """Through the whole controller: (D) carries its own states from zeros, step by step."""
    mac = make_learner(**LEARNERS["qmix"], **CADP, cadp_fusion=fusion).controller.for_execution()
    batch = make_batch(lengths=(6, 6, 6, 6))
    other = batch.clone()
    other["obs"][:, :, 1:] = 9 * torch.randn(4, 7, 2, 5)
    states = [mac.initial_state(4) for _ in range(2)]
    for t in range(6):
        acted = []
        for k, episodes in enumerate((batch, other)):
            out, states[k] = mac.select_actions(episodes[:, t].select("obs", "avail_actions"), states[k], 0, True)
            acted.append(out["actions"])
        assert torch.equal(acted[0][:, 0], acted[1][:, 0])
        assert torch.equal(states[0]["hidden"][:, :, 0], states[1]["hidden"][:, :, 0])
    assert not torch.equal(states[0]["hidden"][:, :, 1], states[1]["hidden"][:, :, 1])


def test_agents_without_a_second_model_are_tested_as_they_are(make_learner: MakeLearner) -> None:
    mac = make_learner(learner="q_learner").controller
    assert mac.executions() == {"": mac}


# What is recorded.


def test_diagnostics_change_nothing_and_say_how_far_pruning_is(
    make_learner: MakeLearner, make_batch: MakeBatch, base: dict[str, Any]
) -> None:
    learner, batch = make_learner(**base, cadp_alpha=0.5), make_batch()
    random = torch.get_rng_state()
    metrics = learner.controller.diagnostics(batch, 101)
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(value.requires_grad for value in metrics.values())
    assert metrics["pruning_weight"] == 0.5
    if not learner.has_sub_values:
        close(metrics["pruning_loss"], own_loss(learner, batch).detach())
    own = [metrics[f"confidence_{i}_{i}"] for i in range(3)]
    close(metrics["confidence_self"], torch.stack(own).mean())
    for i in range(3):
        close(sum(metrics[f"confidence_{i}_{j}"] for j in range(3)), torch.tensor(1.0))
    assert "confidence_self" in learner.controller.diagnostics(batch, 0)  # before the breakpoint too


def test_agreement_of_the_two_models(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    mac, batch = make_learner(**LEARNERS["qmix"], **CADP).controller, make_batch()
    with torch.no_grad():
        mac.agent.value.weight.mul_(30)  # so that advice decides
    steps = PackedSteps.of(batch)
    avail = steps.pack(batch["avail_actions"])
    teacher, deployed = (greedy(one.unroll_packed(batch, steps)[0][0], avail) for one in (mac, mac.for_execution()))
    same = [
        bool(teacher[row, i] == deployed[row, i])
        for row in steps.acted.tolist()
        for i in range(3)
        if avail[row, i].sum() > 1
    ]
    assert mac.diagnostics(batch, 0)["teacher_action_agreement"].item() == pytest.approx(sum(same) / len(same))
    assert 0 < sum(same) < len(same)
    silent = make_learner(**LEARNERS["qmix"], **CADP, test_teacher=False).controller
    assert "teacher_action_agreement" not in silent.diagnostics(batch, 0)


def test_other_agents_record_nothing_more(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    assert make_learner(learner="q_learner").controller.diagnostics(make_batch(), 0) == {}


def test_the_target_takes_what_the_online_network_would_choose(
    make_learner: MakeLearner, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worked example: a* = (1, 0), its target values 0.5 and 1, VDN's target 1 + 0.99 * 1.5."""
    pair = TeamSpec(n_agents=2, n_actions=3, obs_dim=2, state_dim=2, episode_limit=1, discrete=True)
    learner = make_learner(spec=pair, learner="q_learner", mixer="vdn", td_lambda=0, gamma=0.99)
    batch = make_batch(pair, lengths=(1,))[:1]
    batch["reward"].fill_(1.0)
    batch["terminated"].zero_()
    batch["avail_actions"][:] = torch.tensor([[True, True, True], [True, True, False]])
    batch["actions"].zero_()
    online = torch.tensor([[1.0, 3, 2], [0, -1, 5]]).expand(1, 2, 2, 3)
    target = torch.tensor([[2.0, 0.5, 4], [1, 7, -2]]).expand(1, 2, 2, 3)
    monkeypatch.setattr(learner.controller, "unroll_for_loss", lambda *_: (online, None, {}))
    monkeypatch.setattr(learner.target_controller, "unroll_packed", lambda *_: (target, None))
    close(learner.loss(batch)[1]["target_mean"], torch.tensor(2.485), rtol=0, atol=1e-6)


# The dead.


def mortal(batch: TensorDict) -> TensorDict:
    alive = torch.rand(*batch.shape, 3) < 0.6
    alive[:, 0] = True
    return batch.set("alive", alive)


@pytest.mark.parametrize("name", ["qmix", "s2q", "qmix_comm"])
def test_the_dead_are_masked_in_training_and_in_acting(
    make_learner: MakeLearner, make_batch: MakeBatch, name: str
) -> None:
    learner = make_learner(spec=MORTAL, **LEARNERS[name], **CADP, att_mask_dead=True)
    mac, batch = learner.controller, mortal(make_batch(lengths=(4, 4, 4)))
    steps = PackedSteps.of(batch)
    values = steps.unpack(mac.unroll_packed(batch, steps)[0])  # [M, B, T+1, N, A]
    state = mac.initial_state(3)
    for t in range(4):
        out, hidden = mac.step(batch[:, t].select("obs", "avail_actions", "alive"), state)
        close(out, values[:, :, t], rtol=0, atol=1e-6)
        state = mac._acted(batch["actions"][:, t], hidden)[1]
    everyone = batch.clone().set("alive", torch.ones_like(batch["alive"]))
    assert not torch.allclose(mac.unroll_packed(everyone, steps)[0], mac.unroll_packed(batch, steps)[0])
    assert learner.train_on(batch, 101, 0)["loss_pruning"] > 0
    assert mac.diagnostics(batch, 101)["confidence_self"] > 0
    mac.for_execution().select_actions(
        batch[:, 0].select("obs", "avail_actions"), mac.for_execution().initial_state(3), 0
    )


def test_masking_the_dead_needs_an_environment_that_says_who_is(make_learner: MakeLearner) -> None:
    with pytest.raises(UserError, match=r"agent=att_rnn must be told who is alive.*att_mask_dead=False"):
        make_learner(**LEARNERS["qmix"], **CADP, att_mask_dead=True)


# The released settings.

RELEASED = {
    "vdn_cadp": {"cadp_alpha": 1.0, "mixer": "vdn"},
    "qmix_cadp": {"cadp_alpha": 0.5, "mixer": "qmix", "hypernet_layers": 1, "mixing_embed_dim": 32},
    "qplex_cadp": {"cadp_alpha": 1.0, "mixer": "qplex", "num_kernel": 4, "adv_hypernet_layers": 1},
}
COMMON = {
    "agent": "att_rnn",
    "att_heads": 4,
    "att_embed_dim": 32,
    "rnn_hidden_dim": 64,
    "cadp_fusion": "late",
    "cadp_loss_reduction": "mean",
    "cadp_ramp": 0,
    "att_mask_dead": False,
    "batch_size": 32,
    "buffer_size": 5000,
    "runner": "episode",
    "gamma": 0.99,
    "td_lambda": 0.0,
    "td_loss": 1.0,
    "double_q": True,
    "lr": 5e-4,
    "optimizer": "adam",
    "grad_norm_clip": 10.0,
    "target_update_interval": 200,
    "epsilon_start": 1.0,
    "epsilon_finish": 0.05,
    "epsilon_anneal_time": 50_000,
    "obs_last_action": True,
    "obs_agent_id": True,
    "breakpoint": 700_000,
    "t_max": 1_050_000,
    "test_interval": 10_000,
    "test_nepisode": 32,
}


def settings_of(alg: str, map_name: str) -> RunSettings:
    suite = "grf" if map_name.startswith("academy") else "smax"
    layers = files.layers("envs", suite) + files.layers("algs", alg)  # as the command line lays them
    raw = files.overlay(files.resolved(layers, suite, map_name))[0]
    return RunSettings(raw | {"env": "matrix_game", "env_args": {}}, ExperimentSettings)


@pytest.mark.parametrize("alg", sorted(RELEASED))
def test_released_settings(alg: str) -> None:
    """Sections 3.5 and 11."""
    values = settings_of(alg, "5m_vs_6m").values
    expected = COMMON | RELEASED[alg]
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("map_name", "changes"),
    [
        ("corridor", {"epsilon_anneal_time": 500_000, "breakpoint": 3_000_000, "t_max": 4_050_000}),
        ("3s5z_vs_3s6z", {"epsilon_anneal_time": 500_000, "breakpoint": 3_000_000, "t_max": 4_050_000}),
        ("academy_3_vs_1_with_keeper", {"optimizer": "rmsprop", "breakpoint": 3_000_000, "t_max": 5_050_000}),
        ("academy_3_vs_2", {"optimizer": "rmsprop", "breakpoint": 3_000_000, "t_max": 5_050_000}),
        ("academy_counterattack_easy", {"optimizer": "rmsprop", "breakpoint": 6_000_000, "t_max": 10_050_000}),
    ],
)
def test_released_settings_of_a_map(map_name: str, changes: dict[str, Any]) -> None:
    values = settings_of("qmix_cadp", map_name).values
    expected = COMMON | changes
    assert {key: values[key] for key in expected} == expected
    assert (values["optim_alpha"], values["optim_eps"]) == (0.99, 1e-5)
    assert not values["time_limit_is_terminal"]


@pytest.mark.parametrize("alg", ["s2q_cadp", "ow_qmix_cadp"])
def test_other_learners_take_the_agent_as_it_is(alg: str) -> None:
    base, ours = settings_of(alg.removesuffix("_cadp"), "3m").values, settings_of(alg, "3m").values
    assert {key for key in base if ours[key] != base[key]} == {"name", "agent"}
    assert ours["agent"] == "att_rnn"


@pytest.mark.parametrize(
    ("key", "value"),
    [("use_onehot_loss", True), ("lamb", 0.1), ("is_adv_attention", False), ("is_stop_gradient", False)],
)
def test_settings_that_the_release_ignores_are_refused(key: str, value: object) -> None:
    """Bug D9 of the release: another value than what happens anyway would do nothing."""
    raw = files.load("algs", "qplex_cadp") | {"env": "matrix_game", key: value}
    with pytest.raises(UserError, match=key):
        RunSettings(raw, ExperimentSettings)


def test_sizes_on_5m_vs_6m() -> None:
    """Sections 3.1: the agent, and QMIX with hypernetworks of one layer and of two."""
    spec = TeamSpec(n_agents=5, n_actions=12, obs_dim=55, state_dim=98, episode_limit=70, discrete=True)
    for layers, mixer_size in ((1, 25_377), (2, 31_521)):
        raw = files.load("algs", "qmix_cadp", "5m_vs_6m") | {"env": "matrix_game", "hypernet_layers": layers}
        run = RunSettings(raw, ExperimentSettings)
        learner = run.make("learner", spec=spec, make=run.make)
        assert isinstance(learner.controller.agent, CADPAgent)
        assert sum(p.numel() for p in learner.controller.parameters()) == 78_732
        assert sum(p.numel() for p in learner.mixer.parameters()) == mixer_size
