"""One run's loop: what is counted, what tests leave alone, what an ending leaves behind."""

import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings, Progress, summary
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from shoal.utils.finite import non_finite_in
from shoal.utils.seeding import seed_everything
from shoal.utils.signals import Interrupted, StopNow, StopRequest
from support.launch import (
    MAIN,
    Recorder,
    all_gone,
    curves,
    environment,
    in_process,
    read_json,
    start,
    wait_until,
    workers_of,
)
from support.team_env import FAILED_REWARD, TeamEnv, leaked

S2Q = {"learner": "s2q_learner", "mac": "s2q_mac"}
QMIX = {"learner": "q_learner"}


@pytest.fixture
def experiment(tmp_path):
    """Builds experiments on the tests' own environment and closes them."""
    built = []

    def build(callbacks=(), **changes):
        raw = {
            "env": "support.team_env:TeamEnv",
            "runner": "episode",
            "seed": 5,
            "t_max": 60,
            "batch_size": 3,
            "buffer_size": 10,
            "test_nepisode": 3,
            "test_interval": 20,
            "runner_log_interval": 20,
            "learner_log_interval": 20,
            "save_model": False,
        }
        settings = RunSettings(raw | changes, ExperimentSettings)
        console = Console(raw["t_max"], live=False)
        recorder = Recorder()
        new = Experiment(settings, Logger(recorder, console), console, tmp_path / "models", callbacks)
        new.recorder = recorder
        built.append(new)
        return new

    yield build
    for one in built:
        one.console.close()
        one.close()


NORMALISED = {"normalise_inputs": True, "standardise_rewards": True, "standardise_returns": True}


@pytest.mark.parametrize("parts", [S2Q, QMIX, QMIX | NORMALISED])
def test_how_often_one_tests_does_not_change_what_is_learnt(experiment, parts):
    often, seldom = experiment(**parts, test_interval=5), experiment(**parts, test_interval=1000)
    weights = []
    for one in (often, seldom):
        # Both share this process's generators, so each starts where it would in a process of its own.
        seed_everything(5)
        one.run()
        weights.append(one.learner.state_dict())
    assert len(often.recorder.points["test_return_mean"]) > len(seldom.recorder.points["test_return_mean"])
    for name, value in weights[0].items():
        if isinstance(value, torch.Tensor):
            assert value.equal(weights[1][name]), name
    assert often.recorder.points["return_mean"] == seldom.recorder.points["return_mean"]


