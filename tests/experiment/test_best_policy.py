"""The absolute metric: which policy is kept, that it is the one that plays, and that nothing else changes."""

import math

import pytest
import torch

from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.experiment.best_policy import BestPolicy
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import NonFiniteError
from shoal.utils.signals import StopRequest
from support.launch import curves, in_process


def network(value):
    net = torch.nn.Linear(1, 1)
    with torch.no_grad():
        net.weight.fill_(value)
    return net


def outcome(returned, won=None):
    return [0.0 if won is None else won, returned]


@pytest.mark.parametrize(
    ("tests", "best"),
    [
        ([outcome(1.0), outcome(3.0), outcome(2.0)], 1),
        ([outcome(9.0, 0.2), outcome(5.0, 0.5), outcome(7.0, 0.5), outcome(7.0, 0.5)], 2),
        ([outcome(math.nan), outcome(math.nan), outcome(-5.0)], 2),
        ([outcome(-5.0), outcome(math.nan), outcome(math.inf)], 0),
        ([outcome(9.0), outcome(1.0, 0.1), outcome(99.0)], 1),
    ],
)
def test_the_first_of_the_best_is_kept(tests, best):
    policy = BestPolicy()
    for k, score in enumerate(tests):
        policy.offer(score, network(float(k)), t_env=10 * k)
    assert policy.t_env == 10 * best
    assert policy.networks["weight"].item() == best


def test_no_policy_with_a_nan_is_kept():
    policy = BestPolicy()
    policy.offer(outcome(1.0), network(1.0), t_env=10)
    with pytest.raises(NonFiniteError, match=r"best test cannot be kept: NaN or infinity in weight"):
        policy.offer(outcome(2.0), network(math.nan), t_env=20)
    assert (policy.t_env, policy.networks["weight"].item()) == (10, 1.0)


def test_it_plays_and_leaves_and_is_no_view_of_what_trains_on():
    policy, net = BestPolicy(), network(1.0)
    policy.offer(outcome(0.0), net, 0)
    with torch.no_grad():
        net.weight.fill_(2.0)
    played = []

    def play():
        with policy.in_place_of(net):
            played.append(net.weight.item())
            raise RuntimeError("the game fell over")

    with pytest.raises(RuntimeError, match="game"):
        play()
    assert played == [1.0]
    assert net.weight.item() == 2.0


def test_it_goes_through_a_checkpoint(tmp_path):
    policy, again = BestPolicy(), BestPolicy()
    policy.offer(outcome(4.0, 0.5), network(3.0), 70)
    again.load_state_dict(checkpoints.load(checkpoints.save({"best": policy.state_dict()}, tmp_path, 70))["best"])
    again.offer(outcome(9.0, 0.4), network(5.0), 80)
    assert (again.t_env, again.score, again.networks["weight"].item()) == (70, [0.5, 4.0], 3.0)


# In a run.

RUN = ["--config=qmix", "--env-config=team.yaml", "with", "runner=episode", "seed=5", "t_max=120", "batch_size=3"]
RUN += ["buffer_size=10", "test_nepisode=3", "test_interval=20", "save_model_interval=20", "updates_per_rollout=4"]


def train(folder, *more):
    folder.mkdir(exist_ok=True)
    (folder / "team.yaml").write_text("env: support.team_env:TeamEnv\n")
    assert in_process(folder, *RUN, "lr=0.05", *more) == 0
    return curves(folder / "results" / "sacred" / "1")


def test_the_best_policy_is_tested_at_the_end_and_nothing_else_changes(tmp_path):
    plain, points = train(tmp_path / "a"), train(tmp_path / "b", "absolute_test_nepisode=30")
    added = points.keys() - plain.keys()
    assert {"absolute_test_return_mean", "absolute_test_ep_length_mean", "absolute_test_t_env"} <= added
    assert all(name.startswith("absolute_test_") for name in added)
    assert {name: points[name] for name in plain} == plain

    tests = points["test_return_mean"]
    best_at, _ = max(tests, key=lambda point: (point[1], -point[0]))
    end = tests[-1][0]
    assert points["absolute_test_t_env"] == [(end, best_at)]
    assert best_at < end  # or the last policy would do
    # The team's episodes say which seeds they were played with: 3 a test before, then the next 30.
    ((_, seed),) = points["absolute_test_seed_mean"]
    assert seed not in [value for _, value in points["test_seed_mean"]]

    (models,) = (tmp_path / "b" / "results" / "models").iterdir()
    kept = checkpoints.load(checkpoints.find(models))["best"]
    assert kept["t_env"] == best_at
    then = checkpoints.load(models / checkpoints.BEST)["learner"]
    for name, weights in kept["networks"].items():
        assert weights.equal(then[f"controller.{name}"]), name


def test_a_resumed_run_still_knows_its_best_policy(tmp_path):
    points = train(tmp_path, "absolute_test_nepisode=6", "save_buffer=True", "keep_checkpoints=0", "keep_buffers=0")
    (models,) = (tmp_path / "results" / "models").iterdir()
    best_at = points["absolute_test_t_env"][0][1]
    later = [step for step in checkpoints.steps_in(models) if step > best_at]
    assert later
    for step in later:
        (models / f"{step}.pt").unlink()
    assert in_process(tmp_path, "with", f"resume={models}") == 0
    resumed = curves(tmp_path / "results" / "sacred" / "2")
    absolute = {name: series for name, series in points.items() if name.startswith("absolute_test_")}
    assert {name: series for name, series in resumed.items() if name.startswith("absolute_test_")} == absolute


@pytest.mark.parametrize("alg", ["qmix_cadp", "ow_qmix_cadp", "s2q_cadp"])
def test_what_is_deployed_plays_and_not_the_model_with_advice(tmp_path, alg):
    own = {"env": "support.team_env:TeamEnv", "runner": "episode", "seed": 5, "buffer_size": 128, "save_model": False}
    settings = files.load("algs", alg) | own | {"test_nepisode": 8, "absolute_test_nepisode": 8}
    with Console(100, live=False) as console, StopRequest() as stop:
        run = Experiment(RunSettings(settings, ExperimentSettings), Logger(None, console), console, tmp_path)
        try:
            with torch.no_grad():  # so that advice matters without training
                for weights in run.learner.controller.parameters():
                    weights *= 5
            before = run.runner.state_dict()
            tests = run._test(stop)
            run.runner.load_state_dict(before)  # so that it plays the same episodes
            absolute = run._absolute_test(stop)
        finally:
            run.close()
    assert absolute["absolute_test_return_mean"] == tests["test_return_mean"]
    assert absolute["absolute_test_return_mean"] != tests["test_teacher_return_mean"]
    assert not any("teacher" in name for name in absolute)
