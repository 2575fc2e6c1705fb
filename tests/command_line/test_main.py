"""The command line: what it teaches, what it refuses, what it records."""

import io
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import pytest
import torch
from torch import nn

from shoal import registry
from shoal.command_line.main import main
from shoal.config import files
from shoal.envs.matrix_game import MatrixGameEnv
from shoal.recording import observers
from shoal.utils import checkpoint as checkpoints
from support.launch import MAIN, environment, read_json, workers_of

Result = namedtuple("Result", "status out err")

GAME = ["--config=s2q", "--env-config=matrix_game", "with"]
QUICK = ["runner=episode", "seed=3", "t_max=30", "batch_size=4", "buffer_size=40", "test_nepisode=2"]
EVERY_STEP = ["test_interval=10", "runner_log_interval=10", "learner_log_interval=10"]


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Runs the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        capsys.readouterr()
        status = main(["src/main.py", *args])
        return Result(status, *capsys.readouterr())

    return run


def assert_refused(result, *words):
    """Exit status 1 and one sentence on stderr that says all of ``words``."""
    assert result.status == 1
    lines = [line for line in result.err.splitlines() if line.strip()]
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def assert_nothing_launched():
    """No record of a run, no checkpoint folder, no worker process."""
    assert [p.name for p in Path().glob("results/sacred/*") if p.name != "_sources"] == []
    assert not Path("results/models").exists()
    assert workers_of(os.getpid()) == []


# What is refused before anything starts.