@pytest.mark.parametrize("parts", [S2Q, QMIX, QMIX | {"agent": "att_rnn"}])
def test_a_test_leaves_every_random_state_and_the_training_episodes_alone(experiment, parts):
    one = experiment(**parts, evaluation_epsilon=0.5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    metrics = one._test(StopRequest())
    assert torch.get_rng_state().equal(before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert one.runner.state_dict() == {"train": 0, "test": 3}
    assert {"test_return_mean", "test_ep_length_mean", "test_score_mean"} <= set(metrics)
    assert one.progress.t_env == one.progress.episode == 0


def test_a_rollout_that_breaks_leaves_no_trace(experiment, monkeypatch):
    """What is saved then goes on with the same episodes from their start."""
    one = experiment(**S2Q, t_max=60)
    one.step()
    before = one.runner.state_dict(), torch.get_rng_state()
    calls, step = [], one.runner.env.step

    def breaking(actions):
        calls.append(actions)
        if len(calls) == 3:
            raise StopNow  # the second Ctrl-C
        return step(actions)

    monkeypatch.setattr(one.runner.env, "step", breaking)
    for attempt in (one.step, lambda: one._test(StopRequest())):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            attempt()
        assert one.runner.state_dict() == before[0]
        assert torch.get_rng_state().equal(before[1])


def test_a_stop_in_the_longer_test_saves_what_was_learnt_last_and_plays_it_again_later(experiment):
    one = experiment(**QMIX, absolute_test_nepisode=30, save_model=True)
    one._test(StopRequest())
    for _ in range(4):
        one.step()
    stop, before = StopRequest(), one.runner.state_dict()
    stop.signum = signal.SIGTERM
    with pytest.raises(Interrupted) as caught:
        one._absolute_test(stop)
    saved = checkpoints.load(caught.value.checkpoint)
    assert saved["runner"] == before
    trained = one.learner.state_dict()
    changed = 0
    for name, best in saved["best"]["networks"].items():
        assert saved["learner"][f"controller.{name}"].equal(trained[f"controller.{name}"]), name
        changed += not best.equal(trained[f"controller.{name}"])
    assert changed
    assert "absolute_test_return_mean" not in one.recorder.points


LONG = {"env": "support.team_env:NamedTeamEnv", "t_max": 400, "buffer_size": 40}


def alarms(one):
    """What has gone off, each time."""
    return {name: points for name, points in one.recorder.points.items() if name.startswith("alarm_")}


def test_an_input_that_goes_far_and_what_it_does_to_values_is_said_once_and_recorded(experiment, capsys):
    one = experiment(**QMIX, **LONG, env_args={"episode_limit": 40, "clock": 20.0})
    one.run()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: t_env")]
    assert len(said) == 2
    assert "The state's entry 4 (cooldown) is -" in said[0]
    assert "normalise_inputs=True" in said[0]
    assert "no training episode has had a discounted return beyond" in said[1]
    assert {name: len(points) for name, points in alarms(one).items()} == {"alarm_input_size": 1, "alarm_q_range": 1}


def test_an_input_that_grows_along_episodes_is_said_once_and_recorded(experiment, capsys):
    one = experiment(**QMIX, **LONG | {"t_max": 1000}, env_args={"episode_limit": 40, "clock": 0.2})
    one.run()
    assert list(alarms(one)) == ["alarm_input_growth"]
    assert capsys.readouterr().out.count("The state's entry 4 (cooldown) grows") == 1


def test_the_alarm_goes_on_from_a_checkpoint(experiment):
    settings = QMIX | LONG | {"env_args": {"episode_limit": 40, "clock": 20.0}}
    one, later = experiment(**settings), experiment(**settings)
    for _ in range(5):
        one.step()
    later.load(one._content(with_episodes=False), whole=True)
    assert later.alarm.state_dict()["said"] == one.alarm.state_dict()["said"] != []
    for _ in range(30):
        later.step()
    assert "alarm_input_size" not in later.recorder.points  # it was said


@pytest.mark.parametrize("quiet", [{"range_alarm": False}, {"normalise_inputs": True}])
def test_no_alarm_where_nobody_wants_it_or_networks_read_other_numbers(experiment, quiet):
    one = experiment(**QMIX, **LONG, **quiet, env_args={"episode_limit": 40, "clock": 20.0})
    one.run()
    assert alarms(one) == {}


@pytest.mark.parametrize("parts", [S2Q, QMIX, {"learner": "lan_learner"}])
def test_no_alarm_in_an_ordinary_run(experiment, parts):
    one = experiment(**parts, **LONG, env_args={"episode_limit": 40})
    one.run()
    assert alarms(one) == {}
    assert one.alarm.largest_return > 1


CADP = QMIX | {"agent": "att_rnn", "breakpoint": 30}


def without_teacher(points):
    return {name: values for name, values in points.items() if "teacher" not in name}


def test_what_else_is_tested_changes_neither_training_nor_the_deployed_teams_tests(experiment):
    """CADP: models (D) and (C) at every test, on the same episodes."""
    both, alone = experiment(**CADP), experiment(**CADP, test_teacher=False)
    weights = []
    for one in (both, alone):
        seed_everything(5)
        one.run()
        weights.append(one.learner.state_dict())
    points = both.recorder.points
    assert without_teacher(points) == alone.recorder.points
    assert {"test_teacher_return_mean", "test_teacher_return_std", "test_teacher_score_mean"} <= points.keys()
    deployed, teacher = points["test_seed_mean"], points["test_teacher_seed_mean"]
    assert deployed == teacher  # the environment's episodes name their seeds
    assert len(deployed) >= 3
    assert [step for step, _ in points["test_return_mean"]] == [step for step, _ in deployed]
    for name, value in weights[0].items():
        if isinstance(value, torch.Tensor):
            assert value.equal(weights[1][name]), name
    assert both.runner.state_dict() == alone.runner.state_dict()


def test_pruning_is_recorded_over_training(experiment):
    one = experiment(**CADP, t_max=80)
    one.run()
    points = one.recorder.points
    assert {"pruning_loss", "pruning_weight", "confidence_self", "confidence_0_1", "teacher_action_agreement"} <= (
        points.keys()
    )
    weights = dict(points["pruning_weight"])
    assert {weight for step, weight in weights.items() if step <= 30} <= {0.0}
    assert {weight for step, weight in weights.items() if step > 30} == {0.5}
    assert all(step > 30 for step, _ in points["loss_pruning"])


def scored(experiment, *scores):
    """Tests with these results, one after another, a step apart."""
    for score in scores:
        experiment.progress.t_env += 1
        names = ["test_battle_won_mean", "test_return_mean"][-len(score) :]
        experiment._save_if_best(dict(zip(names, score, strict=True)))
    return experiment


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.0, 1.0), (0.5, 0.0), (0.25, 9.0)], 2),
        ([(0.0, 1.0), (0.0, 3.0), (0.0, 2.0)], 2),
        ([(1.0, 1.0), (1.0, 1.0)], 1),
        ([(-5.0,), (-7.0,), (-4.0,)], 3),
        ([(-5.0,), (float("nan"),)], 1),
        ([(9.0,), (0.25, 1.0), (0.0, 99.0)], 2),
        ([(float("nan"),), (-5.0,)], 2),
    ],
)
def test_the_checkpoint_of_the_best_test_is_kept(experiment, scores, best):
    one = scored(experiment(save_model=True, **QMIX), *scores)
    content = checkpoints.load(one.model_dir / checkpoints.BEST)
    assert content["progress"]["t_env"] == best
    assert content["progress"]["best"] == [0.0, *scores[best - 1]][-2:]
    assert content["buffer"]["episodes"] is None


