"""A run that was stopped and resumed records what the run that was never stopped records, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from shoal.analysis.starts import read_runs
from shoal.experiment import Experiment
from shoal.recording.logger import Logger
from shoal.recording.series import read_series
from shoal.runners.runner import Runner
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from support.launch import all_gone, curves, environment, in_process, read_json, start, wait_until, workers_of

GAME = ["--env-config=matrix_game_shift", "with", "env_args.shift_at=40", "env_args.time_limit=3"]
SIZES = ["seed=5", "batch_size=4", "buffer_size=12", "test_nepisode=2", "target_update_interval=8"]
LOG = ["test_interval=15", "runner_log_interval=12", "learner_log_interval=12"]
SAVE = ["save_model_interval=24", "save_buffer=True", "keep_checkpoints=0", "keep_buffers=0"]
QUICK = [*SIZES, *LOG, "epsilon_anneal_time=60"]
EPISODE = ["runner=episode"]
VECTORISED = ["runner=parallel", "batch_size_run=2"]
PARALLEL = [*VECTORISED, "env=support.plain_game:PlainMatrixGame"]


def models_in(folder):
    (models,) = (folder / "results" / "models").iterdir()
    return models


def sacred(folder, run=1):
    return folder / "results" / "sacred" / str(run)


def cut_back(models, to, step):
    """A copy of the checkpoints as they were when ``step`` was the newest."""
    copy = Path(shutil.copytree(models, to))
    for later in checkpoints.steps_in(copy):
        if later > step:
            (copy / f"{later}.pt").unlink()
    return copy


def assert_same_from(step, whole, resumed):
    """Every point recorded after ``step``, by name, step and value."""
    expected = curves(whole, after=step)
    assert curves(resumed) == expected
    assert len(expected["loss_td"]) >= 3
    assert len(expected["test_return_mean"]) >= 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that were never stopped, made when first asked for: the folders they ran in."""
    folders = {}

    def run(alg, runner, t_max):
        key = (alg, *runner, t_max)
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("whole")
            name, *options = alg.split()
            args = [f"--config={name}", *GAME, *QUICK, *SAVE, *runner, f"t_max={t_max}", *options]
            args += ["breakpoint=60"] if name.endswith("_cadp") else []
            assert in_process(folders[key], *args) == 0
        return folders[key]

    return run


@pytest.mark.parametrize(
    ("alg", "runner", "step"),
    [
        ("s2q", EPISODE, 24),
        ("s2q", EPISODE, 72),
        ("s2q", PARALLEL, 48),
        ("s2q", VECTORISED, 48),
        ("qmix", EPISODE, 48),
        ("s2q_cadp", EPISODE, 48),
        ("qmix_cadp", PARALLEL, 48),
        ("s2q normalise_inputs=True", EPISODE, 48),
        ("qmix normalise_inputs=True standardise_rewards=True standardise_returns=True", PARALLEL, 48),
    ],
)
def test_going_on_from_a_checkpoint_is_going_on(tmp_path, whole, alg, runner, step):
    folder = whole(alg, runner, 120)
    models = cut_back(models_in(folder), tmp_path / "models", step)
    assert checkpoints.steps_in(models)[-1] == step
    assert in_process(tmp_path, "with", f"resume={models}") == 0
    assert_same_from(step, sacred(folder), sacred(tmp_path))
    assert checkpoints.steps_in(models) == checkpoints.steps_in(models_in(folder))
    ours, theirs = (checkpoints.load(checkpoints.find(m)) for m in (models, models_in(folder)))
    for name, weights in theirs["learner"].items():
        if isinstance(weights, torch.Tensor):
            assert weights.equal(ours["learner"][name]), name
    assert ours["progress"] == theirs["progress"]


