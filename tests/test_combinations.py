"""Every algorithm trains for two updates on every kind of environment, through a real run's settings and runner."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from shoal import registry
from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.utils.errors import UserError

SMALL = {
    "seed": 3,
    "batch_size": 2,
    "buffer_size": 8,
    "updates_per_rollout": 1,
    "rnn_hidden_dim": 16,
    "save_model": False,
    "test_nepisode": 1,
}


def trained(tmp_path: Path, alg: str | None = None, **settings: Any) -> Experiment:
    """An experiment on one environment in this process, after three episodes and two updates."""
    raw = files.merge(files.load("algs", alg) if alg else {}, SMALL | {"runner": "episode"} | settings)
    with Console(100, live=False) as console:
        run = Experiment(RunSettings(raw, ExperimentSettings), Logger(None, console), console, tmp_path)
        try:
            before = [p.clone() for p in run.learner.parameters()]
            for _ in range(3):
                run.step()
        finally:
            run.close()
    assert int(run.learner.n_updates) == 2
    assert any(not torch.equal(a, b) for a, b in zip(before, run.learner.parameters(), strict=True))
    assert all(p.isfinite().all() for p in run.learner.parameters())
    return run


def for_continuous_actions(alg: str) -> bool:
    """Whether an algorithm's file is written for action vectors, or for an environment that turns them into indices."""
    settings = files.load("algs", alg)
    return registry.find("mac", settings.get("mac", "basic_mac")).chooses_vectors or "env_args" in settings


DISCRETE = [alg for alg in files.names("algs") if not for_continuous_actions(alg)]
CONTINUOUS = [alg for alg in files.names("algs") if for_continuous_actions(alg) and "bang_bang" not in alg]


@pytest.mark.parametrize("alg", DISCRETE)
@pytest.mark.parametrize("key", ["lbforaging:Foraging-5x5-2p-1f-v3", "rware:rware-tiny-2ag-v2"])
def test_gymnasium_environments(tmp_path: Path, alg: str, key: str) -> None:
    pytest.importorskip(key.partition(":")[0], reason="pip install lbforaging rware")
    trained(tmp_path, alg, env="gymma", env_args={"key": key, "time_limit": 12})


@pytest.mark.parametrize("alg", DISCRETE)
def test_pettingzoo_environments(tmp_path: Path, alg: str) -> None:
    pytest.importorskip("pygame", reason="pip install pygame")
    args = {"key": "pettingzoo.sisl.pursuit_v4", "time_limit": 6, "kwargs": {"n_pursuers": 2, "obs_range": 3}}
    trained(tmp_path, alg, env="pettingzoo", env_args=args)


@pytest.mark.parametrize("alg", CONTINUOUS)
def test_continuous_actions(tmp_path: Path, alg: str) -> None:
    pytest.importorskip("Box2D", reason="pip install Box2D pygame")
    args = {"key": "pettingzoo.sisl.multiwalker_v9", "time_limit": 8, "kwargs": {"n_walkers": 2}}
    trained(tmp_path, alg, env="pettingzoo", env_args=args)


def combinations() -> Iterator[dict[str, Any]]:
    """Every registered agent, mixer, learner and controller that may stand together, each Q* of S2Q included."""
    bases = ({}, {"central_mac": None, "central_mixer": None})
    for agent, mixer in product(registry.COMPONENTS["agent"], [None, *registry.COMPONENTS["mixer"]]):
        for learner, mac in product(registry.COMPONENTS["learner"], registry.COMPONENTS["mac"]):
            sub_values = [registry.find(*named).has_sub_values for named in (("learner", learner), ("mac", mac))]
            if sub_values[0] != sub_values[1] or registry.find("mac", mac).chooses_vectors:
                continue
            names = {"agent": agent, "learner": learner, "mac": mac}
            if learner == "lan_learner":
                if mixer is None:  # it has none
                    yield names
                continue
            if mixer is None and learner != "q_learner":
                continue
            names["mixer"] = mixer
            yield from (names | base for base in (bases if learner == "s2q_learner" else bases[:1]))


@pytest.mark.parametrize("names", combinations(), ids=lambda names: "-".join(str(name) for name in names.values()))
def test_every_agent_mixer_learner_and_controller(tmp_path: Path, names: dict[str, Any]) -> None:
    pytest.importorskip("pygame", reason="pip install pygame")
    args = {"key": "pettingzoo.sisl.pursuit_v4", "time_limit": 6, "kwargs": {"n_pursuers": 2, "obs_range": 3}}
    trained(tmp_path, **names, env="pettingzoo", env_args=args)


@pytest.mark.parametrize("mac", ["qf_mac", "mq_mac"])
def test_agents_that_exchange_advice_choose_action_vectors(tmp_path: Path, mac: str) -> None:
    pytest.importorskip("Box2D", reason="pip install Box2D pygame")
    args = {"key": "pettingzoo.sisl.multiwalker_v9", "time_limit": 8, "kwargs": {"n_walkers": 2}}
    trained(tmp_path, learner="lan_learner", mac=mac, agent="att_rnn", env="pettingzoo", env_args=args)


@pytest.mark.parametrize("alg", [*DISCRETE, *CONTINUOUS])
def test_inputs_are_normalised_for_every_algorithm(tmp_path: Path, alg: str) -> None:
    run = trained(
        tmp_path, alg, **files.load("envs", "toy_modes" if alg in CONTINUOUS else "matrix_game"), normalise_inputs=True
    )
    assert run.learner.moments["obs"].count == run.progress.t_env * 2 * 2  # two agents, before and after the one step


@pytest.mark.parametrize("learner", ["wqmix_learner", "s2q_learner"])
def test_these_learners_need_a_mixer(learner: str) -> None:
    with pytest.raises(UserError, match="mixer=None has the wrong type"):
        RunSettings({"env": "matrix_game", "learner": learner, "mixer": None}, ExperimentSettings)


@pytest.mark.parametrize("alg", DISCRETE)
def test_pymarl_environments(tmp_path: Path, alg: str) -> None:
    trained(tmp_path, alg, env="pymarl", env_args={"key": "test_combinations:TinyPyMARL"})


@pytest.mark.parametrize("alg", DISCRETE)
def test_payoff_games(tmp_path: Path, alg: str) -> None:
    trained(tmp_path, alg, **files.load("envs", "matrix_game_shift"))


@pytest.mark.slow
@pytest.mark.parametrize("alg", DISCRETE)
def test_smax(tmp_path: Path, alg: str) -> None:
    trained(tmp_path, alg, env="smax", env_args={"map_name": "3m", "time_limit": 20})


class TinyPyMARL:
    """An environment in PyMARL's old interface: two agents that should both play action 1, for five steps."""

    n_agents, n_actions, episode_limit = 2, 3, 5

    def reset(self) -> None:
        self.t = 0

    def step(self, actions: Any) -> tuple[float, bool, dict[str, Any]]:
        self.t += 1
        return float(all(int(a) == 1 for a in actions)), self.t >= 4, {}

    def get_obs(self) -> list[list[float]]:
        return [[0.0, 1.0, 0.5, float(self.t)] for _ in range(2)]

    def get_state(self) -> list[float]:
        return [float(self.t), 1.0]

    def get_avail_actions(self) -> list[list[int]]:
        return [[1, 1, 1], [1, 1, 0]]

    def get_env_info(self) -> dict[str, int]:
        return {"state_shape": 2, "obs_shape": 4, "n_actions": 3, "n_agents": 2, "episode_limit": 5}

    def close(self) -> None:
        pass