def test_a_run_that_goes_on_from_before_its_best_keeps_it(experiment):
    one = scored(experiment(save_model=True, **QMIX), (0.5,))
    early = checkpoints.load(one.save())
    scored(one, (0.9,))
    two = experiment(save_model=True, **QMIX)
    two.load(early, whole=True)
    scored(two, (0.7,))
    assert checkpoints.load(two.model_dir / checkpoints.BEST)["progress"]["best"] == [0.0, 0.9]
    (two.model_dir / checkpoints.BEST).write_bytes(b"damaged")
    three = experiment(save_model=True, **QMIX)
    three.load(early, whole=True)
    scored(three, (0.7,))
    assert checkpoints.load(three.model_dir / checkpoints.BEST)["progress"]["best"] == [0.0, 0.7]


def test_old_checkpoints_go_only_when_the_new_one_is_whole(experiment, monkeypatch):
    one = experiment(save_model=True, **QMIX, keep_checkpoints=1)
    one.progress.t_env = 10
    one.save()
    one.progress.t_env = 20
    with monkeypatch.context() as patch:

        def full(content, file):
            raise OSError(28, "No space left on device")

        patch.setattr(torch, "save", full)
        assert one.save() is None
    assert checkpoints.steps_in(one.model_dir) == [10]
    one.save()
    assert checkpoints.steps_in(one.model_dir) == [20]


def test_an_old_checkpoint_that_cannot_go_costs_a_warning(experiment, monkeypatch, capsys):
    one = experiment(save_model=True, **QMIX, keep_checkpoints=1)
    one.save()
    one.progress.t_env = 20
    monkeypatch.setattr(Path, "unlink", lambda *args, **kwargs: (_ for _ in ()).throw(PermissionError("no")))
    assert one.save() is not None
    assert "could not be deleted: no" in capsys.readouterr().out


def test_updates_follow_rollouts_as_often_as_asked(experiment):
    one = experiment(**QMIX, updates_per_rollout=4)
    for _ in range(5):
        one.step()
    assert one.learner.n_updates == 4 * 3  # the first two episodes are fewer than a batch
    assert one.progress.episode == 5


