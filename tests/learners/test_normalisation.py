"""normalise_inputs, standardise_rewards, standardise_returns: what is counted, what is changed, and that it helps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from shoal.components.batch import PackedSteps, episode_lengths
from shoal.components.spec import TeamSpec
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.experiment.best_policy import BestPolicy
from shoal.learners.learner import Learner
from shoal.modules.layers.moments import Normaliser
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.utils.errors import UserError
from support.teams import ALGORITHMS, SPEC, VECTORS, unrolled

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
STANDARD = {"standardise_rewards": True, "standardise_returns": True}
MORTAL = TeamSpec(**{**SPEC.__dict__, "has_alive": True})


def rescaled(batch: TensorDict, scale: float, shift: float) -> TensorDict:
    """The same episodes with observations and states of another scale; padding stays zero."""
    moved = batch.clone()
    for key in ("obs", "state"):
        filled = batch["filled"].view(*batch.batch_size, *[1] * (batch[key].dim() - 2))
        moved[key] = torch.where(filled, batch[key] * scale + shift, 0.0)
    return moved


def real_rows(batch: TensorDict, key: str, last: bool) -> np.ndarray:
    """What a loop over episodes finds, the last observation included or not: ``[rows, ...]``."""
    lengths = episode_lengths(batch).tolist()
    return np.concatenate([batch[key][b, : length + last].double().numpy() for b, length in enumerate(lengths)])


@pytest.mark.parametrize("spec", [SPEC, MORTAL])
def test_moments_are_those_of_all_real_steps(make_learner: MakeLearner, make_batch: MakeBatch, spec: TeamSpec) -> None:
    learner = make_learner(spec, learner="q_learner", normalise_inputs=True, **STANDARD)
    batches = [make_batch(spec, lengths, seed) for seed, lengths in ((1, (6, 4, 3, 1, 6)), (2, (2, 5)))]
    for batch in batches:
        learner.observe(batch)
    state, reward = (
        np.concatenate([real_rows(b, key, key == "state") for b in batches]) for key in ("state", "reward")
    )
    obs = np.concatenate([real_rows(b, "obs", True) for b in batches])
    if spec.has_alive:
        obs = obs[np.concatenate([real_rows(b, "alive", True) for b in batches]).astype(bool)]
    for name, rows in (("obs", obs.reshape(-1, spec.obs_dim)), ("state", state), ("reward", reward)):
        moments = learner.moments[name]
        assert moments.count == len(rows), name
        np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(moments.std, np.sqrt(rows.var(0) + 1e-8), rtol=1e-9)


VECTOR_ALGORITHMS: dict[str, dict[str, Any]] = {
    "qf_lan": {"learner": "lan_learner", "mac": "qf_mac"},
    "mq_lan": {"learner": "lan_learner", "mac": "mq_mac", "mq_k": 6},
}


@pytest.mark.parametrize("name", [*ALGORITHMS, *VECTOR_ALGORITHMS])
def test_no_network_sees_the_scale_of_the_environment(
    make_learner: MakeLearner, make_batch: MakeBatch, name: str
) -> None:
    """The same loss from episodes of another scale: agents, mixers, critics, decoders and targets are free of it."""
    spec = SPEC if name in ALGORITHMS else VECTORS
    settings, losses = (ALGORITHMS | VECTOR_ALGORITHMS)[name], []
    for scale, shift in ((1.0, 0.0), (1000.0, 5000.0)):
        torch.manual_seed(0)
        learner = make_learner(spec, **settings, normalise_inputs=True)
        batch = rescaled(make_batch(spec), scale, shift)
        learner.observe(batch)
        torch.manual_seed(1)
        losses.append({k: float(v) for k, v in learner.train_on(batch, 0, 5).items() if k.startswith("loss")})
        followers = [module for module in learner.modules() if isinstance(module, Normaliser)]
        assert len(followers) >= 3  # the agents', their targets', the state's
        for module in followers:
            torch.testing.assert_close(module.mean, learner.moments[module.of].mean.float(), rtol=0, atol=0)
    assert losses[0] == pytest.approx(losses[1], rel=1e-2, abs=1e-3)


def test_an_oracle_reads_the_normalised_state_while_acting(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    promises = []
    for scale, shift in ((1.0, 0.0), (1000.0, 5000.0)):
        torch.manual_seed(0)
        learner = make_learner(**ALGORITHMS["s2q"], s2q_select="oracle", normalise_inputs=True, T=0.01)
        batch = rescaled(make_batch(), scale, shift)
        learner.observe(batch)
        step = batch[:, 0].select("obs", "state", "avail_actions")
        p, _ = learner.candidate_probabilities(
            step, learner.controller.initial_state(len(step)), torch.arange(3).view(3, 1, 1).expand(3, 5, 3)
        )
        promises.append(p)
    torch.testing.assert_close(*promises, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("mac", ["basic_mac", "comm_mac"])
def test_acting_and_training_read_the_same_inputs(make_learner: MakeLearner, make_batch: MakeBatch, mac: str) -> None:
    learner = make_learner(learner="q_learner", mac=mac, normalise_inputs=True)
    batch = rescaled(make_batch(), 50.0, 3.0)
    learner.observe(batch)
    whole = unrolled(learner.controller, batch)
    state = learner.controller.initial_state(len(batch))
    for t in range(2):
        values, hidden = learner.controller.step(batch[:, t].select("obs"), state)
        torch.testing.assert_close(values[0], whole[:, t], rtol=1e-4, atol=1e-5)
        state = learner.controller._acted(batch["actions"][:, t], hidden)[1]


def test_the_best_policy_plays_with_the_moments_of_its_time(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner, best, batch = make_learner(**ALGORITHMS["s2q"], normalise_inputs=True), BestPolicy(), make_batch()
    learner.observe(batch)
    then = learner.controller.inputs.normaliser.mean.clone()
    best.offer([1.0], learner.controller, 10)
    learner.observe(rescaled(batch, 1.0, 100.0))
    now = learner.controller.inputs.normaliser.mean.clone()
    with best.in_place_of(learner.controller):
        assert torch.equal(learner.controller.for_execution().inputs.normaliser.mean, then)
    assert torch.equal(learner.controller.for_execution().inputs.normaliser.mean, now)
    assert not torch.equal(then, now)


def test_without_these_settings_nothing_is_kept(make_learner: MakeLearner, make_batch: MakeBatch) -> None:
    learner = make_learner(learner="q_learner")
    before = learner.state_dict().keys()
    learner.observe(make_batch())
    assert learner.state_dict().keys() == before
    assert not [name for name in before if "moments" in name or "normaliser" in name]


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if "s2q" not in name])
def test_rewards_of_another_scale_give_the_same_loss(
    make_learner: MakeLearner, make_batch: MakeBatch, name: str
) -> None:
    """Standardised rewards are free of the environment's unit and zero; padding stays out."""
    losses = []
    for scale, shift in ((1.0, 0.0), (1000.0, -70.0)):
        torch.manual_seed(0)
        learner, batch = make_learner(**ALGORITHMS[name], standardise_rewards=True), make_batch()
        batch["reward"] = batch["reward"] * scale + shift
        learner.observe(batch)
        losses.append(float(learner.train_on(batch, 0, 5)["loss_td"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("name", ["iql", "qmix", "ow_qmix", "lan"])
@torch.no_grad()
def test_targets_are_standardised_and_bootstrap_values_are_not(
    make_learner: MakeLearner, make_batch: MakeBatch, name: str
) -> None:
    """y = TD(lambda) of mu + sigma V', then (y - mu') / sigma' with the moments of all targets, these included."""
    plain, learner = make_learner(**ALGORITHMS[name]), make_learner(**ALGORITHMS[name], standardise_returns=True)
    batch = make_batch()
    steps = PackedSteps.with_value(batch)
    seen: list[torch.Tensor] = []
    for seed in range(3):
        v = torch.randn(3, len(steps.index), generator=torch.Generator().manual_seed(seed))
        moments = learner.moments["target"]
        expected = plain.targets(batch, steps, v * moments.std.float() + moments.mean.float())
        seen.append(expected.flatten())
        y = learner.targets(batch, steps, v)
        everything = torch.cat(seen).double()
        sigma = (everything.var(correction=0) + 1e-8).sqrt()
        torch.testing.assert_close(y.double(), (expected.double() - everything.mean()) / sigma, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(learner.in_reward_units(y), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["iql", "qmix", "ow_qmix", "lan"])
def test_values_are_recorded_in_the_unit_of_rewards(
    make_learner: MakeLearner, make_batch: MakeBatch, name: str
) -> None:
    batch = make_batch()
    batch["reward"] = batch["reward"] * 1000 + 500
    settings = ALGORITHMS[name] | {"gamma": 0.0, "td_lambda": 0.0}
    metrics = [make_learner(**settings, standardise_returns=on).train_on(batch, 0, 5) for on in (False, True)]
    assert float(metrics[1]["target_mean"]) == pytest.approx(float(metrics[0]["target_mean"]), rel=1e-4)
    assert float(metrics[1]["td_error_abs"]) > 100
    assert float(metrics[1]["loss_td"]) < 10
    predicted = "v_mean" if name == "lan" else "q_taken_mean"
    assert abs(float(metrics[1][predicted])) > 10


@pytest.mark.parametrize("name", STANDARD)
def test_s2q_refuses_values_without_a_zero(make_learner: MakeLearner, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}=True does not go with S2Q"):
        make_learner(**ALGORITHMS["s2q"], **{name: True})


class Offset:
    """Two agents see which of three actions is right, as a small difference of large numbers; a game of one step."""

    n_agents, n_actions, episode_limit = 2, 3, 1
    offset, signal, prize = 0.0, 1.0, 1.0

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def reset(self) -> None:
        self.right = int(np.random.randint(3))

    def step(self, actions: Any) -> tuple[float, bool, dict[str, Any]]:
        return self.prize * float(np.mean([int(a) == self.right for a in actions])), True, {}

    def get_obs(self) -> list[list[float]]:
        return [self.get_state()] * 2

    def get_state(self) -> list[float]:
        return [self.offset + self.signal * (self.right == a) for a in range(3)]

    def get_avail_actions(self) -> list[list[int]]:
        return [[1, 1, 1]] * 2

    def get_env_info(self) -> dict[str, int]:
        return {"state_shape": 3, "obs_shape": 3, "n_actions": 3, "n_agents": 2, "episode_limit": 1}

    def close(self) -> None:
        pass


class FarAway(Offset):
    """Positions in metres, of a game that is far from the origin."""

    offset, signal = 3000.0, 2.0


class Rich(Offset):
    """Rewards whose unit nobody chose."""

    prize = 20_000.0


def share_of_right_actions(tmp_path: Path, game: type[Offset], **settings: Any) -> float:
    """After a short run of VDN, unless settings say otherwise (QMIX hides the scale of rewards in its weights)."""
    raw = {
        "env": "pymarl",
        "env_args": {"key": f"learners.test_normalisation:{game.__name__}"},
        "learner": "q_learner",
        "mixer": "vdn",
        "runner": "episode",
        "seed": 2,
        "t_max": 160,
        "batch_size": 32,
        "buffer_size": 160,
        "lr": 0.004,
        "rnn_hidden_dim": 32,
        "target_update_interval": 20,
        "epsilon_anneal_time": 80,
        "test_interval": 1000,
        "test_nepisode": 100,
        "save_model": False,
    }
    with Console(160, live=False) as console:
        run = Experiment(RunSettings(raw | settings, ExperimentSettings), Logger(None, console), console, tmp_path)
        try:
            return run.run()["test_return_mean"] / game.prize
        finally:
            run.close()


def test_normalised_inputs_are_learnt_from_where_raw_ones_are_not(tmp_path: Path) -> None:
    assert share_of_right_actions(tmp_path, Offset) > 0.95
    assert share_of_right_actions(tmp_path, FarAway) < 0.6
    assert share_of_right_actions(tmp_path, FarAway, normalise_inputs=True) > 0.95


def test_large_rewards_are_learnt_from_where_they_are_standardised(tmp_path: Path) -> None:
    assert share_of_right_actions(tmp_path, Rich) < 0.8
    for settings in (*({name: True} for name in STANDARD), STANDARD):
        assert share_of_right_actions(tmp_path, Rich, **settings) > 0.95, settings


SCALED = [{"mixer": mixer} for mixer in ("qmix", "qplex")] + [{"learner": "wqmix_learner", "mixer": "qmix"}]


@pytest.mark.parametrize("settings", SCALED, ids=str)
def test_mixers_that_start_near_zero_learn(tmp_path: Path, settings: dict[str, str]) -> None:
    assert share_of_right_actions(tmp_path, Offset, **settings, mixer_init_scale=0.001) > 0.95


@pytest.mark.parametrize("mask_dead", [True, False])
def test_targets_that_the_loss_leaves_out_do_not_count(
    make_learner: MakeLearner, make_batch: MakeBatch, mask_dead: bool
) -> None:
    learner = make_learner(MORTAL, **ALGORITHMS["lan"], mask_dead=mask_dead, standardise_returns=True)
    batch = make_batch(MORTAL)
    acted = real_rows(batch, "alive", last=False)
    assert 0 < acted.sum() < acted.size
    _, metrics = learner.loss(batch)
    moments = learner.moments["target"]
    assert moments.count == (acted.sum() if mask_dead else acted.size)
    # Standardised by their own moments, the targets of the loss have the mean 0.
    assert float(metrics["target_mean"]) == pytest.approx(0.0, abs=1e-5)
