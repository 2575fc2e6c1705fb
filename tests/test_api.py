"""Shoal from Python: the command line's numbers, call by call, and nothing left behind."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch

import shoal
from shoal.modules.mixers.vdn import VDNMixer
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from shoal.utils.signals import Interrupted
from support.launch import curves, environment, in_process, read_json
from support.team_env import TeamEnv
from support.watching import Watch

GAME = {
    "runner": "episode",
    "seed": 3,
    "t_max": 20,
    "batch_size": 4,
    "buffer_size": 16,
    "test_interval": 10,
    "test_nepisode": 2,
    "runner_log_interval": 5,
    "learner_log_interval": 5,
    "save_model_interval": 10,
    "save_buffer": True,
}
PAYOFF = [[8, 0, -12], [0, 6, 0], [-12, 0, 6]]


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    """Runs write below the folder that they are started in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def by_command(tmp_path_factory):
    """The folder in which the command line has trained GAME."""
    folder = tmp_path_factory.mktemp("command")
    words = [f"{key}={value}" for key, value in GAME.items()]
    payoff = f"env_args.payoff={PAYOFF}"
    assert in_process(folder, "--config=qmix", "--env-config=matrix_game", "with", *words, payoff) == 0
    return folder / "results" / "sacred" / "1"


def make(**changes):
    return shoal.make("qmix", "matrix_game", **(GAME | {"payoff": PAYOFF} | changes))