def test_steps_are_counted_and_recorded_where_they_happened(experiment):
    one = experiment(**QMIX)
    one.run()
    points = one.recorder.points
    assert one.progress.t_env >= 60
    assert points["test_return_mean"][0][0] == 0
    assert points["test_return_mean"][-1][0] == one.progress.t_env
    steps = [step for step, _ in points["return_mean"]]
    assert all(later - earlier >= 20 for earlier, later in zip([0, *steps], steps, strict=False))
    assert points["episode"][-1][1] <= one.progress.episode


def test_failed_episodes_are_counted_and_never_averaged(experiment):
    one = experiment(**QMIX, env_args={"fail_share": 0.3})
    one.run()
    points = one.recorder.points
    assert one.progress.env_restarts > 0
    assert points["env_restarts"][-1][1] > 0
    for name in ("return_mean", "test_return_mean", "score_mean", "test_score_mean"):
        assert all(abs(value) < FAILED_REWARD / 10 for _, value in points[name])
    assert not any("episode_failed" in name for name in points)
    stored = one.memory.sample(3)
    assert stored["reward"].max() < FAILED_REWARD / 10


def test_a_buffer_that_does_not_fit_is_refused_before_it_is_taken(experiment):
    with pytest.raises(UserError, match=r"buffer of 1000000000000 episodes needs .* GB.*lower buffer_size"):
        experiment(**QMIX, buffer_size=10**12)


def test_what_is_about_to_run_is_said(experiment):
    text = experiment(**S2Q).describe()
    for words in ("2 agents, 4 actions", "observation 3, state 5", "at most 6 steps", "memory of 10 episodes"):
        assert words in text


def test_the_means_have_pymarls_names():
    metrics = summary({"return": [1.0, 3.0], "ep_length": [4.0, 8.0], "win_rate": [0.0, 1.0]}, prefix="test_")
    assert metrics == {
        "test_return_mean": 2.0,
        "test_ep_length_mean": 6.0,
        "test_win_rate": 0.5,
        "test_return_std": 1.0,
    }
    assert summary({}) == {}


def test_the_denominator_is_the_episodes_that_were_played():
    stats = {"return": [1.0] * 4, "battle_won": [1.0], "score": [math.nan], "action_stop": [0.5, 1.0], "action_go": []}
    metrics = summary(stats, info_keys=["battle_won", "success"])
    assert metrics["battle_won_mean"] == 0.25
    assert metrics["success_mean"] == 0.0
    assert math.isnan(metrics["score_mean"])
    assert metrics["action_stop_mean"] == 0.75  # of the episodes with a choice
    assert "action_go_mean" not in metrics


WINS = {"env_args": {"info": "wins"}, "test_nepisode": 8, "t_max": 120}


def test_an_environment_that_tells_of_wins_alone_is_recorded_as_one_that_always_tells(experiment, capsys):
    seldom, always = experiment(**QMIX, **WINS), experiment(**QMIX, **WINS | {"env_args": {"info": "outcome"}})
    recorded = []
    for one in (seldom, always):
        seed_everything(5)
        one.run()
        recorded.append(one.recorder.points)
        wins = dict(one.recorder.points["test_battle_won_mean"]).values()
        assert any(wins), "no test has a win: choose another seed"
        assert not all(wins), "every test has a win: choose another seed"
    for name in ("test_battle_won_mean", "battle_won_mean"):
        first = recorded[0][name][0][0]  # before the first win nobody knows of the key
        assert recorded[0][name] == [point for point in recorded[1][name] if point[0] >= first]
        assert not any(value for step, value in recorded[1][name] if step < first)
    assert seldom.progress.best == always.progress.best
    out = capsys.readouterr().out
    assert out.count("have no 'battle_won' in their last info") == 1


def test_what_infos_have_held_goes_through_a_checkpoint(experiment):
    one = experiment(**QMIX, **WINS, save_model=True)
    one.run()
    content = checkpoints.load(one.save())
    assert "battle_won" in content["progress"]["info_keys"]
    two = experiment(**QMIX, **WINS)
    two.load(content, whole=True)
    assert two._summary({"return": [1.0, 2.0]}, "test_")["test_battle_won_mean"] == 0.0


