"""A lock between processes: who has it, who waits for it, and what ends it."""

import os
import subprocess
import sys
import threading

from shoal.utils.lock import held, owner_of
from support.launch import environment

HOLD = """
import sys
from pathlib import Path
from shoal.utils.lock import held

with held(Path(sys.argv[1]), wait=False) as got:
    print(got, flush=True)
    sys.stdin.read()
"""


def test_one_holds_it_at_a_time(tmp_path):
    path = tmp_path / "lock"
    with held(path, wait=False) as first:
        assert first
        assert owner_of(path).startswith(f"process {os.getpid()} on ")
        with held(path, wait=False) as second:
            assert not second
    with held(path, wait=False) as third:
        assert third


def test_who_waits_gets_it_when_it_is_free(tmp_path):
    path, got = tmp_path / "lock", threading.Event()

    def wait():
        with held(path, wait=True):
            got.set()

    with held(path, wait=False):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.wait(0.2)
    assert got.wait(10)
    waiting.join()


def test_it_ends_with_the_process_that_held_it(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "True\n"
        with held(path, wait=False) as got:
            assert not got
        assert owner_of(path).startswith(f"process {other.pid} on ")
        other.kill()
        other.wait()
    with held(path, wait=False) as got:
        assert got


def test_where_there_can_be_no_lock_all_get_it(tmp_path):
    path = tmp_path / "no folder" / "lock"
    for _ in range(2):
        with held(path, wait=False) as got:
            assert got
    assert owner_of(path) == ""
