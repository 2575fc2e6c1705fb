"""The soak of benchmarks/kill_soak.py, in short."""

import subprocess
import sys

import pytest

from support.launch import TESTS, environment


@pytest.mark.slow
@pytest.mark.parametrize("case", ["payoff game, one", "payoff game, two workers"])
def test_killed_runs_are_resumed_to_the_record_of_a_run_left_alone(tmp_path, case):
    soak = [sys.executable, str(TESTS.parent / "benchmarks" / "kill_soak.py"), "--kills", "4", "--seed", "3"]
    command = [*soak, "--cases", case, "--folder", str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n4 kills in " in done.stdout