@pytest.mark.parametrize(("stored", "now"), [([], []), ([3.0], [0.0, 3.0]), ([0.5, 3.0], [0.5, 3.0])])
def test_checkpoints_of_before_are_loaded(experiment, stored, now):
    content = experiment(**QMIX)._content(with_episodes=False)
    content["progress"] |= {"best": stored, "since_log": {"return": [1.0, 2.0], "battle_won": [1.0]}}
    del content["progress"]["info_keys"]
    two = experiment(**QMIX)
    two.load(content, whole=True)
    assert two.progress.best == now
    assert two._summary(two.progress.since_log)["battle_won_mean"] == 0.5


def test_an_environments_numbers_never_replace_shoals_own(experiment, caplog):
    plain, clash = experiment(**QMIX), experiment(**QMIX, env_args={"info": "clash"})
    recorded = []
    for one in (plain, clash):
        seed_everything(5)
        one.run()
        recorded.append(one.recorder.points)
    before, after = recorded
    assert {name: after[name] for name in before} == before
    values = {name: after[name][0][1] for name in after if name not in before}
    assert values == {
        f"{prefix}{name}_mean": value
        for prefix in ("", "test_")
        for name, value in {
            "env_return": 7.0,
            "env_env_return": 2.0,
            "env_ep_length": 99.0,
            "env_action_low": 9.0,
            "env_q_taken": 3.0,
            "env_test_return": 5.0,
            "episode_failed": 1.0,
        }.items()
    }
    assert caplog.text.count("'return' is recorded as 'env_return'") == 1


def test_due_counts_from_the_last_time():
    progress = Progress(t_env=30)
    assert progress.due(None, 10**9)
    assert progress.due(20, 10)
    assert not progress.due(21, 10)


# Endings.

FAILING = "env: support.team_env:TeamEnv\nenv_args:\n  raise_at: 2\n"
STUBBORN = "env: support.team_env:TeamEnv\nenv_args:\n  fault: stubborn\n"


def test_a_loss_beyond_all_numbers_ends_the_run_with_a_sentence_and_its_checkpoints(tmp_path, capsys):
    """From the shift on, a reward's square is infinite."""
    payoffs = ["env_args.shift_at=60", "env_args.payoff_after=[[1e30,1e30,1e30],[1e30,1e30,1e30],[1e30,1e30,1e30]]"]
    sizes = ["runner=episode", "batch_size=8", "t_max=300", "save_model_interval=20", "keep_checkpoints=2", "seed=1"]
    args = ["--config=s2q", "--env-config=matrix_game", "with", *payoffs, *sizes, "test_nepisode=1"]
    assert in_process(tmp_path, *args) == 1
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "NaN or infinity in loss" in sentence
    assert "The newest checkpoint is of t_env 60; to resume it: with resume=" in sentence
    (models,) = (tmp_path / "results" / "models").iterdir()
    assert checkpoints.steps_in(models) == [40, 60]
    for file in models.glob("*.pt"):
        assert not list(non_finite_in(checkpoints.load(file)["learner"]))
    assert read_json(tmp_path / "results" / "sacred" / "1" / "run.json")["status"] == "FAILED"


@pytest.mark.filterwarnings("ignore:.*ERROR")
def test_an_environment_that_raises_again_and_again_ends_the_run_with_a_checkpoint(tmp_path, capfd, caplog):
    (tmp_path / "failing.yaml").write_text(FAILING)
    args = ["--config=qmix", "--env-config=failing.yaml", "with", "batch_size_run=2", "max_env_restarts=3"]
    assert in_process(tmp_path, *args) == 1
    assert wait_until(lambda: not workers_of(os.getpid()), 10, "the workers' end")
    err = capfd.readouterr().err
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "failed 3 times in a row (last: RuntimeError: the game fell over)" in sentence
    assert "resume=" in sentence
    assert "Traceback" not in err
    assert caplog.text.count("Traceback") == 1  # the worker's, once
    assert list((tmp_path / "results" / "models").glob("*/*.pt"))
    assert read_json(tmp_path / "results" / "sacred" / "1" / "run.json")["status"] == "FAILED"