REFUSED = {
    "several unknown settings": (
        [*GAME, "bacth_size=3", "map_name=3m", "env_args.lr=3", "use_per=True"],
        ["4 unknown settings", "'bacth_size'", "as env_args.map_name", "say lr=3", "sampled uniformly"],
    ),
    "a name that leads elsewhere": ([*GAME, "name=../x"], ["name='../x'", "cannot name files"]),
    "an absolute name": ([*GAME, "name=/etc/x"], ["name='/etc/x'", "take '/' out"]),
    "a name that is too long": ([*GAME, f"name={'x' * 300}"], ["too long to name files"]),
    "a NUL in a name": ([*GAME, "name=a\0b"], ["NUL"]),
    "a NUL in a path": ([*GAME, "checkpoint_path=a\0b"], ["checkpoint_path='a\\x00b'", "NUL"]),
    "bytes that are no text": ([*GAME, "name=\udcff"], ["command line is not valid UTF-8"]),
    "a path that is too long": ([*GAME, f"checkpoint_path={'x' * 5000}"], ["File name too long"]),
    "nobody's home": ([*GAME, "local_results_path=~no_such_user/x"], ["local_results_path", "cannot be found"]),
    "a seed that no record holds": ([*GAME, f"seed={2**63}"], ["seed=", "too large"]),
    "too many threads": ([*GAME, "torch_threads=100000"], ["torch_threads=100000", "from 0 to 1024"]),
    "an infinite number": ([*GAME, "lr=1e400"], ["lr=", "not a finite number"]),
    "a negative interval": ([*GAME, "runner_log_interval=-1"], ["runner_log_interval=-1", "at least 1"]),
    "a negative loss": (
        ["--config=qmix", "--env-config=matrix_game", "with", "td_loss=-1"],
        ["td_loss=-1", "0 or more"],
    ),
    "a value and settings of its own": ([*GAME, "env_args=3", "env_args.payoff=3"], ["KEY.X", "leave one out"]),
    "a word that is no setting": ([*GAME, "fast"], ["'fast' behind 'with' is neither KEY=VALUE nor a YAML file"]),
    "a value that is none": ([*GAME, "env_args.payoff={[1]}"], ["env_args.payoff={[1]}", "cannot be read"]),
    "an odd level": (["-l", "LOUD", *GAME], ["--loglevel=LOUD", "INFO"]),
    "a level below 0": (["-l", "-5", *GAME], ["--loglevel=-5", "0 to 50"]),
    "an odd interval": (["-b", "soon", *GAME], ["--beat-interval=soon", "no number"]),
    "no interval": (["-b", "0", *GAME], ["--beat-interval=0", "above 0"]),
    "an odd capture": (["-C", "all", *GAME], ["--capture=all", "no, sys, fd"]),
    "an odd priority": (["-P", "nan", *GAME], ["--priority=nan", "no number"]),
    "an id that leads elsewhere": (["-i", "../x", *GAME], ["--id=../x", "cannot name files"]),
    "an empty folder of records": (["-F", "", *GAME], ["--file_storage is empty"]),
    "an odd database": (["-s", "x", *GAME, *QUICK], ["--sql=x", "cannot record runs"]),
    "an odd bucket": (["-S", "x", *GAME, *QUICK], ["--s3=x", "cannot record runs"]),
    "unknown setting": ([*GAME, "bacth_size=3"], ["'bacth_size'", "'batch_size'", "print_config"]),
    "unknown setting of the environment": ([*GAME, "env_args.payof=3"], ["'env_args.payof'", "'env_args.payoff'"]),
    "a setting that another component reads": (
        [*GAME, "double_q=True"],
        ["'double_q'", "learner=q_learner", "Remove it"],
    ),
    "an algorithm for other environments": (
        ["--config=bang_bang_lan", "--env-config=matrix_game"],
        [
            "'env_args.action_mode' (algs/bang_bang_lan.yaml)",
            "bang_bang_lan needs an environment",
            "matrix_game has none",
        ],
    ),
    "wrong type": ([*GAME, "t_max=soon"], ["t_max='soon'", "whole number"]),
    "wrong type in the environment": ([*GAME, "env_args.payoff=3"], ["env_args.payoff=3", "list"]),
    "a ragged payoff": ([*GAME, "env_args.payoff=[[1,2],[3]]"], ["env_args.payoff", "equally long"]),
    "unknown algorithm": (["--config=s2", "--env-config=smax"], ["--config 's2'", "'s2q'", "--list"]),
    "unknown environment": (["--config=s2q", "--env-config=smac"], ["--env-config 'smac'", "'smax'"]),
    "unknown map": (
        ["--config=s2q", "--env-config=smax", "with", "env_args.map_name=3n"],
        ["'3n'", "did you mean '3m'", "6h_vs_8z"],
    ),
    "a mixer that is left out": ([*GAME, "mixer=dmaq_qatten"], ["'dmaq_qatten'", "mixer=dmaq is QPLEX"]),
    "unknown mixer": ([*GAME, "mixer=qmx"], ["mixer 'qmx'", "'qmix'"]),
    "K below 0": ([*GAME, "K=-1"], ["K=-1", "from 0 to 1000"]),
    "T of 0": ([*GAME, "T=0"], ["T=0", "positive"]),
    "T below 0": ([*GAME, "T=-0.5"], ["T=-0.5", "positive"]),
    "too small a buffer": ([*GAME, "buffer_size=3", "batch_size=4"], ["buffer_size=3", "batch_size=4", "raise"]),
    "no environment": (["--config=s2q"], ["--env-config=NAME is missing", "--list"]),
    "no algorithm": (["--env-config=smax"], ["--config=NAME is missing"]),
    "config without value": (["--env-config=smax", "--config"], ["--config needs a name"]),
    "config with an empty value": (["--config=", "--env-config=smax"], ["--config needs a name"]),
    "config swallowing with": (["--env-config=smax", "--config", "with", "t_max=3"], ["--config needs a name"]),
    "config given twice": (["--config=s2q", "--config", "qmix", "--env-config=smax"], ["twice", "s2q", "qmix"]),
    "setting without with": (["--config=s2q", "--env-config=matrix_game", "t_max=3"], ["t_max=3", "'with'"]),
    "two settings without with": (
        ["--config=s2q", "--env-config=matrix_game", "t_max=3", "lr=1"],
        ["t_max=3", "'with'"],
    ),
    "unknown command": (["trian", "--config=s2q", "--env-config=matrix_game"], ["'trian'", "'train'"]),
    "unknown option": (["--verbose", "--config=s2q", "--env-config=matrix_game"], ["--verbose", "--help"]),
    "evaluate without checkpoint": ([*GAME, "evaluate=True"], ["evaluate=True", "checkpoint_path="]),
    "missing checkpoint": ([*GAME, "checkpoint_path=results/models/no"], ["results/models/no", "There is no"]),
    "resume of nothing": (["with", "resume=results/sacred/7"], ["results/sacred/7", "There is no"]),
    "a malformed MongoDB address": (["-m", "a:b:c:d:e", *GAME, *QUICK], ["MongoDB", "HOST:PORT:DB"]),
    "missing YAML": (["--config=mine.yaml", "--env-config=smax"], ["mine.yaml", "No such file"]),
    "missing named YAML": ([*GAME, "mine.yaml"], ["mine.yaml", "No such file"]),
    "a load_step that is no number": (
        [*GAME, "checkpoint_path=x", "load_step=last"],
        ["load_step='last'", "whole number"],
    ),
    "sub-values without their controller": (
        ["--config=qmix", "--env-config=matrix_game", "with", "learner=s2q_learner"],
        ["S2QLearner", "with sub-values (mac=s2q_mac)", "not BasicMAC"],
    ),
    "sub-values that the learner does not train": (
        ["--config=qmix", "--env-config=matrix_game", "with", "mac=s2q_mac"],
        ["QLearner", "without sub-values (mac=basic_mac)", "not S2QMAC"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence_before_anything_starts(cli, case):
    args, words = REFUSED[case]
    assert_refused(cli(*args), *words)
    assert_nothing_launched()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: [1, 2\nlr: 3\n", ["not valid YAML", "line 2"]),
        ("- one\n- two\n", ["must be a mapping"]),
        ("learner: q_learner\nbacth_size: 3\n", ["'bacth_size'", "'batch_size'"]),
    ],
)
def test_a_bad_yaml_is_refused(cli, content, words):
    Path("mine.yaml").write_text(content)
    assert_refused(cli("--config=mine.yaml", "--env-config=matrix_game"), *words)
    assert_nothing_launched()


def test_an_unwritable_results_folder_is_refused(cli):
    Path("results").write_text("a file where a folder should be")
    assert_refused(cli(*GAME, *QUICK), "cannot record runs in results/sacred", "choose a folder")
    Path("mine").write_text("another")
    assert_refused(cli("-F", "mine/records", *GAME, *QUICK), "mine/records")
    assert workers_of(os.getpid()) == []


def test_epsilon_greedy_on_continuous_actions_is_refused(cli):
    Path("continuous.yaml").write_text("env: support.team_env:TeamEnv\nenv_args:\n  continuous: true\n")
    result = cli("--config=qmix", "--env-config=continuous.yaml", "with", "runner=episode")
    assert result.status == 1
    assert "Traceback" not in result.err
    (sentence,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert "continuous" in sentence
    assert "needs discrete actions" in sentence


def test_an_environment_that_keeps_failing_ends_the_run_with_a_sentence(cli):
    Path("failing.yaml").write_text("env: support.team_env:TeamEnv\nenv_args:\n  fail_share: 1.0\n")
    result = cli("--config=qmix", "--env-config=failing.yaml", "with", "runner=episode", "max_env_restarts=4")
    assert result.status == 1
    assert "Traceback" not in result.err
    (sentence,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert "could not begin an episode, 2 times in a row" in sentence
    assert "doctor" in sentence


class Blocker:
    """Makes packages look as if they were not installed."""

    def __init__(self, *packages):
        self.packages = packages

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("package", "args"),
    [
        ("pettingzoo", ["--config=s2q", "--env-config=pettingzoo", "with", "runner=episode"]),
        ("pymongo", ["-m", "localhost:1:db", *GAME, *QUICK]),
        ("hashfs", ["-t", "x", *GAME, *QUICK]),
        ("tensorboardX", [*GAME, *QUICK, "use_tensorboard=True"]),
    ],
)
def test_a_missing_package_is_named_with_what_to_do(cli, monkeypatch, package, args):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Blocker(package), *sys.meta_path])
    result = cli(*args)
    assert result.status == 1
    assert "Traceback" not in result.err
    (sentence,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert package in sentence
    assert "install" in sentence


def test_without_jaxmarl_battles_are_refused_in_a_sentence(tmp_path):
    blocker = "import sys\nfor name in ('jax', 'jaxmarl'):\n    sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(blocker)
    paths = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, str(MAIN), "--config=s2q", "--env-config=smax"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=paths),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "env=smax needs the Python package 'jax'" in sentence
    assert '[smax]"' in sentence


def test_a_component_that_another_process_lacks_is_refused(cli):
    assert_refused(cli(*GAME, "mixer=nowhere.to:Be"), "mixer=nowhere.to:Be", "cannot be loaded")
    assert_nothing_launched()


def test_a_password_in_a_database_address_is_not_shown(cli):
    result = cli("-s", "mysql+nothing://user:secret@127.0.0.1:1/x", *GAME, *QUICK)
    assert_refused(result, "--sql=mysql+nothing://***@127.0.0.1:1/x")
    assert "secret" not in result.err


@pytest.mark.parametrize(
    ("git", "words"), [(None, "not run from a git checkout"), ({"commit": "0" * 40, "dirty": True}, "commit or stash")]
)
def test_a_dirty_checkout_is_refused_on_request(cli, monkeypatch, git, words):
    monkeypatch.setattr("shoal.command_line.sacred_options.git_commit", lambda path: git)
    assert_refused(cli("-e", *GAME, *QUICK), "--enforce_clean", words)
    assert_nothing_launched()


def test_a_clean_checkout_runs(cli, monkeypatch):
    monkeypatch.setattr(
        "shoal.command_line.sacred_options.git_commit", lambda path: {"commit": "0" * 40, "dirty": False}
    )
    assert cli("-e", *GAME, *QUICK).status == 0


@pytest.mark.parametrize("seed", [20261128123456, 2**63 - 1])
def test_large_seeds_train_and_differ(cli, seed):
    quick = [word for word in QUICK if not word.startswith("seed")]
    assert cli(*GAME, *quick, f"seed={seed}", "runner=parallel", "batch_size_run=2").status == 0
    assert read_json(Path("results/sacred/1/config.json"))["seed"] == seed


def test_too_few_open_files_are_said_with_the_remedy(tmp_path):
    command = [sys.executable, str(MAIN), "-u", *GAME, *QUICK, "runner=parallel", "batch_size_run=40"]
    (tmp_path / "many.yaml").write_text("env: support.team_env:TeamEnv\n")
    words = [word.replace("--env-config=matrix_game", "--env-config=many.yaml") for word in command]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -n 60; exec "$@"', "bash", *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: 40 environment" in done.stderr
    assert "raise the limit (ulimit -n" in done.stderr


def test_networks_that_fit_no_memory_are_refused(cli):
    result = cli(*GAME, *QUICK, "rnn_hidden_dim=1000000000000")
    assert result.status == 1
    assert "Traceback" not in result.err
    assert "do not fit into memory: lower rnn_hidden_dim=1000000000000 or" in result.err


@dataclass(frozen=True)
class ScaledSumSettings:
    first_scale: Annotated[float, "factor before training"] = 2.0


class Misshapen(nn.Module):
    """A mixer with a mistake."""

    Settings = ScaledSumSettings

    def __init__(self, settings, n_agents, state_dim, n_actions, copies=1):
        super().__init__()
        self.wrong = torch.zeros(5).view(2, 3)


def test_a_mistake_in_a_network_is_not_taken_for_lack_of_memory(cli):
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        cli("--config=vdn", "--env-config=matrix_game", "with", *QUICK, f"mixer={__name__}:Misshapen")


def test_results_may_lie_at_home(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cli(*GAME, *QUICK, "local_results_path=~/my runs").status == 0
    assert (tmp_path / "home" / "my runs" / "sacred" / "1" / "run.json").is_file()
    assert cli("with", "resume=~/my runs/sacred/1", "t_max=40").status == 0


def test_a_component_whose_code_fails_is_named_with_the_line(cli, monkeypatch, tmp_path):
    (tmp_path / "broken_part.py").write_text("class Mixer:\n    size = 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = cli(*GAME, "mixer=broken_part:Mixer")
    assert_refused(result, "mixer=broken_part:Mixer", "ZeroDivisionError", "broken_part.py, line 2")


# What it teaches.


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
def test_help_teaches_by_example(cli, args):
    result = cli(*args)
    assert result.status == 0
    assert result.err == ""
    for words in ("--config=s2q --env-config=smax", "print_config", "resume=", "--list", "doctor", "--file_storage"):
        assert words in result.out


def test_list_names_everything_with_one_line(cli):
    result = cli("--list")
    assert result.status == 0
    rows = [line.split(maxsplit=1) for line in result.out.splitlines() if line.startswith("  ")]
    assert all(len(row) == 2 and len(row[1]) > 20 for row in rows)
    registered = [name for known in registry.COMPONENTS.values() for name in known]
    assert sorted(row[0] for row in rows) == sorted([*files.names("algs"), *files.names("envs"), *registered])


def test_print_config_shows_every_setting_with_its_meaning(cli):
    result = cli("print_config", *GAME, *QUICK, "env_args.time_limit=2")
    assert result.status == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.out)
    shown = dict(re.findall(r"^ +(\w+) = .*# (.+)$", plain, re.MULTILINE))
    for key in ("K", "T", "alpha", "t_max", "seed", "mixer", "central_mixer", "time_limit", "payoff"):
        assert key in shown
    assert all(len(text) > 5 for text in shown.values())
    assert len(re.findall(r"^ +\w+ = ", plain, re.MULTILINE)) == len(shown)
    assert "t_max = 30 " in plain
    assert "time_limit = 2 " in plain
    assert not Path("results").exists()


def test_what_is_no_terminal_gets_no_colours(cli):
    for args in (["print_config", *GAME, *QUICK], ["-p", "-u", *GAME, *QUICK], ["print_named_configs", *GAME, *QUICK]):
        result = cli(*args)
        assert result.status == 0
        assert "\x1b" not in result.out


def test_a_terminal_gets_colours_unless_it_asks_for_none(tmp_path):
    read = "lambda fd: os.read(fd, 9999)"
    script = f"import os, pty, sys; sys.exit(pty.spawn([sys.executable, *sys.argv[1:]], {read}))"
    shown = {}
    for name, more in (("plain", {"NO_COLOR": "1"}), ("coloured", {"NO_COLOR": ""})):
        command = [sys.executable, "-c", script, str(MAIN), "print_config", *GAME, *QUICK]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(**more), stdin=subprocess.DEVNULL, capture_output=True, timeout=120
        )
        shown[name] = done.stdout
    assert b"\x1b[" in shown["coloured"]
    assert b"\x1b[" not in shown["plain"]


def test_doctor_is_a_command(cli):
    result = cli("doctor")
    assert "torch" in result.out
    assert "error" not in result.err


# What it understands.


def test_a_name_after_a_space_and_a_path_to_a_file_of_ones_own(cli):
    Path("mine.yaml").write_text("name: mine\nlearner: q_learner\nmixer: vdn\nlr: 5e-4\n")
    both = cli("print_config", "--config", "mine.yaml", "--env-config", "matrix_game", "with", "seed=1")
    assert both.status == 0
    assert "name = 'mine'" in both.out
    assert "lr = 0.0005" in both.out
    named = cli("print_config", "--config", "s2q", "--env-config", "matrix_game")
    assert "name = 's2q'" in named.out


def test_updates_win_over_a_named_yaml_which_wins_over_the_algorithm(cli):
    Path("more.yaml").write_text("lr: 0.25\nK: 5\n")
    shown = cli("print_config", *GAME, "more.yaml", "lr=0.125").out
    assert "lr = 0.125" in shown
    assert "K = 5" in shown


# Where a setting comes from.


def sources(result):
    """What print_config says of each setting: its value as printed, and its source where it is not the default."""
    assert result.status == 0, result.err
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.out)
    rows = re.findall(r"^ +(\w+) = (.*?) +# .*?(?:\[([^][]+)\])?$", plain, re.MULTILINE)
    return {key: (value, source or None) for key, value, source in rows}