def test_a_checkpoint_with_names_of_before_goes_on(tmp_path, whole, capsys):
    folder = whole("s2q", EPISODE, 120)
    models = cut_back(models_in(folder), tmp_path / "models", 72)
    newest = checkpoints.find(models)
    content = torch.load(newest, weights_only=False)
    content["config"]["env_args"]["episode_limit"] = content["config"]["env_args"].pop("time_limit")
    torch.save(content, newest)
    note = "env_args.episode_limit=3 in checkpoint is called env_args.time_limit=3 here"
    tested = tmp_path / "tested"
    tested.mkdir()
    assert in_process(tested, "with", f"checkpoint_path={models}", "evaluate=True") == 0
    assert note in capsys.readouterr().err
    assert in_process(tmp_path, "with", f"resume={models}") == 0
    assert note in capsys.readouterr().err
    assert_same_from(72, sacred(folder), sacred(tmp_path))
    assert read_json(sacred(tmp_path) / "config.json")["env_args"]["time_limit"] == 3


def test_a_resumed_run_can_be_resumed(tmp_path, whole):
    folder = whole("s2q", EPISODE, 120)
    models = cut_back(models_in(folder), tmp_path / "models", 24)
    assert in_process(tmp_path, "with", f"resume={models}") == 0
    for later in (72, 96, 120):
        (models / f"{later}.pt").unlink()
    assert in_process(tmp_path, "with", f"resume={sacred(tmp_path)}") == 0
    assert_same_from(48, sacred(folder), sacred(tmp_path, 2))
    first, second = sacred(tmp_path), sacred(tmp_path, 2)
    said = [read_json(record / "info.json")["resumed"] for record in (first, second)]
    assert [(one["t_env"], one["start"]) for one in said] == [(24, 1), (48, 2)]
    assert said[1]["record"] == read_json(first / "run.json")["meta"]["uid"]


def at_the_gate(folder, *args):
    """A run that has come to where its environments wait, behind a checkpoint: to be ended at leisure."""
    (folder / "gate").touch()
    process = start(folder, *args, "env=support.plain_game:GatedMatrixGame")
    wait_until(lambda: list(folder.glob("results/models/*/120.pt")) or process.poll() is not None, 240, "the gate")
    assert process.poll() is None, (folder / "err.txt").read_text()
    return process


def points_of(run):
    return {name: (steps.tolist(), values.tolist()) for name, (steps, values) in run.metrics.items()}


def assert_one_record(whole, *parts):
    """The records of a run's starts, joined, hold what the record of the ``whole`` run holds, point for point."""
    (expected,), (run,) = read_runs([whole]), read_runs(list(parts))
    assert points_of(run) == points_of(expected)
    assert len(expected.metrics["test_return_mean"][0]) >= 3


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path, whole):
    process = at_the_gate(tmp_path, "--config=s2q", *GAME, *QUICK, *SAVE, *VECTORISED, "t_max=240")
    try:
        workers = workers_of(process.pid)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert len(workers) == 2
    assert all_gone(workers, 30)
    assert all_gone(children, 30)
    assert checkpoints.steps_in(models_in(tmp_path))[-1] == 120
    assert read_json(sacred(tmp_path) / "run.json")["status"] == "RUNNING"

    (tmp_path / "gate").unlink()
    assert in_process(tmp_path, "with", f"resume={sacred(tmp_path)}") == 0
    assert_one_record(sacred(whole("s2q", PARALLEL, 240)), sacred(tmp_path, 1), sacred(tmp_path, 2))
    assert read_json(sacred(tmp_path, 2) / "run.json")["status"] == "COMPLETED"


def test_a_checkpoint_is_put_in_its_place_when_the_record_holds_all_that_came_before(tmp_path, monkeypatch):
    """Whatever kills the run then, at once or later."""
    logged, seen = [], []
    log, write = Logger.log, checkpoints.write

    def logging(self, metrics, t_env):
        log(self, metrics, t_env)
        logged.extend((name, t_env) for name in metrics)

    def writing(content, path):
        recorded = [(name, s) for name, series in read_series(sacred(tmp_path)).items() for s in series["steps"]]
        assert sorted(recorded) == sorted(logged)
        seen.append((path.name, len(recorded)))
        return write(content, path)

    monkeypatch.setattr(Logger, "log", logging)
    monkeypatch.setattr(checkpoints, "write", writing)
    assert in_process(tmp_path, "--config=s2q", *GAME, *QUICK, *SAVE, *EPISODE, "t_max=60") == 0
    assert {"24.pt", "48.pt", "60.pt", "best.pt"} <= {name for name, _ in seen}
    assert seen[-1][1] > seen[0][1] > 0