FAULTY = """
env: support.team_env:TeamEnv
env_args:
  fault: {fault}
  fault_share: 0.15
  fault_at_start: {at_start}
"""
SHORT = ["runner=episode", "t_max=120", "batch_size=4", "test_nepisode=1", "test_interval=1000", "seed=2"]


@pytest.mark.filterwarnings("ignore:.*ERROR")
@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", "RuntimeError: the game fell over"),
        ("sys_exit", "it called sys.exit(0)"),
        ("keyboard", "KeyboardInterrupt"),
        ("memory", "MemoryError"),
        ("long", "RuntimeError: xxx"),
    ],
)
def test_whatever_an_environment_of_this_process_raises_the_work_is_saved(
    tmp_path, capfd, caplog, fault, words, at_start
):
    (tmp_path / "faulty.yaml").write_text(FAULTY.format(fault=fault, at_start=at_start))
    assert in_process(tmp_path, "--config=qmix", "--env-config=faulty.yaml", "with", *SHORT) == 1
    out, err = capfd.readouterr()
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"the environment failed: {words}" in sentence
    assert re.search(r"error: (In step \d|At the start) of (training|test) episode \d+ \(copy 0, seed \d+\)", sentence)
    assert len(sentence) < 1000
    assert "Traceback" not in out + err
    assert caplog.text.count("Traceback") == 1  # for whoever wrote the environment, once
    run = read_json(tmp_path / "results" / "sacred" / "1" / "run.json")
    assert run["status"] == "FAILED"
    models = Path(sentence.partition("resume=")[2].rstrip("."))
    step = checkpoints.steps_in(tmp_path / models)[-1]
    assert step > 0
    # Mended, it goes on where it was, with the very episode that failed.
    assert in_process(tmp_path, "with", f"resume={models}", "env_args.fault=") == 0
    assert checkpoints.steps_in(tmp_path / models)[-1] >= 120


