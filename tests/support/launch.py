"""Starting the command line in a process of its own, and reading what a run leaves behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from shoal.command_line.main import main
from shoal.recording.series import read_series

TESTS = Path(__file__).resolve().parents[1]
MAIN = TESTS.parent / "src" / "main.py"


def environment(**more: str) -> dict[str, str]:
    """The variables of a process that imports Shoal and these tests, single-threaded and off the GPU."""
    paths = os.pathsep.join([str(MAIN.parent), str(TESTS)])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def in_process(cwd: Path, *args: str) -> int:
    """The command line in this process, in the folder ``cwd``. Returns the exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        return main(["src/main.py", *args])


def start(cwd: Path, *args: str) -> subprocess.Popen[str]:
    """``python src/main.py ARGS``, its output in cwd/out.txt and cwd/err.txt, in a session of its own."""
    with open(cwd / "out.txt", "w") as out, open(cwd / "err.txt", "w") as err:
        return subprocess.Popen(
            [sys.executable, str(MAIN), *args],
            cwd=cwd,
            env=environment(),
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
        )


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """What ``condition`` returns as soon as it is true.

    Raises:
        AssertionError: it did not become true in time.
    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout_s} s in vain for {what}")


def workers_of(pid: int) -> list[psutil.Process]:
    """The environments' worker processes below a process."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def all_gone(processes: list[psutil.Process], timeout_s: float = 10.0) -> bool:
    """Whether the processes end by themselves. One that its new parent has not looked after yet has ended."""
    end = time.monotonic() + timeout_s
    while any(_lives(process) for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def curves(run_dir: Path, after: int = -1) -> dict[str, list[tuple[int, float]]]:
    """metric -> (step, value) of every point recorded later than step ``after``."""
    recorded = {}
    for name, series in read_series(run_dir).items():
        points = [(s, v) for s, v in zip(series["steps"], series["values"], strict=True) if s > after]
        if points:
            recorded[name] = points
    return recorded


class Recorder:
    """Stands where sacred's run does."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = {}

    def log_scalar(self, name: str, value: float, step: int) -> None:
        self.points.setdefault(name, []).append((step, value))
