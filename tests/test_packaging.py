"""pyproject.toml, requirements.txt and requirements-dev.txt agree, and a run needs nothing but the core."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shoal.utils.extras import CORE, requirements
from support.launch import MAIN, environment

ROOT = MAIN.parents[1]


def lines_of(name: str) -> list[str]:
    stripped = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in stripped if line]


def distribution(line: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0].lower().replace("_", "-")


def test_requirements_txt_is_the_core_and_every_extra_of_a_run() -> None:
    wanted = requirements()
    assert lines_of("requirements.txt") == list(dict.fromkeys([*wanted[CORE], *wanted["all"]]))


def test_requirements_dev_txt_is_what_developers_need_on_top() -> None:
    wanted = requirements()
    assert set(lines_of("requirements-dev.txt")) == set(wanted["dev"]) - set(lines_of("requirements.txt"))


def test_all_holds_every_extra_but_the_tools_and_a_service() -> None:
    """Nor ``onnx``, whose protobuf would keep StarCraft II out of the same environment."""
    wanted = requirements()
    apart = {CORE, "all", "dev", "docs", "onnx", "wandb"}
    parts = {line for extra in wanted if extra not in apart for line in wanted[extra]}
    assert set(wanted["all"]) == parts


def test_version_and_licence() -> None:
    import shoal

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == shoal.__version__
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {shoal.__version__}\n" in citation


@pytest.fixture(scope="module")
def core_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment for processes that can import nothing that only an extra brings."""
    core = {distribution(line) for line in requirements()[CORE]}
    optional = {distribution(line) for line in requirements()["dev"]} - core
    brought_by = importlib.metadata.packages_distributions()
    owners = {name: {owner.lower().replace("_", "-") for owner in found} for name, found in brought_by.items()}
    blocked = sorted(name for name, found in owners.items() if found <= optional)
    assert {"jaxmarl", "jax", "pymongo", "ray", "pandas", "matplotlib", "scipy", "pettingzoo"} <= set(blocked)
    folder = tmp_path_factory.mktemp("core")
    (folder / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "real = PathFinder.find_spec\n"
        "def find_spec(name, path=None, target=None):\n"
        f"    return None if name.partition('.')[0] in {blocked!r} else real(name, path, target)\n"
        "PathFinder.find_spec = find_spec\n"
    )
    return environment(PYTHONPATH=f"{folder}:{environment()['PYTHONPATH']}")


def with_core_alone(core_alone: dict[str, str], folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *args]
    return subprocess.run(command, cwd=folder, env=core_alone, capture_output=True, text=True, timeout=240)


def test_a_run_needs_no_extra(core_alone: dict[str, str], tmp_path: Path) -> None:
    args = ["--config=s2q", "--env-config=matrix_game", "with", "t_max=200", "test_interval=100", "test_nepisode=8"]
    done = with_core_alone(core_alone, tmp_path, str(MAIN), *args)
    assert done.returncode == 0, done.stderr
    assert "test_return_mean" in done.stdout
    assert "no curve was drawn (Drawing needs the Python package 'matplotlib'" in done.stdout
    assert 'pip install -e ".[analysis]"' in done.stdout


@pytest.mark.parametrize(
    ("args", "package", "extra"),
    [
        (["src/main.py", "--config=qmix", "--env-config=smax"], "jax", "smax"),
        (["src/main.py", "--config=qmix", "--env-config=sisl"], "pettingzoo", "sisl"),
        (
            ["src/main.py", "-m", "localhost:1:db", "--config=qmix", "--env-config=matrix_game"],
            "gridfs",
            "mongo",
        ),
        (["src/main.py", "--config=qmix", "--env-config=matrix_game", "with", "runner=ray"], "ray", "sweeps"),
        (["-m", "shoal.analysis", "report", "results"], "jinja2", "analysis"),
    ],
)
def test_what_needs_an_extra_names_it(
    core_alone: dict[str, str], tmp_path: Path, args: list[str], package: str, extra: str
) -> None:
    done = with_core_alone(core_alone, tmp_path, *(str(ROOT / arg) if arg.startswith("src") else arg for arg in args))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert repr(package) in sentence
    assert f'pip install -e ".[{extra}]"' in sentence