def test_an_environment_that_leaks_files_leaves_room_for_the_checkpoint(tmp_path, capfd):
    (tmp_path / "leaks.yaml").write_text("env: support.team_env:TeamEnv\nenv_args:\n  fault: leak_files\n")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 80, limits[1]))
    try:
        status = in_process(tmp_path, "--config=qmix", "--env-config=leaks.yaml", "with", *SHORT, "t_max=10000")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        while leaked:
            os.close(leaked.pop())
    assert status == 1
    (sentence,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "Too many open files" in sentence
    assert "resume=" in sentence
    assert list((tmp_path / "results" / "models").glob("*/[0-9]*.pt"))
    assert read_json(tmp_path / "results" / "sacred" / "1" / "run.json")["status"] == "FAILED"


def test_numbers_that_are_not_finite_end_a_run_with_a_checkpoint_and_can_be_dropped(tmp_path, capfd):
    (tmp_path / "nan.yaml").write_text("env: support.team_env:TeamEnv\nenv_args:\n  wrong: obs\n  fault_share: 0.1\n")
    assert in_process(tmp_path, "--config=qmix", "--env-config=nan.yaml", "with", *SHORT, "runner_log_interval=20") == 1
    err = capfd.readouterr().err
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "the observation of agent 1 after step" in sentence
    models = Path(sentence.partition("resume=")[2].rstrip("."))
    saved = checkpoints.load(checkpoints.find(tmp_path / models))
    assert saved["progress"]["t_env"] > 0
    assert all(weights.isfinite().all() for weights in saved["learner"].values() if isinstance(weights, torch.Tensor))
    assert in_process(tmp_path, "with", f"resume={models}", "drop_nonfinite_episodes=True") == 0
    points = curves(tmp_path / "results" / "sacred" / "2")
    assert points["episodes_dropped"][-1][1] > 0
    assert all(math.isfinite(value) for series in points.values() for _, value in series)


def test_an_environment_that_cannot_be_closed_spoils_no_run_that_is_done(tmp_path, monkeypatch, caplog):
    def close(self):
        raise RuntimeError("still busy")

    monkeypatch.setattr(TeamEnv, "close", close)
    (tmp_path / "team.yaml").write_text("env: support.team_env:TeamEnv\n")
    assert in_process(tmp_path, "--config=qmix", "--env-config=team.yaml", "with", *SHORT) == 0
    assert read_json(tmp_path / "results" / "sacred" / "1" / "run.json")["status"] == "COMPLETED"
    assert "Being closed, the environment failed: RuntimeError: still busy." in caplog.messages


def test_an_environment_that_closes_or_replaces_the_output_silences_nobody(tmp_path, monkeypatch, capfd):
    def close(self):
        sys.stdout.close()
        sys.stdout = None

    step = TeamEnv.step
    monkeypatch.setattr(TeamEnv, "step", lambda self, action: (close(self), step(self, action))[1])
    (tmp_path / "team.yaml").write_text("env: support.team_env:TeamEnv\n")
    assert in_process(tmp_path, "--config=qmix", "--env-config=team.yaml", "with", *SHORT) == 0
    out, err = capfd.readouterr()
    assert "test_return_mean" in out
    assert "Traceback" not in err


def test_a_run_outlives_workers_that_die(tmp_path):
    (tmp_path / "faulty.yaml").write_text(
        "env: support.team_env:TeamEnv\nenv_args:\n  fault: exit\n  fault_share: 0.1\n  with_game: true\n"
    )
    args = ["t_max=60", "batch_size_run=2", "batch_size=4", "test_nepisode=2", "test_interval=100", "seed=1"]
    logs = ["runner_log_interval=20", "env_restart_every=8", "save_model=False"]
    assert in_process(tmp_path, "--config=vdn", "--env-config=faulty.yaml", "with", *args, *logs) == 0
    assert wait_until(lambda: not workers_of(os.getpid()), 10, "the workers' end")
    points = curves(tmp_path / "results" / "sacred" / "1")
    assert points["env_restarts"][-1][1] > 0
    assert not any("episode_failed" in name for name in points)


def test_a_run_that_cannot_be_built_leaves_no_process(tmp_path, capsys):
    (tmp_path / "team.yaml").write_text("env: support.team_env:TeamEnv\n")
    args = ["--config=qmix", "--env-config=team.yaml", "with", "batch_size_run=2", f"buffer_size={10**12}"]
    assert in_process(tmp_path, *args) == 1
    assert "lower buffer_size" in capsys.readouterr().err
    assert wait_until(lambda: not workers_of(os.getpid()), 10, "the workers' end")


def test_a_second_ctrl_c_ends_a_run_that_does_not_reach_a_safe_point(tmp_path):
    (tmp_path / "stubborn.yaml").write_text(STUBBORN)
    process = start(tmp_path, "--config=qmix", "--env-config=stubborn.yaml", "with", "runner=episode")
    try:
        out = tmp_path / "out.txt"
        wait_until(lambda: "trained parameters" in out.read_text() or process.poll(), 120, "the start")
        time.sleep(1.0)  # the line above is printed just before the run begins to wait for Ctrl-C
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "err.txt").read_text().splitlines()[-1] == "stopped"
    assert read_json(tmp_path / "results" / "sacred" / "1" / "run.json")["status"] == "INTERRUPTED"


@pytest.mark.parametrize(
    ("env", "runner"),
    [
        ("TeamEnv", ["runner=parallel", "batch_size_run=2"]),
        ("OwnProcess", ["runner=episode"]),
        ("TeamEnv", ["runner=episode"]),
    ],
    ids=["workers", "worker", "here"],
)
def test_a_stop_does_not_wait_for_an_environment_that_hangs(tmp_path, env, runner):
    (tmp_path / "hangs.yaml").write_text(f"env: support.team_env:{env}\nenv_args:\n  fault: hang\n")
    args = [*runner, "env_timeout_s=600"]
    process = start(tmp_path, "--config=qmix", "--env-config=hangs.yaml", "with", *args)
    try:
        out = tmp_path / "out.txt"
        wait_until(lambda: "trained parameters" in out.read_text() or process.poll(), 120, "the start")
        time.sleep(1.0)  # as above
        workers = workers_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert all_gone(workers)
    assert "stopped by SIGTERM; resume with: " in (tmp_path / "err.txt").read_text()
    assert list((tmp_path / "results" / "models").glob("*/0.pt"))
    assert read_json(tmp_path / "results" / "sacred" / "1" / "run.json")["status"] == "INTERRUPTED"