def test_a_run_that_is_stopped_while_it_starts_is_recorded_so(tmp_path):
    args = ["--config=iql", "--env-config=matrix_game", "with", "env=support.slow_start:SlowStart", "runner=episode"]
    process = start(tmp_path, *args)
    try:
        wait_until(lambda: (tmp_path / "starting").exists(), 120, "the environment to start")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.wait()
    assert "stopped by SIGTERM; no checkpoint was saved" in (tmp_path / "err.txt").read_text()
    assert read_json(sacred(tmp_path) / "run.json")["status"] == "INTERRUPTED"


@pytest.mark.parametrize("moment", ["as soon as there is a record", "when it has ended and is being reported"])
def test_sigterm_outside_of_the_loop_is_recorded_too(tmp_path, moment):
    code = {
        "as soon as there is a record": "from shoal.recording import provenance; provenance.git_commit = wait",
        "when it has ended and is being reported": "from shoal.analysis import curves; curves.draw_run = wait",
    }[moment]
    (tmp_path / "started.py").write_text(
        "import sys, time, pathlib\n"
        "def wait(*args):\n    pathlib.Path('waiting').touch()\n    time.sleep(600)\n"
        f"{code}\n"
        "from shoal.command_line.main import main\n"
        "sys.exit(main(['src/main.py', *sys.argv[1:]]))\n"
    )
    args = ["--config=vdn", "--env-config=matrix_game", "with", *EPISODE, "t_max=20", "seed=1", "test_nepisode=1"]
    with open(tmp_path / "err.txt", "w") as err:
        process = subprocess.Popen(
            [sys.executable, "started.py", *args], cwd=tmp_path, env=environment(), stderr=err, stdout=err
        )
    try:
        wait_until(lambda: (tmp_path / "waiting").exists() or process.poll() is not None, 240, "that moment")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143, (tmp_path / "err.txt").read_text()
    finally:
        process.kill()
        process.wait()
    assert read_json(sacred(tmp_path) / "run.json")["status"] == "INTERRUPTED"


@pytest.mark.parametrize(
    ("signum", "runner", "status"),
    [(signal.SIGINT, VECTORISED, 130), (signal.SIGTERM, EPISODE, 143)],
)
def test_a_run_that_was_asked_to_stop_saves_and_goes_on_later(tmp_path, whole, signum, runner, status):
    process = at_the_gate(tmp_path, "--config=s2q", *GAME, *QUICK, *SAVE, *runner, "t_max=240")
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(workers_of(process.pid)) == (2 if runner is VECTORISED else 0)
        process.send_signal(signum)
        (tmp_path / "gate").unlink()
        assert process.wait(240) == status
    finally:
        process.kill()
        process.wait()
    assert all_gone(children)
    errors = (tmp_path / "err.txt").read_text()
    assert "Traceback" not in errors
    (sentence,) = [line for line in errors.splitlines() if line.startswith("stopped")]
    folder = models_in(tmp_path).relative_to(tmp_path)
    assert sentence == f"stopped by {signum.name}; resume with: python src/main.py with resume={folder}"
    record = sacred(tmp_path)
    assert read_json(record / "run.json")["status"] == "INTERRUPTED"
    step = checkpoints.steps_in(models_in(tmp_path))[-1]
    assert 120 < step < 130
    assert max(s for points in curves(record).values() for s, _ in points) <= step
    assert f"stopped at t_env {step} of 240" in (tmp_path / "out.txt").read_text()
    assert f"{models_in(tmp_path).name}/{step}.pt" in (record / "cout.txt").read_text()

    assert in_process(tmp_path, "with", f"resume={record}") == 0
    same = PARALLEL if runner is VECTORISED else runner
    assert_one_record(sacred(whole("s2q", same, 240)), record, sacred(tmp_path, 2))