def test_print_config_says_where_each_value_comes_from(cli):
    Path("more.yaml").write_text("gamma: 0.5\nlr: 0.25\n")
    args = ["env_args.map_name=6h_vs_8z", "more.yaml", "lr=0.125", "w_c=0.5"]
    shown = sources(cli("print_config", "--config=s2q", "--env-config=smax", "with", *args))
    assert shown["runner"] == ("'parallel'", "default.yaml")
    assert shown["env"] == ("'smax'", "envs/smax.yaml")
    assert shown["reward_scale"] == ("10.0", "envs/smax.yaml")
    assert shown["K"] == ("2", "algs/s2q.yaml")
    assert shown["epsilon_anneal_time"] == ("500000", "algs/s2q.yaml, map 6h_vs_8z")
    assert shown["w_c"] == ("0.5", "command line")
    assert shown["map_name"] == ("'6h_vs_8z'", "command line")
    assert shown["gamma"] == ("0.5", "more.yaml")
    assert shown["lr"] == ("0.125", "command line")
    assert shown["seed"][1] == "drawn"
    assert shown["epsilon_start"] == ("1.0", None)
    assert shown["time_limit"] == ("100", None)


def test_a_map_of_no_entry_has_the_values_of_every_map(cli):
    shown = sources(cli("print_config", "--config=s2q", "--env-config=smax", "with", "env_args.map_name=3m"))
    assert shown["w_c"] == ("0.9", "algs/s2q.yaml")
    assert shown["epsilon_anneal_time"] == ("100000", "algs/s2q.yaml")