@pytest.mark.parametrize("how", ["session", "orphan"])
def test_what_an_environment_of_this_process_started_dies_with_it(tmp_path, how):
    folder = tmp_path / "pids"
    folder.mkdir()
    (tmp_path / "hiding.yaml").write_text(
        f"env: support.hiding_env:HidingEnv\nenv_args:\n  folder: {folder}\n  how: {how}\n"
    )
    process = start(tmp_path, "--config=qmix", "--env-config=hiding.yaml", "with", "runner=episode")
    try:
        wait_until(lambda: len(list(folder.iterdir())) > 1 or process.poll() is not None, 120, "a process")
        started = [int(path.name) for path in folder.iterdir() if int(path.name) != process.pid]
        games = [psutil.Process(pid) for pid in started]
    finally:
        process.kill()
        process.wait()
    assert games
    assert all_gone(games)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1])
def test_what_a_terminal_or_a_batch_system_sends_stops_a_run_in_order(tmp_path, signum):
    process = start(tmp_path, "--config=qmix", "--env-config=matrix_game", "with", "runner=episode", "batch_size=4")
    try:
        out = tmp_path / "out.txt"
        wait_until(lambda: "test at t_env" in out.read_text() or process.poll(), 120, "the start")
        process.send_signal(signum)
        assert process.wait(60) == 128 + signum
    finally:
        process.kill()
        process.wait()
    assert f"stopped by {signum.name}; resume with: " in (tmp_path / "err.txt").read_text()
    assert read_json(tmp_path / "results" / "sacred" / "1" / "run.json")["status"] == "INTERRUPTED"
    assert list((tmp_path / "results" / "models").glob("*/[0-9]*.pt"))


def test_a_closed_terminal_costs_a_run_nothing_but_its_display(tmp_path):
    """The terminal goes away without a word: whoever writes there gets an error."""
    terminal, inside = os.openpty()
    args = ["--config=qmix", "--env-config=matrix_game", "with", "runner=episode", "save_model_interval=100"]
    command = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", sys.executable, str(MAIN), *args]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=inside, stderr=inside, start_new_session=True
    )
    os.close(inside)
    try:
        seen = ""
        while "test at t_env" not in seen:
            seen += os.read(terminal, 10_000).decode()
        os.close(terminal)
        process.send_signal(signal.SIGHUP)  # ignored, as under nohup
        models = tmp_path / "results" / "models"
        wait_until(lambda: len(list(models.glob("*/[0-9]*.pt"))) == 3 or process.poll() is not None, 60, "checkpoints")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert list((tmp_path / "results" / "models").glob("*/[0-9]*.pt"))
    assert read_json(tmp_path / "results" / "sacred" / "1" / "run.json")["status"] == "INTERRUPTED"


# Memory.

STEPS = """
import psutil
from pathlib import Path
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.utils import checkpoint as checkpoints
from shoal.recording.console import Console
from shoal.utils.finite import non_finite_in
from shoal.recording.logger import Logger
from shoal.utils.signals import Interrupted, StopNow, StopRequest

raw = {
    "env": "support.team_env:VectorisedTeamEnv", "learner": "s2q_learner", "mac": "s2q_mac", "seed": 5,
    "runner": "parallel", "batch_size_run": 16, "batch_size": 16, "buffer_size": 64, "test_nepisode": 16,
    "save_model": False, "runner_log_interval": 500, "learner_log_interval": 500,
}
console = Console(10_000, live=False)
experiment = Experiment(RunSettings(raw, ExperimentSettings), Logger(None, console), console, Path("models"))

def train_until(t_env):
    while experiment.progress.t_env < t_env:
        experiment.step()
        if experiment.progress.due(experiment.progress.last_test, 500):
            experiment._test(StopRequest())
    return psutil.Process().memory_info().rss

warm = train_until(2_000)
end = train_until(10_000)
console.close()
print(warm, end, experiment.progress.t_env)
"""


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    warm, end, t_env = map(int, done.stdout.splitlines()[-1].split())
    assert t_env >= 10_000
    assert end - warm < 30e6
    assert psutil.virtual_memory().total > warm > 50e6  # what was measured is a process, in bytes
