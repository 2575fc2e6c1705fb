"""The soak of benchmarks/kill_soak.py, in short."""

import kill_soak
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("case", ["payoff game, one", "payoff game, two workers"])
def test_killed_runs_are_resumed_to_the_record_of_a_run_left_alone(tmp_path, case):
    outcomes = kill_soak.soak(tmp_path, kills=4, cases=[case], seed=3)
    assert sum(len(one.kills) for one in outcomes) == 4
    assert [(one.equal, one.left, one.note) for one in outcomes] == [(True, 0, "")] * len(outcomes)
