"""Continuous actions, from the network to environment, replay memory and checkpoint; discrete ones made of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.envs.sisl import INSTALL, NEEDS
from shoal.envs.toy_modes import team_reward
from shoal.experiment import Experiment, ExperimentSettings
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from support.launch import curves, in_process

IMITATION = {"learner": "support.imitation:Imitation", "action_selector": "gaussian", "act_noise": 0.3}
SMALL = {"seed": 3, "batch_size": 2, "buffer_size": 8, "rnn_hidden_dim": 16, "save_model": False, "test_nepisode": 1}


def experiment(tmp_path: Path, env: str, env_args: dict[str, Any], **settings: Any) -> Experiment:
    raw = files.load("envs", env, env_args.get("env_name"))
    raw = files.merge(raw, {"env_args": env_args} | SMALL | settings)
    with Console(100, live=False) as console:
        return Experiment(RunSettings(raw, ExperimentSettings), Logger(None, console), console, tmp_path)


def test_the_actions_that_were_executed_are_those_that_are_stored_and_learnt_from(tmp_path: Path) -> None:
    run = experiment(tmp_path, "toy_modes", {}, **IMITATION, runner="parallel", batch_size_run=4)
    try:
        for _ in range(3):
            run.step()
        batch = run.learner.batches[-1]
    finally:
        run.close()
    assert batch["actions"].shape == (2, 2, 2, 2)  # [B, T+1, N, d]
    assert batch["actions"].dtype == torch.float32
    assert run.memory._stored_dtypes["actions"] == torch.float32
    taken = batch["actions"][:, 0].numpy()
    assert np.abs(taken).max() <= 1.0
    assert len(np.unique(taken)) == taken.size
    # The reward is that of these very vectors.
    contexts = batch["state"][:, 0].argmax(-1).numpy()
    np.testing.assert_allclose(batch["reward"][:, 0, 0].numpy(), team_reward(contexts, taken), rtol=1e-5)
    assert not batch["actions"][:, 1].any()
    assert "avail_actions" not in batch.keys()  # noqa: SIM118 - a TensorDict iterates over its rows


@pytest.mark.parametrize("name", ["multiwalker", "waterworld"])
@pytest.mark.parametrize("runner", ["episode", "parallel"])
def test_a_time_limit_keeps_its_last_observation(tmp_path: Path, name: str, runner: str) -> None:
    for package in NEEDS[name]:
        pytest.importorskip(package, reason=INSTALL)
    args = {"env_name": name, "time_limit": 6}
    copies = {"batch_size_run": 2} if runner == "parallel" else {}
    run = experiment(tmp_path, "sisl", args, **IMITATION, runner=runner, **copies)
    try:
        rollout = run.runner.run(run.learner.controller, 0)
    finally:
        run.close()
    batch = rollout.batch
    assert batch["actions"].shape[2:] == run.runner.env.single_action_space.shape
    assert rollout.stats["hit_limit"] == [1.0] * batch.shape[0]
    assert not batch["terminated"].any()
    assert batch["filled"].all()
    assert batch["obs"][:, 6].any(-1).all()
    assert not batch["obs"][:, 6].equal(batch["obs"][:, 5])
    assert batch["alive"].all()
    assert len(set(batch["obs"][:, 0].sum((1, 2)).tolist())) == batch.shape[0]  # every copy has its own seed


@pytest.mark.parametrize("alg", ["qmix", "vdn", "qplex"])
@pytest.mark.parametrize("name", ["multiwalker", "waterworld"])
def test_discrete_algorithms_play_the_corners(tmp_path: Path, alg: str, name: str) -> None:
    for package in NEEDS[name]:
        pytest.importorskip(package, reason=INSTALL)
    args = {"env_name": name, "time_limit": 5, "action_mode": "bang_bang"}
    run = experiment(tmp_path, "sisl", args, **files.load("algs", alg) | SMALL, runner="episode")
    try:
        assert isinstance(run.runner.env.single_action_space, spaces.MultiDiscrete)
        before = [p.clone() for p in run.learner.parameters()]
        for _ in range(3):
            run.step()
    finally:
        run.close()
    assert any(not torch.equal(a, b) for a, b in zip(before, run.learner.parameters(), strict=True))


def test_a_discrete_algorithm_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs discrete actions"):
        experiment(tmp_path, "toy_modes", {}, **files.load("algs", "qmix") | SMALL)


def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    args = ["--config=imitation.yaml", "--env-config=toy_modes", "with", "seed=5", "batch_size=4", "buffer_size=12"]
    args += ["runner=episode", "test_interval=20", "runner_log_interval=12", "learner_log_interval=12"]
    args += ["save_model_interval=24", "save_buffer=True", "test_nepisode=2"]
    folders = {name: tmp_path / name for name in ("whole", "cut")}
    for name, t_max in (("whole", 96), ("cut", 48)):
        folders[name].mkdir()
        lines = [f"{key}: {value}" for key, value in IMITATION.items()]
        (folders[name] / "imitation.yaml").write_text("\n".join(lines))
        assert in_process(folders[name], *args, f"t_max={t_max}") == 0
    (models,) = (folders["cut"] / "results" / "models").iterdir()
    assert in_process(folders["cut"], "with", f"resume={models}", "t_max=96") == 0
    (whole,) = (folders["whole"] / "results" / "models").iterdir()
    ours, theirs = (checkpoints.load(checkpoints.find(folder)) for folder in (models, whole))
    assert ours["progress"]["t_env"] == theirs["progress"]["t_env"] == 96
    for name, weights in theirs["learner"].items():
        if isinstance(weights, torch.Tensor):
            assert weights.equal(ours["learner"][name]), name
    for key, stored in theirs["buffer"]["episodes"].items():
        assert stored.equal(ours["buffer"]["episodes"][key]), key
    expected = curves(folders["whole"] / "results" / "sacred" / "1", after=48)
    resumed = curves(folders["cut"] / "results" / "sacred" / "2")
    assert resumed["loss_td"] == expected["loss_td"]
    assert len(resumed["loss_td"]) >= 3