def test_a_suites_entry_is_shown_as_the_source(cli):
    def shown(*more):
        return sources(cli("print_config", "--config=s2q", *more))["obs_agent_id"]

    assert shown("--env-config=smax", "with", "env_args.map_name=6h_vs_8z") == ("True", None)
    assert shown("--env-config=sc2") == ("False", "algs/s2q.yaml, env sc2")
    assert shown("--env-config=sc2", "with", "obs_agent_id=True") == ("True", "command line")
    Path("own.yaml").write_text("extends: s2q\nper_map:\n  8m: {obs_agent_id: true}\n")
    own = sources(cli("print_config", "--config=own.yaml", "--env-config=sc2", "with", "env_args.map_name=8m"))
    assert own["obs_agent_id"] == ("True", "own.yaml, map 8m")


MINE = """
extends: qmix
name: mine
batch_size: 8
per_map:
  2s3z: {batch_size: 16, lr: 0.25}
  8m: {bacth_size: 16}
"""
HERE = """
extends: smax
env_args: {map_name: 2s3z}
per_map:
  2s3z: {batch_size: 32, lr: 0.5, gamma: 0.5, env_args: {time_limit: 7}}
"""


@pytest.fixture
def own_files(cli):
    """The options for an algorithm's and an environment's file of the user's own."""
    Path("mine.yaml").write_text(MINE)
    Path("here.yaml").write_text(HERE)
    return ["--config=mine.yaml", "--env-config=here.yaml"]


