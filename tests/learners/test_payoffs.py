"""S2Q's payoff game: whom the safe action traps, who finds the best one, and who follows it when it moves.

Source: arXiv 2602.17062, section 4.1, which fixes the diagonal (8, 7, 6); the other payoffs are Shoal's own.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import PackedSteps
from shoal.components.replay import ReplayBuffer, ReplaySettings
from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.envs.matrix_game import MatrixGameEnv, MatrixGameSettings
from shoal.experiment import ExperimentSettings
from shoal.learners.learner import Learner
from shoal.reproduce.payoff_game import METHODS
from shoal.reproduce.payoff_record import PayoffRecord
from shoal.runners.runner import ParallelRunner, ParallelRunnerSettings
from support.made import watched

CPU = torch.device("cpu")
GAME = MatrixGameSettings()
QUICK = {"lr": 2e-3, "target_update_interval": 200, "epsilon_anneal_time": 1500}
AA, BB, CC = [0, 0], [1, 1], [2, 2]


def train(seed: int, steps: int = 4000, game: MatrixGameSettings = GAME, **settings: Any) -> tuple[Learner, Tensor]:
    """The learner after ``steps``, and the greedy joint action of each of its copies: ``[M, N]``."""
    torch.manual_seed(seed)
    run = RunSettings({"env": "matrix_game", **QUICK, **settings}, ExperimentSettings)
    runner = ParallelRunner(ParallelRunnerSettings(batch_size_run=8), MatrixGameEnv, game, seed)
    learner: Learner = run.make("learner", spec=runner.spec, make=run.make)
    buffer = ReplayBuffer(
        ReplaySettings(batch_size=32, buffer_size=2000),
        runner.scheme(learner.controller),
        runner.spec.episode_limit,
        CPU,
        seed,
    )
    for t_env in range(0, steps, 8):
        rollout = runner.run(learner.controller, t_env)
        buffer.insert(rollout.batch)
        for batch in buffer.batches(t_env + 8):
            learner.train_on(batch, t_env + 8, t_env + 8)
    runner.close()
    episode = rollout.batch[:1]
    values, _ = learner.controller.unroll_packed(episode, PackedSteps.of(episode))
    return learner, greedy(values[:, 0], episode["avail_actions"][0, 0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alg", ["qmix", "s2q"])
def test_agents_that_see_the_same_learn_to_do_different_things(alg: str, seed: int) -> None:
    """The presets as they are: agent 0 has to play A and agent 1 B, which without their ids they cannot."""
    preset = files.load("algs", alg, env="matrix_game")
    assert train(seed, 800, MatrixGameSettings(payoff=[[0, 10], [0, 0]]), **preset)[1][0].tolist() == [0, 1]


SEEDS = [pytest.param(0), *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("mixer", ["vdn", "qmix"])
def test_unweighted_mixing_settles_for_the_safe_action(mixer: str, seed: int) -> None:
    assert train(seed, learner="q_learner", mixer=mixer)[1].tolist() == [BB]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_central_weighting_finds_the_best_action(seed: int) -> None:
    assert train(seed, learner="wqmix_learner", hysteretic_qmix=False, w=0.1)[1].tolist() == [AA]


@pytest.mark.parametrize("seed", SEEDS)
def test_sub_values_hold_the_three_best_actions_in_order(seed: int) -> None:
    numbers = {"K": 2, "alpha": 1.0, "suppress_floor": 1.0, "T": 1.0, "w_c": 0.1}
    learner, best = train(seed, learner="s2q_learner", mac="s2q_mac", **numbers)
    assert best.tolist() == [AA, BB, CC]
    execution = learner.controller.for_execution()
    fields = {"obs": torch.ones(1, 2, 1), "avail_actions": torch.ones(1, 2, 3, dtype=torch.bool)}
    step = TensorDict(fields, batch_size=[1])
    state = execution.initial_state(1)
    assert execution.select_actions(step, state, 0, test_mode=True)[0]["actions"].tolist() == [AA]


# The table moves after 4,000 steps; 4,000 follow.


def moved(folder: Path, name: str, seed: int) -> PayoffRecord:
    """The run of one seed in the command that reproduces figure 1."""
    (arm,) = [arm for arm in METHODS if arm.name == name]
    cwd = folder / f"{name}_seed{seed}"
    cwd.mkdir()
    return watched(cwd, arm, seed)


@pytest.mark.slow
def test_s2q_follows_the_optimum(tmp_path: Path) -> None:
    runs = [moved(tmp_path, "s2q", seed) for seed in (0, 1, 2)]
    assert [run.greedy[run.shift] for run in runs] == [["AA", "BB", "CC"]] * 3
    assert sum(run.after == "CC" for run in runs) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("qmix", ["BB"], ["BB"]), ("cw_qmix", ["AA"], ["AA"]), ("ow_qmix", ["AA", "BB"], None)],
)
def test_what_retains_no_other_action_does_not(
    name: str, before: list[str], after: list[str] | None, tmp_path: Path
) -> None:
    run = moved(tmp_path, name, 0)
    assert run.before in before
    assert run.after != "CC"
    assert after is None or run.after in after


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s2q_K0", "s2q_no_soft"])
def test_s2q_without_its_sub_values_or_without_following_them_does_not(name: str, tmp_path: Path) -> None:
    assert moved(tmp_path, name, 0).after != "CC"