def test_importing_shoal_is_quick_and_brings_nothing_heavy():
    code = (
        "import sys, time; start = time.process_time(); import shoal; shoal.__version__\n"
        "heavy = {'torch', 'jax', 'ray', 'pandas', 'sacred', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert time.process_time() - start < 0.3\n"
        "assert {'make', 'resume', 'load_team', 'Run'} <= set(dir(shoal))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=120)


def test_a_run_is_the_command_lines_bit_for_bit(by_command):
    with make() as run:
        random.random(), np.random.rand(), torch.randn(3)  # the program's own
        result = run.train()
        assert run.t_env == 20
    assert curves(run.record) == curves(by_command)
    ours, theirs = read_json(run.record / "config.json"), read_json(by_command / "config.json")
    assert ours == theirs
    names = {path.name for path in by_command.iterdir()}
    assert {path.name for path in run.record.iterdir()} == names
    ours, theirs = read_json(run.record / "run.json"), read_json(by_command / "run.json")
    assert ours.keys() == theirs.keys()
    assert (ours["status"], ours["result"]) == ("COMPLETED", theirs["result"])
    assert ours["experiment"]["name"] == theirs["experiment"]["name"] == "qmix"
    assert set(ours["artifacts"]) == set(theirs["artifacts"])
    assert result["test_return_mean"] == curves(by_command)["test_return_mean"][-1][1]
    printed = (run.record / "cout.txt").read_text()
    assert "test at t_env 0:" in printed
    assert "finished at t_env 20 of 20" in printed


def test_tests_and_what_a_program_draws_leave_a_run_as_it_is(by_command):
    torch.manual_seed(1)
    with make() as run:
        drawn = torch.rand(3)
        assert run.test(8).keys() == run.test(3).keys() == run.test(1).keys()
        run.train()
        after = run.test(2)
        assert run.test(2) == after
        assert torch.equal(torch.rand(3), torch.manual_seed(1) and torch.rand(6)[3:])
    assert curves(run.record) == curves(by_command)
    assert torch.equal(drawn, torch.manual_seed(1) and torch.rand(3))


def test_steps_learn_what_training_learns(by_command):
    """``step`` tests nothing; what is learnt is the same, and ``train`` goes on from there."""
    with make() as run:
        for t_env in range(1, 8):
            run.step()
            assert run.t_env == t_env
        run.train()
        assert "learning_curve.png" in {path.name for path in run.record.iterdir()}
    ours, theirs = curves(run.record), curves(by_command)
    assert ours["loss_td"] == theirs["loss_td"]
    assert ours["return_mean"] == theirs["return_mean"]
    last = checkpoints.load(by_command.parents[1] / "models" / model_dir(by_command) / "20.pt")["learner"]
    for name, value in run.learner.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert value.equal(last[name]), name


def model_dir(record):
    return read_json(record / "info.json")["model_dir"].rpartition("/")[2]


def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(by_command):
    with make() as run:
        for _ in range(12):
            run.step()
        saved = run.save()
        assert saved.name == "12.pt"
        for _ in range(2):
            run.step()
    assert read_json(run.record / "run.json")["status"] == "INTERRUPTED"
    with shoal.resume(run.record) as later:
        assert later.t_env == 12
        assert later.settings["env_args"]["payoff"] == PAYOFF
        later.train()
    expected = {name: [p for p in points if p[0] > 12] for name, points in curves(by_command).items()}
    found = curves(later.record, after=12)
    assert found["loss_td"] == expected["loss_td"]
    assert found["return_mean"] == expected["return_mean"]
    with pytest.raises(UserError, match="There is no checkpoint"):
        shoal.resume("nowhere")


def test_settings_are_checked_and_find_their_place():
    with make(callbacks=["support.watching:Watch"], record=False) as run:
        assert run.settings["env_args"]["payoff"] == PAYOFF
        assert run.settings["callbacks"] == ["support.watching:Watch"]
        assert run.record is None
        assert "qmix on matrix_game, t_env 0 of 20" in repr(run)
        run.settings["t_max"] = 3
        assert run.settings["t_max"] == 20
        run.step()
        assert [hook for hook, _, _ in Watch.events] == ["start", "rollout"]
    assert Watch.events[-1] == ("end", 1, None)
    for changes, sentence in [
        ({"lrr": 1}, "did you mean 'lr'"),
        ({"env_args": {"payof": 1}}, "did you mean 'env_args.payoff'"),
        ({"env_args": 3}, "env_args must be a mapping"),
        ({"lr": "fast"}, "lr='fast' has the wrong type"),
        ({"lr": VDNMixer}, "lr=VDNMixer: no class belongs there"),
        ({"callbacks": ["support.watching:Nobody"]}, "support.watching:Nobody cannot be loaded"),
    ]:
        with pytest.raises(UserError, match=sentence):
            make(**changes)
    with pytest.raises(UserError, match="qmixx"):
        shoal.make("qmixx", "matrix_game")


class OwnMixer(VDNMixer):
    """VDN under another name."""


def test_components_are_given_as_classes():
    class Hidden(VDNMixer):
        pass

    with pytest.raises(UserError, match="define the class at the top level"):
        make(mixer=Hidden)
    with make(mixer=VDNMixer, record=False) as run:
        assert run.settings["mixer"] == "vdn"
    small = {key: GAME[key] for key in ("runner", "seed", "t_max", "batch_size", "buffer_size")}
    with shoal.make("qmix", TeamEnv, mixer=OwnMixer, **small) as run:
        assert type(run.learner.mixer) is OwnMixer
        assert run.settings["mixer"] == "test_api:OwnMixer"
        assert run.settings["env"] == "support.team_env:TeamEnv"
        run.step()
        run.save()
    with shoal.resume(run.record) as later:
        assert type(later.learner.mixer) is OwnMixer


def test_a_checkpoint_is_loaded_once_whatever_changes(monkeypatch):
    """Also where settings of the environment change, which are sorted by what the checkpoint says."""
    with make() as run:
        run.train()
    loaded, load = [], checkpoints.load
    monkeypatch.setattr(checkpoints, "load", lambda file: loaded.append(file) or load(file))
    payoff = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    with shoal.resume(run.record, payoff=payoff, t_max=40) as later:
        assert later.settings["env_args"]["payoff"] == payoff
        assert later.t_env == 20
    assert len(loaded) == 1
    newest = loaded.pop()
    with make(checkpoint_path=str(newest)) as other:
        assert other.settings["env_args"]["payoff"] == PAYOFF
    assert loaded == [newest]


def test_runs_of_one_process_know_nothing_of_each_other(by_command):
    """Two at once, step by step in turn, in two threads: each as if it were alone."""
    children = set(psutil.Process().children(recursive=True))
    found = []

    def steps():
        with make() as one, make(seed=4) as other:
            for _ in range(5):
                one.step()
                other.step()
            one.train()
            found.append(one)

    threads = [threading.Thread(target=steps) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run in found:
        assert curves(run.record)["loss_td"] == curves(by_command)["loss_td"]
    assert len({run.record for run in found}) == 2
    assert set(psutil.Process().children(recursive=True)) <= children
    assert sys.stdout.write("") == 0  # nobody has left a closed stream in its place


def test_a_run_that_is_let_go_of_ends(tmp_path):
    before = set(psutil.Process().children(recursive=True))
    small = {"seed": 1, "t_max": 50, "batch_size": 4, "buffer_size": 16}
    run = shoal.make("qmix", TeamEnv, runner="parallel", batch_size_run=2, **small)
    record = run.record
    run.step()
    assert len(set(psutil.Process().children(recursive=True)) - before) >= 3  # two games and who looks after them
    del run
    gc.collect()
    assert read_json(record / "run.json")["status"] == "INTERRUPTED"
    deadline = time.monotonic() + 10
    while set(psutil.Process().children(recursive=True)) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    left = set(psutil.Process().children(recursive=True)) - before
    assert all("resource_tracker" in " ".join(child.cmdline()) for child in left)


def test_ctrl_c_saves_and_leaves_the_run_open(by_command, monkeypatch):
    with make() as run:
        collect = run.experiment.runner.run

        def pressing(*args, **kwargs):
            if run.t_env == 6:
                monkeypatch.undo()
                signal.raise_signal(signal.SIGINT)
            return collect(*args, **kwargs)

        monkeypatch.setattr(run.experiment.runner, "run", pressing)
        with pytest.raises(Interrupted) as caught:
            run.train()
        assert caught.value.checkpoint.name == "7.pt"
        assert any("run.train() continues from here" in note for note in caught.value.__notes__)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert read_json(run.record / "run.json")["status"] == "RUNNING"
        run.train()
    assert curves(run.record) == curves(by_command)
    assert read_json(run.record / "run.json")["status"] == "COMPLETED"


def test_what_raises_ends_the_run_and_its_record(monkeypatch):
    run = make(callbacks=["support.watching:Stumble"])
    with pytest.raises(RuntimeError, match="it stumbled"):
        run.train()
    assert read_json(run.record / "run.json")["status"] == "FAILED"
    assert "it stumbled" in json.dumps(read_json(run.record / "run.json")["fail_trace"])
    with pytest.raises(UserError, match="This run is closed"):
        run.step()
    run.close()
    with pytest.raises(ValueError, match="the program's own"), make() as run:
        raise ValueError("the program's own")
    assert read_json(run.record / "run.json")["status"] == "FAILED"


def test_callbacks_are_one_text_or_a_list():
    with make(callbacks="support.watching:Watch", record=False) as run:
        assert run.settings["callbacks"] == ["support.watching:Watch"]
    with pytest.raises(UserError, match="callbacks=3 is no list"):
        make(callbacks=3)


def test_a_setting_is_given_once():
    with pytest.raises(UserError, match="payoff is given twice"):
        make(payoff=[[1, 0], [0, 1]], env_args={"payoff": [[2, 0], [0, 1]]})


def test_settings_may_be_numpy_numbers_and_paths(tmp_path):
    with make(t_max=np.int64(40), lr=np.float32(0.5), local_results_path=tmp_path / "here") as run:
        assert (run.settings["t_max"], run.settings["lr"]) == (40, 0.5)
        assert run.settings["local_results_path"] == str(tmp_path / "here")
        run.save()
        with pytest.raises(UserError, match="this very program"):
            shoal.resume(run.record)


def test_what_cannot_be_asked_is_refused_without_ending_the_run():
    with make(save_model=False, callbacks=[Watch]) as run:
        for wrong in (0, 1.5, "x"):
            with pytest.raises(UserError, match="whole number from 1 on"):
                run.test(wrong)
        with pytest.raises(UserError, match="save_model=False"):
            run.save()
        run.train()
        for more in (run.train, run.step):
            with pytest.raises(UserError, match="has reached its end"):
                more()
        assert run.test(1)
    assert read_json(run.record / "run.json")["status"] == "COMPLETED"


def test_a_team_is_exported_and_loaded(tmp_path):
    with make(record=False) as run:
        run.step()
        saved = run.save()
    assert in_process(tmp_path, "export", str(saved)) == 0
    team = shoal.load_team("team.pt")
    for name, value in team.state_dict().items():
        assert value.equal(run.controller.state_dict()[name])


def test_a_script_that_closes_nothing_leaves_a_whole_record_and_no_process(tmp_path):
    (tmp_path / "script.py").write_text(
        "import shoal\n"
        "from support.team_env import TeamEnv\n"
        "small = dict(batch_size_run=2, seed=1, t_max=8, batch_size=2, buffer_size=8, test_nepisode=2)\n"
        "if __name__ == '__main__':\n"
        "    shoal.make('vdn', 'matrix_game', **small).train()\n"
        "    run = shoal.make('vdn', TeamEnv, **(small | {'t_max': 100}))\n"
        "    run.step()\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    records = tmp_path / "results" / "sacred"
    assert [read_json(records / str(n) / "run.json")["status"] for n in (1, 2)] == ["COMPLETED", "INTERRUPTED"]
    assert not [one for one in psutil.process_iter() if one.pid != os.getpid() and _in(one, tmp_path)]


def _in(process, folder):
    try:
        return process.cwd() == str(folder)
    except psutil.Error:
        return False


def test_classes_of_a_script_are_found_in_its_worker_processes_and_when_another_script_goes_on(tmp_path):
    (tmp_path / "first.py").write_text(
        "import shoal\n"
        "from support.team_env import TeamEnv\n"
        "from shoal.modules.mixers.vdn import VDNMixer\n"
        "class Own(TeamEnv):\n    pass\n"
        "class Sum(VDNMixer):\n    pass\n"
        "small = dict(batch_size_run=2, seed=1, t_max=12, batch_size=2, buffer_size=8, test_nepisode=2)\n"
        "if __name__ == '__main__':\n"
        "    with shoal.make('qmix', Own, mixer=Sum, **small) as run:\n"
        "        run.train()\n"
        "        assert run.settings['mixer'] == '__main__:Sum'\n"
    )
    (tmp_path / "second.py").write_text(
        "import first, shoal\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        shoal.resume('results/sacred/1')\n"
        "    except shoal.UserError as error:\n"
        "        print(error)\n"
        "    with shoal.resume('results/sacred/1', env=first.Own, mixer=first.Sum, t_max=24) as run:\n"
        "        run.train()\n"
        "        print('t_env', run.t_env)\n"
    )
    for name in ("first.py", "second.py"):
        done = subprocess.run(
            [sys.executable, name], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
    assert "the class was defined in a script or notebook" in done.stdout
    assert int(done.stdout.rpartition("t_env ")[2]) >= 24