def test_the_algorithms_map_wins_over_the_environments_and_the_command_line_over_both(cli, own_files):
    shown = sources(cli("print_config", *own_files, "with", "lr=0.125"))
    assert shown["name"] == ("'mine'", "mine.yaml")
    assert shown["mixer"] == ("'qmix'", "algs/qmix.yaml")
    assert shown["env"] == ("'smax'", "envs/smax.yaml")
    assert shown["batch_size"] == ("16", "mine.yaml, map 2s3z")
    assert shown["gamma"] == ("0.5", "here.yaml, map 2s3z")
    assert shown["time_limit"] == ("7", "here.yaml, map 2s3z")
    assert shown["lr"] == ("0.125", "command line")


def test_the_map_is_the_one_that_the_run_ends_up_with(cli, own_files):
    shown = sources(cli("print_config", *own_files, "with", "env_args.map_name=6h_vs_8z"))
    assert shown["batch_size"] == ("8", "mine.yaml")
    assert shown["time_limit"] == ("100", None)
    assert shown["epsilon_anneal_time"] == ("500000", "algs/qmix.yaml, map 6h_vs_8z")
    Path("map.yaml").write_text("env_args: {map_name: 2s3z}\n")
    Path("bare.yaml").write_text("env: smax\n")
    named = sources(cli("print_config", "--config=mine.yaml", "--env-config=bare.yaml", "with", "map.yaml"))
    assert named["batch_size"] == ("16", "mine.yaml, map 2s3z")


def test_the_environments_default_map_has_its_entry_too(cli):
    Path("bare.yaml").write_text("env: smax\nper_map:\n  3m: {lr: 0.25}\n")
    shown = sources(cli("print_config", "--config=qmix", "--env-config=bare.yaml"))
    assert shown["map_name"] == ("'3m'", None)
    assert shown["lr"] == ("0.25", "bare.yaml, map 3m")


def test_a_suite_that_names_its_environments_has_entries_for_them(cli):
    options = ["print_config", "--config=qmix", "--env-config=sisl"]
    shown = sources(cli(*options, "with", "env_args.env_name=waterworld", "env_args.kwargs.n_poisons=5"))
    assert shown["n_evaders"] == ("1", "envs/sisl.yaml, map waterworld")
    assert shown["n_poisons"] == ("5", "command line")
    assert "n_walkers" not in shown
    assert sources(cli(*options))["n_walkers"] == ("2", "envs/sisl.yaml, map multiwalker")


def test_a_misspelt_setting_of_a_map_is_refused_on_that_map(cli, own_files):
    words = ["'bacth_size' (mine.yaml, map 8m)", "'batch_size'"]
    assert_refused(cli("print_config", *own_files, "with", "env_args.map_name=8m"), *words)
    assert_nothing_launched()


@pytest.mark.parametrize("value", ["8", "[3]", "None", "{'a': 1}"])
def test_a_map_name_that_is_no_name_is_refused_as_such(cli, value):
    args = ["--config=s2q", "--env-config=smax", "with", f"env_args.map_name={value}"]
    assert_refused(cli("print_config", *args), "env_args.map_name", "wrong type")


def test_an_unknown_setting_is_refused_with_its_source(cli):
    Path("mine.yaml").write_text("extends: s2q\nlearner: q_learner\n")
    assert_refused(cli("--config=mine.yaml", "--env-config=matrix_game"), "'T' (algs/s2q.yaml)", "Remove it")
    assert_refused(cli(*GAME, "bacth_size=3"), "'bacth_size' (command line)")


@pytest.mark.parametrize(
    ("content", "words"), [("per_map: {3m: {lr: 1}}", ["'per_map' (more.yaml)"]), ("extends: qmix", ["'extends'"])]
)
def test_what_only_files_understand_is_refused_after_with(cli, content, words):
    Path("more.yaml").write_text(content)
    assert_refused(cli(*GAME, "more.yaml"), *words, "--config or --env-config")
    assert_refused(cli(*GAME, "per_map.3m.lr=1"), "'per_map' (command line)")
    assert_refused(cli(*GAME, "extends=qmix"), "'extends' (command line)")
    assert_nothing_launched()


def test_a_seed_is_drawn_when_none_is_given(cli):
    def seed(*more):
        shown = cli("print_config", "--config=vdn", "--env-config=matrix_game", *more).out
        (line,) = [line for line in shown.splitlines() if "  seed = " in line]
        return line.partition("seed = ")[2].split()[0]

    drawn = {seed() for _ in range(3)}
    assert len(drawn) == 3
    assert all(0 <= int(s) < 2**31 for s in drawn)
    assert seed("with", "seed=7") == "7"