def test_a_run_goes_on_from_what_is_kept(tmp_path, whole):
    args = ["--config=s2q", *GAME, *QUICK, *EPISODE, "save_model_interval=24", "save_buffer=True", "keep_buffers=2"]
    assert in_process(tmp_path, *args, "t_max=81") == 0
    models = models_in(tmp_path)
    assert checkpoints.steps_in(models) == [48, 72, 81]
    episodes = [checkpoints.load(models / f"{step}.pt")["buffer"]["episodes"] for step in (48, 72, 81)]
    assert [one is None for one in episodes] == [True, False, False]
    # One with its memory goes on as if nothing had happened, one without and the best with an empty memory.
    assert in_process(tmp_path, "with", f"resume={cut_back(models, tmp_path / 'models', 72)}", "t_max=120") == 0
    assert_same_from(72, sacred(whole("s2q", EPISODE, 120)), sacred(tmp_path, 2))
    for number, kept in ((3, models / "48.pt"), (4, models / checkpoints.BEST)):
        assert in_process(tmp_path, "with", f"resume={kept}", "t_max=60") == 0
        assert read_json(sacred(tmp_path, number) / "run.json")["status"] == "COMPLETED"


def test_without_the_memory_a_run_goes_on_from_an_empty_one(tmp_path):
    (tmp_path / "models").mkdir()
    args = ["--config=s2q", *GAME, *QUICK, *EPISODE, "t_max=60", "save_model_interval=24"]
    assert in_process(tmp_path, *args) == 0
    models = cut_back(models_in(tmp_path), tmp_path / "models" / "cut", 24)
    before = checkpoints.load(models / "24.pt")
    assert before["buffer"]["episodes"] is None
    assert before["learner"]["n_updates"] == 5  # 8 episodes, of which the first 3 were too few
    assert in_process(tmp_path, "with", f"resume={models}") == 0
    after = checkpoints.load(models / "60.pt")
    assert after["progress"]["episode"] == 20
    assert after["learner"]["n_updates"] == 5 + 9  # 12 more episodes, the first 3 too few again


def test_a_finished_run_goes_on_to_a_later_end(tmp_path, whole):
    shutil.copytree(whole("s2q", EPISODE, 120) / "results", tmp_path / "results")
    models = models_in(tmp_path)
    note = sacred(tmp_path) / "model_dir.txt"
    note.write_text(f"{models}\n")
    assert in_process(tmp_path, "with", f"resume={sacred(tmp_path)}", "t_max=180") == 0
    points = curves(sacred(tmp_path, 2))
    assert min(step for series in points.values() for step, _ in series) > 120
    assert points["test_return_mean"][-1][0] == 180
    assert checkpoints.steps_in(models)[-1] == 180
    config = read_json(sacred(tmp_path, 2) / "config.json")
    assert (config["t_max"], config["seed"]) == (180, 5)


def test_a_finished_run_resumed_as_it_is_does_nothing_twice(tmp_path, whole, capsys):
    models = Path(shutil.copytree(models_in(whole("s2q", EPISODE, 120)), tmp_path / "models"))
    capsys.readouterr()
    before = (models / "120.pt").read_bytes()
    assert in_process(tmp_path, "with", f"resume={models}") == 0
    assert curves(sacred(tmp_path)) == {}
    assert (models / "120.pt").read_bytes() == before
    last = curves(sacred(whole("s2q", EPISODE, 120)))["test_return_mean"][-1][1]
    assert read_json(sacred(tmp_path) / "run.json")["result"] == last  # what its last test measured, still


