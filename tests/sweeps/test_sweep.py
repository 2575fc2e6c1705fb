"""python src/sweep.py: whole sweeps through Ray, killed, stopped, failed and gone on with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shoal.sweeps import child
from shoal.sweeps.cli import main
from shoal.utils import checkpoint as checkpoints
from support.launch import MAIN, all_gone, environment, read_json, wait_until

SWEEP = MAIN.with_name("sweep.py")
TEAM = """
env: support.team_env:TeamEnv
env_args: {step_s: 0.01, episode_limit: 6}
"""
SIZES = ["runner=episode", "batch_size=4", "buffer_size=40", "test_nepisode=2", "t_max=400", "use_cuda=False"]
OFTEN = ["test_interval=100", "save_model_interval=50", "runner_log_interval=50", "learner_log_interval=50"]


def start(cwd, *args):
    """``python src/sweep.py ARGS`` in a session of its own, its output in cwd/out.txt and cwd/err.txt."""
    (cwd / "team.yaml").write_text(TEAM)
    with open(cwd / "out.txt", "a") as out, open(cwd / "err.txt", "a") as err:
        return subprocess.Popen(
            [sys.executable, str(SWEEP), *args],
            cwd=cwd,
            env=environment(),
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def below(process):
    return psutil.Process(process.pid).children(recursive=True)


def run_processes(process):
    """Run name -> its process, of those that are at work."""
    found = {}
    for one in below(process):
        try:
            words = one.cmdline()
        except psutil.Error:
            continue
        if child.__name__ in words:
            found[Path(words[words.index(child.__name__) + 1]).name] = one
    return found


def runs(cwd):
    (folder,) = (cwd / "results" / "sweeps").iterdir()
    return {path.name: path for path in sorted((folder / "runs").iterdir())}


def statuses(run):
    return [read_json(path / "run.json")["status"] for path in sorted((run / "sacred").glob("[0-9]*"))]


def steps_of(run):
    models = list((run / "models").glob("*"))
    return [step for path in models for step in checkpoints.steps_in(path)]


def in_process(cwd, *args):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        return main(["src/sweep.py", *args])


def again(cwd, capsys):
    """The command that the sweep says goes on with it, without the program."""
    (line,) = [line for line in (cwd / "out.txt").read_text().splitlines() if "resume with: " in line]
    return line.partition("resume with: python src/sweep.py ")[2].split()


@pytest.mark.slow
def test_a_killed_run_is_started_again_and_a_finished_sweep_runs_nothing(tmp_path, capsys):
    args = ["--configs=iql,qmix", "--env-configs=team.yaml", "--seeds=2", "with", *SIZES, *OFTEN]
    process = start(tmp_path, *args)
    try:
        victim = wait_until(
            lambda: next((n for n, p in run_processes(process).items() if steps_of(runs(tmp_path)[n])), None),
            600,
            "a checkpoint",
        )
        run_processes(process)[victim].kill()
        started = below(process)
        assert process.wait(900) == 0, (tmp_path / "err.txt").read_text()
    finally:
        process.kill()
        process.wait()
    assert all_gone(started, 60)
    found = runs(tmp_path)
    assert sorted(found) == [f"{alg}_team_seed{seed}" for alg in ("iql", "qmix") for seed in (0, 1)]
    for name, run in found.items():
        assert statuses(run) == (["RUNNING", "COMPLETED"] if name == victim else ["COMPLETED"])
        assert max(steps_of(run)) >= 400
        config = read_json(run / "sacred" / "1" / "config.json")
        assert (config["name"], config["seed"]) == (name.partition("_")[0], int(name[-1]))
    second = read_json(found[victim] / "sacred" / "2" / "metrics.json")
    assert min(second["episode"]["steps"]) > 50  # it did not begin again
    out = (tmp_path / "out.txt").read_text()
    assert f"failed    {victim}: killed by SIGKILL; restarted from its checkpoint at " in out
    report = tmp_path / "results" / "sweeps" / "iql_qmix_team" / "report.html"
    assert "iql" in report.read_text()
    report.unlink()

    assert in_process(tmp_path, *args) == 0
    assert "all 4 runs were finished before" in capsys.readouterr().out
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert report.is_file()
    assert {name: len(statuses(run)) for name, run in found.items()} == {n: 1 + (n == victim) for n in found}


@pytest.mark.slow
def test_ctrl_c_stops_all_runs_with_checkpoints_and_the_same_command_goes_on(tmp_path, capsys):
    args = ["--configs=iql", "--env-configs=team.yaml", "--seeds=3", "--name=some", "--jobs=2", "with", *SIZES, *OFTEN]
    process = start(tmp_path, *args)
    try:
        wait_until(
            lambda: len([r for r in run_processes(process) if steps_of(runs(tmp_path)[r])]) == 2, 600, "checkpoints"
        )
        started = below(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(300) == 130
    finally:
        process.kill()
        process.wait()
    assert all_gone(started, 60)
    assert "Traceback" not in (tmp_path / "err.txt").read_text()
    found = runs(tmp_path)
    assert [statuses(run) for run in found.values()] == [["INTERRUPTED"], ["INTERRUPTED"], []]
    steps = [max(steps_of(run)) for run in list(found.values())[:2]]
    assert "stopped by SIGINT with 3 runs to do" in (tmp_path / "out.txt").read_text()
    assert not list(tmp_path.glob("results/sweeps/some/report*"))

    process = start(tmp_path, *again(tmp_path, capsys))
    assert process.wait(900) == 0
    assert [statuses(run) for run in found.values()] == [["INTERRUPTED", "COMPLETED"]] * 2 + [["COMPLETED"]]
    for step, run in zip(steps, found.values(), strict=False):
        metrics = read_json(run / "sacred" / "2" / "metrics.json")
        assert min(min(series["steps"]) for series in metrics.values()) > step


@pytest.mark.slow
def test_runs_that_fail_for_good_are_reported_and_take_no_other_with_them(tmp_path):
    (tmp_path / "grid.yaml").write_text("env_args.raise_at: [null, 0]\n")
    args = ["--configs=iql", "--env-configs=team.yaml", "--seeds=1", "--grid=grid.yaml", "--retries=1"]
    process = start(tmp_path, *args, "with", *SIZES, "t_max=60", "save_model=False")
    assert process.wait(900) == 1
    found = {name: statuses(run) for name, run in runs(tmp_path).items()}
    assert found == {"iql_team_raise_at0_seed0": ["FAILED"] * 2, "iql_team_raise_atNone_seed0": ["COMPLETED"]}
    errors = (tmp_path / "err.txt").read_text()
    assert "failed: iql_team_raise_at0_seed0: error: In step 1 of " in errors
    assert "the game fell over" in errors
    assert "(its output: " in errors
    assert "1 of 2 runs failed; fix the cause, then: python src/sweep.py --configs=iql " in errors
    assert (tmp_path / "results" / "sweeps" / "iql_team" / "report.html").is_file()


@pytest.mark.slow
def test_a_search_tries_settings_and_writes_the_best(tmp_path, capsys):
    (tmp_path / "space.yaml").write_text("lr: {low: 1e-4, high: 1e-2, log: true}\nmixer: [vdn, qmix]\n")
    args = ["--configs=qmix", "--env-configs=team.yaml", "--seeds=1", "--optuna", "trials=3", "space=space.yaml"]
    process = start(tmp_path, *args, "with", *SIZES, "t_max=60", "test_interval=20")
    assert process.wait(900) == 0, (tmp_path / "err.txt").read_text()
    found = runs(tmp_path)
    assert sorted(found) == [f"qmix_team_trial00{n}_seed0" for n in range(3)]
    rates = {read_json(run / "sacred" / "1" / "config.json")["lr"] for run in found.values()}
    assert len(rates) == 3
    folder = tmp_path / "results" / "sweeps" / "qmix_team_search"
    assert "lr:" in (folder / "best.yaml").read_text()
    assert "best settings" in (tmp_path / "out.txt").read_text()
    assert (folder / "report.html").is_file()

    best = (folder / "best.yaml").read_text()
    assert in_process(tmp_path, *args, "with", *SIZES, "t_max=60", "test_interval=20") == 0
    assert "all 3 trials were finished before" in capsys.readouterr().out
    assert (folder / "best.yaml").read_text() == best
    assert [statuses(run) for run in runs(tmp_path).values()] == [["COMPLETED"]] * 3


# The command line.

GAME = ["--configs=qmix", "--env-configs=matrix_game"]
REFUSED = {
    "nothing": ([], "--configs"),
    "unknown algorithm": (["--configs=qmx", "--env-configs=matrix_game"], "'qmix'"),
    "unknown option": ([*GAME, "--sedes=3"], "--sedes"),
    "unknown setting": ([*GAME, "with", "bacth_size=3"], "'batch_size'"),
    "a seed for all": ([*GAME, "with", "seed=3"], "--seeds"),
    "a word without value": ([*GAME, "with", "seed"], "seed"),
    "an algorithm twice": (["--configs=qmix,qmix", "--env-configs=matrix_game"], "qmix_matrix_game_seed0"),
    "no space": ([*GAME, "--optuna", "trials=3"], "space=space.yaml"),
    "missing grid": ([*GAME, "--grid=no.yaml"], "no.yaml"),
    "a name that is no folder": ([*GAME, "--name=a/b"], "--name"),
    "negative": ([*GAME, "--jobs=-1"], "negative"),
    "nothing set aside": ([*GAME, "--cpus-per-run=0"], "--gpus-per-run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_before_anything_starts(tmp_path, capsys, case):
    args, word = REFUSED[case]
    assert in_process(tmp_path, *args) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert word in line
    assert not list(tmp_path.iterdir())


def test_grid_or_search_but_not_both_and_one_algorithm_for_a_search(tmp_path, capsys):
    (tmp_path / "space.yaml").write_text("lr: [0.1, 0.2]\n")
    search = ["--env-configs=matrix_game", "--optuna", "trials=3", "space=space.yaml"]
    assert in_process(tmp_path, "--configs=qmix", *search, "--grid=space.yaml") == 1
    assert in_process(tmp_path, "--configs=qmix,iql", *search) == 1
    both, two = capsys.readouterr().err.splitlines()
    assert "--optuna and --grid exclude each other" in both
    assert "one algorithm, not of 2" in two


def test_a_dry_run_names_the_runs_and_starts_nothing(tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text("lr: [0.001, 0.002]\n")
    args = ["--configs=qmix", "--env-configs=smax", "--maps=3m,2s3z", "--seeds=1", "--grid=grid.yaml", "--dry-run"]
    assert in_process(tmp_path, *args) == 0
    names = [f"qmix_smax_{m}_lr{lr}_seed0" for m in ("3m", "2s3z") for lr in ("0.001", "0.002")]
    assert capsys.readouterr().out.splitlines() == names
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


def test_a_cluster_that_is_not_there_is_named(tmp_path, capsys):
    args = [*GAME, "--seeds=1", "--address=127.0.0.1:1"]
    assert in_process(tmp_path, *args) == 1
    assert "No Ray cluster can be used at '127.0.0.1:1'" in capsys.readouterr().err
