"""The ``shoal`` command: the same code as the scripts, told in the words of whoever typed them."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sacred

from shoal.command import COMMANDS, main
from shoal.command_line import main as cli
from shoal.utils.program import started_as
from support.launch import MAIN, environment, read_json

GAME = ["--config=vdn", "--env-config=matrix_game", "with", "runner=episode", "t_max=8", "batch_size=4"]
SMALL = [*GAME, "buffer_size=40", "test_nepisode=2", "rnn_hidden_dim=8", "seed=1"]


@pytest.fixture(autouse=True)
def another_program_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    started_as("")


def test_it_is_what_the_package_installs() -> None:
    project = tomllib.loads((MAIN.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"shoal": "shoal.command:main"}


@pytest.mark.parametrize("words", [[], ["--help"], ["help"]])
def test_its_page_names_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    rows = [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ") and line[2] != " "
    ]
    assert set(COMMANDS) < set(rows)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_more(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([name, "--help"])
    except SystemExit as end:  # argparse's way
        status = int(end.code or 0)
    out = capsys.readouterr().out
    assert status == 0
    assert f"shoal {name}" in out or name in ("list", "print_config")
    assert "src/main.py" not in out
    assert "src/sweep.py" not in out
    assert "python -m" not in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tran"], "did you mean 'train'?"),
        (["lst"], "did you mean 'list'?"),
        (["xyz"], "there are train, evaluate, "),
        (["--config=qmix"], "shoal train --config=qmix"),
        (["with", "t_max=3"], "shoal train with"),
        (["list", "agents"], "list takes nothing else"),
        (["evaluate", "--load_step=3"], "needs a checkpoint first: shoal evaluate results/sacred/7"),
        (["evaluate", "nowhere"], "no checkpoint at nowhere"),
        (["sync"], "shoal sync results/sacred/7"),
        (["export"], "shoal export results/sacred/7"),
        (["train", "--config=qmxi", "--env-config=smax"], "did you mean 'qmix'"),
        (["sweep", "--configs=qmix"], "not understood"),
        (["compare", "report", "nowhere"], "nowhere"),
        (["reproduce", "nothing"], "nothing"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_list_is_that_of_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    ours = capsys.readouterr().out
    assert cli.main(["src/main.py", "--list"]) == 0
    assert capsys.readouterr().out == ours


def test_a_run_is_trained_tested_resumed_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL]) == 0
    record = read_json(tmp_path / "results" / "sacred" / "1" / "run.json")
    assert record["status"] == "COMPLETED"

    assert main(["evaluate", "results/sacred/1", "with", "test_nepisode=5"]) == 0
    tested = read_json(tmp_path / "results" / "sacred" / "2" / "config.json")
    trained = read_json(tmp_path / "results" / "sacred" / "1" / "config.json")
    changed = {key for key in tested if tested[key] != trained[key]}
    assert changed == {"evaluate", "checkpoint_path", "test_nepisode"}
    assert list(read_json(tmp_path / "results" / "sacred" / "2" / "metrics.json")["test_return_mean"]["steps"]) == [8]

    assert main(["train", "with", "resume=results/sacred/1", "t_max=16"]) == 0
    assert main(["evaluate", "results/sacred/3"]) == 0  # a run that went on is no run to go on with
    assert read_json(tmp_path / "results" / "sacred" / "4" / "config.json")["resume"] == ""
    assert main(["print_config", *GAME]) == 0
    assert main(["export", "results/sacred/1"]) == 0
    assert (tmp_path / "team.pt").is_file()
    assert "Traceback" not in capsys.readouterr().err


def test_an_algorithm_may_still_be_named_for_a_test(tmp_path: Path) -> None:
    """With the names of YAML files, their settings count, as before there was ``evaluate``."""
    assert main(["train", *SMALL]) == 0
    start = ["src/main.py", *SMALL, "checkpoint_path=results/sacred/1", "evaluate=True", "test_nepisode=3"]
    assert cli.main(start) == 0
    assert read_json(tmp_path / "results" / "sacred" / "2" / "config.json")["test_nepisode"] == 3


def test_a_stopped_run_is_gone_on_with_by_the_command_that_started_it(tmp_path: Path) -> None:
    words = ["train", "--config=vdn", "--env-config=matrix_game", "with", "runner=episode", "t_max=100000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", *words, "rnn_hidden_dim=8", "test_interval=100000000"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("test at t_env 0"):
            break
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + 15
    assert "stopped by SIGTERM; resume with: python -m shoal train with resume=results/models/" in err


def test_every_option_of_sacred_is_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    page = capsys.readouterr().out
    usage = sacred.Experiment("shoal", save_git_info=False).get_usage("shoal")[1]
    theirs = re.findall(r"^  (-\w)(?: \w+)? (--[\w-]+)(=?)", usage, flags=re.MULTILINE)
    assert len(theirs) > 15
    assert set(re.findall(r"^  (-\w)(?: \w+)? (--[\w-]+)(=?)", page, flags=re.MULTILINE)) == set(theirs)


@pytest.mark.skipif(shutil.which("shoal", path=str(Path(sys.executable).parent)) is None, reason="not installed")
def test_the_installed_command_starts(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "shoal"), "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