MOMENTS = ["before the test", "in the test", "before the checkpoint", "after the checkpoint", "in the absolute test"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_run_that_ends_around_its_last_test_plays_that_test_once(tmp_path, monkeypatch, moment, how):
    """Joined, the records of both starts are the record of the run that nothing has stopped, point for point."""
    args = ["--config=vdn", *GAME, *QUICK, *SAVE, *EPISODE, "t_max=60", "absolute_test_nepisode=4"]
    (tmp_path / "whole").mkdir()
    assert in_process(tmp_path / "whole", *args) == 0

    with monkeypatch.context() as patch:
        cut_at_the_end(patch, moment, how)
        assert in_process(tmp_path, *args) == {"killed": 1, "stopped": 143}[how]
    steps = checkpoints.steps_in(models_in(tmp_path))
    assert in_process(tmp_path, "with", f"resume={models_in(tmp_path)}") == 0
    assert_one_record(sacred(tmp_path / "whole"), sacred(tmp_path, 1), sacred(tmp_path, 2))
    again = curves(sacred(tmp_path, 2)).get("test_return_mean", [])
    assert [step for step, _ in again] == ([60] if MOMENTS.index(moment) < (3 if how == "killed" else 2) else [])
    assert (steps[-1] == 60) is (how == "stopped" or MOMENTS.index(moment) > 2)
    assert checkpoints.steps_in(models_in(tmp_path)) == checkpoints.steps_in(models_in(tmp_path / "whole"))


def cut_at_the_end(patch, moment, how):
    """Have the run end at this moment of step 60: like a kill (nothing is saved), or asked by SIGTERM."""

    def end(experiment):
        if experiment.progress.t_env < 60:
            return
        if how == "killed":
            raise UserError("the end")
        os.kill(os.getpid(), signal.SIGTERM)

    here = {}

    def before(name, condition=lambda self: True):
        original = getattr(Experiment, name)

        def ending(self, *args, **kwargs):
            if condition(self):
                end(self)
            return original(self, *args, **kwargs)

        patch.setattr(Experiment, name, ending)

    def in_an_episode_of(name):
        original, run = getattr(Experiment, name), Runner.run

        def begin(self, *args):
            here["experiment"] = self
            return original(self, *args)

        def running(self, *args, **kwargs):
            rollout = run(self, *args, **kwargs)
            if here:
                end(here["experiment"])
            return rollout

        patch.setattr(Experiment, name, begin)
        patch.setattr(Runner, "run", running)

    if moment == "before the test":
        before("_test")
    elif moment == "in the test":
        in_an_episode_of("_test")
    elif moment == "before the checkpoint":
        before("save", condition=lambda self: self.progress.last_save < 60)
    elif moment == "after the checkpoint":
        before("_absolute_test")
    else:
        in_an_episode_of("_absolute_test")


def test_one_file_of_checkpoints_can_be_resumed(tmp_path, whole):
    models = Path(shutil.copytree(models_in(whole("s2q", EPISODE, 120)), tmp_path / "models"))
    assert in_process(tmp_path, "with", f"resume={models}/96.pt") == 0
    assert_points = curves(sacred(whole("s2q", EPISODE, 120)), after=96)
    assert curves(sacred(tmp_path)) == assert_points


@pytest.mark.slow
def test_battles_go_on_as_if_they_had_not_stopped(tmp_path):
    folder = tmp_path / "whole"
    folder.mkdir()
    battle = ["env_args.map_name=3m", "env_args.time_limit=20", "batch_size_run=4", "t_max=900"]
    sizes = ["seed=5", "batch_size=8", "buffer_size=16", "test_nepisode=4", "save_model_interval=300"]
    args = ["--config=s2q", "--env-config=smax", "with", *battle, *sizes, "test_interval=150", *LOG[1:]]
    assert in_process(folder, *args, *SAVE[1:]) == 0
    first = next(step for step in checkpoints.steps_in(models_in(folder)) if step > 0)
    models = cut_back(models_in(folder), tmp_path / "models", first)
    assert in_process(tmp_path, "with", f"resume={models}") == 0
    assert_same_from(first, sacred(folder), sacred(tmp_path))
