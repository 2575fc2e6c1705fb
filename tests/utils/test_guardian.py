"""Processes are found by the mark that they bear, and by nothing else."""

import subprocess
import sys

import psutil
import pytest

from shoal.utils.guardian import Guardian, marked
from support.launch import all_gone, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def guardian():
    it = Guardian()
    yield it
    it.close()


def test_only_what_was_marked_is_ended(guardian):
    other = subprocess.Popen(SLEEP)
    try:
        with guardian.marking("1"):
            first = subprocess.Popen(SLEEP, start_new_session=True)
        with guardian.marking("11"):
            second = subprocess.Popen(SLEEP)
        wait_until(lambda: set(marked(guardian.mark)) == {first.pid, second.pid}, 20, "both")
        guardian.end("1")
        assert first.wait(20) != 0
        assert second.poll() is None
        guardian.close()
        assert second.wait(20) != 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_mark_ends_with_its_context(guardian):
    with guardian.marking("1"):
        pass
    child = subprocess.Popen(SLEEP)
    try:
        wait_until(lambda: psutil.Process(child.pid).environ(), 20, "the start")
        assert marked(guardian.mark) == []
    finally:
        child.kill()
        child.wait()


def test_a_guardian_that_is_not_needed_any_more_goes(guardian):
    process = psutil.Process(guardian._process.pid)
    guardian.close()
    assert all_gone([process])