# What it records.


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A short run with sacred's own flags: its folder of records, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        args = ["-F", "mine", "--name", "trial", "-c", "a comment", "-l", "WARNING"]
        assert main(["src/main.py", *args, *GAME, *QUICK, *EVERY_STEP, "use_tensorboard=True"]) == 0
    return folder / "mine" / "1"


def test_a_finished_run_is_recorded_as_completed(recorded):
    run = read_json(recorded / "run.json")
    assert run["status"] == "COMPLETED"
    assert run["experiment"]["name"] == "trial"
    assert run["meta"]["comment"] == "a comment"
    assert isinstance(run["result"], float)
    assert not (recorded.parents[1] / "results" / "sacred").exists()


def test_the_whole_resolved_configuration_is_recorded(recorded):
    config = read_json(recorded / "config.json")
    assert config["seed"] == 3
    assert config["t_max"] == 30
    assert config["mixer"] == "qmix"
    assert config["env_args"]["payoff"] == [[8, 0, -12], [0, 7, 0], [-12, 0, 6]]


def test_metrics_are_plain_floats_by_pymarls_names_over_t_env(recorded):
    metrics = read_json(recorded / "metrics.json")
    assert {
        "test_return_mean",
        "test_return_std",
        "test_ep_length_mean",
        "test_optimal_mean",
        "return_mean",
        "return_std",
        "ep_length_mean",
        "epsilon",
        "loss_td",
        "grad_norm",
        "episode",
        "env_restarts",
        "td_error_abs",
        "q_taken_mean",
        "target_mean",
    } <= set(metrics)
    for series in metrics.values():
        assert all(type(value) is float and math.isfinite(value) for value in series["values"])
        assert series["steps"] == sorted(set(series["steps"]))
        assert all(type(step) is int and 0 <= step <= 30 for step in series["steps"])
    assert metrics["test_return_mean"]["steps"] == [0, 10, 20, 30]
    assert metrics["return_mean"]["steps"] == [10, 20, 30]
    assert metrics["episode"]["values"] == [10.0, 20.0, 30.0]
    assert metrics["epsilon"]["values"][0] == pytest.approx(1 - 0.95 * 10 / 100_000)


def test_the_printed_output_is_recorded_to_its_end(tmp_path):
    done = subprocess.run(
        [sys.executable, str(MAIN), *GAME, *QUICK],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "test at t_env 30" in done.stdout
    for line in ("record       results/sacred/1", "checkpoints  results/models/s2q_matrix_game_seed3"):
        assert line in done.stdout
    cout = (tmp_path / "results" / "sacred" / "1" / "cout.txt").read_text()
    assert "test at t_env 30" in cout
    assert "finished at t_env 30 of 30" in cout
    info = read_json(tmp_path / "results" / "sacred" / "1" / "info.json")
    assert info["model_dir"].startswith("results/models/s2q_matrix_game_seed3")


def test_the_run_says_where_its_checkpoints_are(recorded):
    folder = Path((recorded / "model_dir.txt").read_text().strip())
    assert folder.is_absolute()
    assert sorted(path.name for path in folder.glob("*.pt")) == ["30.pt", "best.pt"]
    assert folder.name.startswith("s2q_matrix_game_seed3_")


def test_a_curve_and_tensorboard_files_are_written(recorded):
    assert (recorded / "learning_curve.png").stat().st_size > 1000
    assert list((recorded.parents[1] / "results" / "tb_logs").glob("s2q_matrix_game_seed3_*/events*"))


def test_an_unobserved_run_leaves_no_record(cli):
    result = cli("-u", *GAME, *QUICK)
    assert result.status == 0
    assert not Path("results/sacred").exists()
    assert list(Path("results/models").glob("*/30.pt"))


def test_without_save_model_there_are_no_checkpoints(cli):
    assert cli(*GAME, *QUICK, "save_model=False").status == 0
    assert Path("results/sacred/1/metrics.json").exists()
    assert not Path("results/models").exists()


def test_a_folder_of_checkpoints_that_cannot_be_made_is_said_before_anything_is_learnt(cli):
    Path("results").mkdir()
    Path("results/models").write_text("a file where a folder should be")
    assert_refused(cli(*GAME, *QUICK), "Checkpoints cannot be written to", "results/models", "save_model=False")
    assert read_json(Path("results/sacred/1/run.json"))["status"] == "FAILED"
    result = cli(*GAME, *QUICK, "save_model=False")
    assert result.status == 0
    assert read_json(Path("results/sacred/2/run.json"))["status"] == "COMPLETED"


def test_a_mongodb_that_is_down_costs_no_record(cli, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(observers, "mongo_observer", partial(observers.mongo_observer, timeout_s=0.3))
    result = cli("-m", f"127.0.0.1:{port}:shoal", *GAME, *QUICK)
    assert result.status == 0
    assert "does not answer" in result.err
    assert f"when the server is there: python src/main.py sync {Path('results/sacred/1').absolute()}" in result.err
    assert read_json(Path("results/sacred/1/run.json"))["status"] == "COMPLETED"
    assert "test_return_mean" in read_json(Path("results/sacred/1/metrics.json"))


# A component of one's own.


class ScaledSum(nn.Module):
    """A learnt multiple of the sum of the utilities."""

    Settings = ScaledSumSettings

    def __init__(self, settings, n_agents, state_dim, n_actions, copies=1):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(settings.first_scale))

    def forward(self, q, state, maxima, actions):
        return self.scale * q.sum(-1)


def test_a_mixer_by_import_path_trains(cli):
    mixer = f"mixer={__name__}:ScaledSum"
    result = cli("--config=vdn", "--env-config=matrix_game", "with", *QUICK, mixer, "first_scale=3")
    assert result.status == 0, result.err
    assert read_json(Path("results/sacred/1/config.json"))["first_scale"] == 3.0
    (saved,) = Path("results/models").glob("*/30.pt")
    weights = torch.load(saved, weights_only=True)["learner"]
    assert weights["mixer.scale"].item() != 3.0
    assert weights["mixer.scale"].item() == pytest.approx(3.0, abs=0.1)


# Checkpoints, read by the command line.


@dataclass(frozen=True)
class NamedGameSettings(MatrixGameEnv.Settings):
    map_name: Annotated[str, "what this game is called"] = "none"


class NamedGame(MatrixGameEnv):
    """A payoff game with the name of a map."""

    Settings = NamedGameSettings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with checkpoints at 0, 10, 20 and 30: the folder it ran in."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        status = main(["src/main.py", *GAME, *QUICK, *EVERY_STEP, "save_model_interval=10", "save_buffer=True"])
        assert status == 0
    return folder


@pytest.fixture
def models(trained):
    (folder,) = (trained / "results" / "models").iterdir()
    return folder


@pytest.mark.parametrize("load_step", [0, 10, 19, 21])
def test_evaluating_a_checkpoint_repeats_its_test(cli, trained, models, load_step):
    before = {path: path.stat().st_mtime_ns for path in models.iterdir()}
    result = cli(*GAME, *QUICK, f"checkpoint_path={models}", f"load_step={load_step}", "evaluate=True")
    assert result.status == 0, result.err
    step = {0: 30, 10: 10, 19: 20, 21: 20}[load_step]
    metrics = read_json(Path("results/sacred/1/metrics.json"))
    theirs = read_json(trained / "results/sacred/1/metrics.json")
    assert all(name.startswith("test_") for name in metrics)
    for name, series in metrics.items():
        assert series["steps"] == [step]
        assert series["values"] == [theirs[name]["values"][theirs[name]["steps"].index(step)]]
    assert {path: path.stat().st_mtime_ns for path in models.iterdir()} == before
    assert not Path("results/models").exists()


def test_evaluating_a_run_with_two_models_plays_both(cli, tmp_path):
    game = ["--config=qmix_cadp", "--env-config=matrix_game", "with", "seed=1", "t_max=8", "batch_size=4"]
    sizes = ["buffer_size=40", "test_nepisode=2", "test_interval=8", "save_model_interval=8"]
    assert cli(*game, *sizes).status == 0
    assert cli(*game, *sizes, "evaluate=True", "checkpoint_path=results/sacred/1").status == 0
    trained, played = (read_json(Path(f"results/sacred/{i}/metrics.json")) for i in (1, 2))
    assert {"test_return_mean", "test_teacher_return_mean"} <= played.keys()
    for name, series in played.items():
        assert series["values"] == trained[name]["values"][-1:], name


def test_training_can_start_from_the_networks_of_a_checkpoint(cli, models):
    result = cli(*GAME, *QUICK, "t_max=40", f"checkpoint_path={models}/30.pt", "save_model_interval=10")
    assert result.status == 0, result.err
    metrics = read_json(Path("results/sacred/1/metrics.json"))
    assert metrics["test_return_mean"]["steps"] == [30, 40]
    (fresh,) = Path("results/models").iterdir()
    assert sorted(path.name for path in fresh.glob("*.pt")) == ["40.pt", "best.pt"]


@pytest.fixture
def copied(models, tmp_path):
    """The checkpoints, to be spoilt."""
    return Path(shutil.copytree(models, tmp_path / "copied"))


def test_a_truncated_checkpoint_is_refused(cli, copied):
    whole = (copied / "30.pt").read_bytes()
    (copied / "30.pt").write_bytes(whole[: len(whole) // 3])
    words = ["30.pt", "damaged", "load_step=20"]
    assert_refused(cli(*GAME, *QUICK, f"checkpoint_path={copied}", "evaluate=True"), *words)
    assert_refused(cli("with", f"resume={copied}/30.pt"), "30.pt", "damaged", "The next intact one is", "20.pt")
    assert_nothing_launched()


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "no checkpoint"])
def test_a_run_goes_on_from_the_newest_whole_checkpoint(cli, copied, damage):
    whole = (copied / "30.pt").read_bytes()
    spoilt = {
        "truncated": whole[: len(whole) // 3],
        "a flipped bit": with_a_flipped_bit(whole),
        "no checkpoint": b"hello",
    }[damage]
    (copied / "30.pt").write_bytes(spoilt)
    result = cli("with", f"resume={copied}")
    assert result.status == 0
    (warning,) = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert "30.pt cannot be read" in warning
    assert f"The run resumes from {copied}/20.pt, the next intact one" in warning
    assert checkpoints.load(copied / "30.pt")["progress"]["t_env"] == 30  # written anew
    for file in copied.glob("*.pt"):
        file.write_bytes(spoilt)
    assert_refused(cli("with", f"resume={copied}"), "30.pt", "No other checkpoint in", "is intact")


def with_a_flipped_bit(whole):
    """One in the middle of the largest record, the numbers of a network."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    at = largest.header_offset + 200 + largest.file_size // 2
    return whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :]


@pytest.mark.parametrize(("load_step", "start"), [(20, 20), (14, 10), (99, 30)])
def test_a_run_goes_on_from_the_step_that_is_named(cli, copied, load_step, start):
    result = cli("with", f"resume={copied}", f"load_step={load_step}", "t_max=35")
    assert result.status == 0
    assert f"starting from the checkpoint at {start} environment steps" in result.out
    assert read_json(Path("results/sacred/1/info.json"))["resumed"]["t_env"] == start
    again = cli("with", f"resume={copied}")
    assert "starting from the checkpoint at 35 environment steps" in again.out


def test_two_runs_at_once_do_not_share_a_folder_of_checkpoints(cli, copied):
    before = sorted(path.name for path in copied.glob("*.pt"))
    with checkpoints.locked(copied):
        words = ["A run of this very program has", str(copied), "close it first"]
        assert_refused(cli("with", f"resume={copied}", "t_max=50"), *words)
        assert sorted(path.name for path in copied.glob("*.pt")) == before
        assert not Path("results/sacred/1/model_dir.txt").exists()  # it is no part of the other's run
        evaluated = cli(*GAME, *QUICK, f"checkpoint_path={copied}", "evaluate=True")
        assert evaluated.status == 0
    assert cli("with", f"resume={copied}", "t_max=50").status == 0


def test_a_file_system_without_locks_stops_no_run(cli, copied, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *args: (_ for _ in ()).throw(OSError(37, "No locks available")))
    assert cli("with", f"resume={copied}", "t_max=35").status == 0


def test_a_checkpoint_that_is_not_ours_is_refused(cli, copied):
    torch.save({"weights": torch.zeros(3)}, copied / "30.pt")
    assert_refused(cli("with", f"resume={copied}/30.pt"), "30.pt", "not a checkpoint")
    (copied / "notes.txt").write_text("hello")
    assert_refused(cli(*GAME, *QUICK, f"checkpoint_path={copied}/notes.txt"), "notes.txt", "not a checkpoint")
    assert_nothing_launched()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--config=qmix", "--env-config=matrix_game", "with"], ["learner=s2q_learner (now q_learner)"]),
        ([*GAME, "rnn_hidden_dim=32"], ["rnn_hidden_dim=64 (now 32)"]),
        ([*GAME, "K=1"], ["K=2 (now 1)"]),
        (
            [*GAME, "env_args.payoff=[[1,2],[3,4]]"],
            ["does not fit this run: the environment's sizes differ (n_actions 3 in the checkpoint, 2 here)"],
        ),
        (
            [*GAME, "lr=0.5", "test_interval=7", "rnn_hidden_dim=32"],
            ["does not fit this run: it was made with rnn_hidden_dim=64 (now 32), lr=0.001 (now 0.5)"],
        ),
    ],
)
def test_the_checkpoint_of_another_run_is_refused_with_the_difference(cli, models, args, words):
    result = cli(*args, *QUICK, f"checkpoint_path={models}")
    assert result.status == 1
    assert "Traceback" not in result.err
    (sentence,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    for word in ["does not fit", *words]:
        assert word in sentence
    assert len(sentence) < 600
    assert not Path("results/models").exists()


def test_a_run_does_not_go_on_in_an_environment_of_other_sizes(cli, models):
    result = cli("with", f"resume={models}", "env_args.payoff=[[1,2],[3,4]]")
    assert result.status == 1
    assert "the environment's sizes differ (n_actions 3 in the checkpoint, 2 here)" in result.err


def test_a_resume_may_name_its_own_algorithm_but_no_other(cli, models):
    words = ["--config=qmix", "name=s2q", "leave it out"]
    assert_refused(cli("--config=qmix", "with", f"resume={models}"), *words)
    words = ["--env-config=smax", "env=matrix_game"]
    assert_refused(cli("--env-config=smax", "with", f"resume={models}"), *words)
    assert_nothing_launched()


def test_a_resumed_run_has_its_settings_from_the_checkpoint(cli, models):
    shown = sources(cli("print_config", "with", f"resume={models}", "lr=0.125"))
    assert shown["lr"] == ("0.125", "command line")
    assert shown["resume"] == (f"'{models}'", "command line")
    assert shown["K"] == ("2", "checkpoint")
    assert shown["t_max"] == ("30", "checkpoint")
    assert shown["seed"] == ("3", "checkpoint")
    assert shown["evaluate"] == ("False", None)


def test_a_resume_reads_no_map_again_but_knows_its_own_file_by_it(cli):
    Path("mine.yaml").write_text("extends: vdn\nper_map:\n  one: {mixer: qmix, lr: 0.25}\n")
    Path("here.yaml").write_text(f"env: {__name__}:NamedGame\nenv_args: {{map_name: one}}\n")
    own = ["--config=mine.yaml", "--env-config=here.yaml"]
    assert cli(*own, "with", *QUICK).status == 0
    Path("mine.yaml").write_text(Path("mine.yaml").read_text().replace("0.25", "0.5"))
    (models,) = Path("results/models").iterdir()
    shown = sources(cli("print_config", *own, "with", f"resume={models}"))
    assert shown["lr"] == ("0.25", "checkpoint")
    assert shown["mixer"] == ("'qmix'", "checkpoint")


def test_the_recorded_configuration_is_valid_json(recorded):
    assert json.loads((recorded / "config.json").read_text())["name"] == "s2q"


@pytest.mark.parametrize("how", ["with", "-u"])
@pytest.mark.parametrize("secret", ["mongodb://me:s3cret@localhost/db", "mongodb://localhost/db?tlsKeyPassword=s3cret"])
def test_a_password_in_the_settings_is_refused_even_of_a_run_without_a_record(cli, tmp_path, how, secret):
    done = cli(*GAME, *QUICK, f"mongo_url={secret}", *([] if how == "with" else [how]))
    assert_refused(done, "SHOAL_MONGO_URL", "mongodb://")
    assert "s3cret" not in done.err
    assert not list(tmp_path.rglob("*.pt"))
