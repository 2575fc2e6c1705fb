"""Worker processes: they leave Ctrl-C to the parent, and they never outlive it."""

import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from runners.launch import all_gone, environment, wait_until, workers_of
from runners.team_env import TeamEnv, TeamEnvSettings
from shoal.runners.workers import EnvFactory, HoldAtEnd, in_workers


def first_available(observation):
    return observation["avail_actions"].argmax(-1)


def test_a_finished_episode_stays_at_its_end_until_reset():
    env = HoldAtEnd(TeamEnv(TeamEnvSettings()))
    observation, _ = env.reset(seed=5)
    over = False
    while not over:
        action = first_available(observation)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    assert info
    held, reward, *flags, info = env.step(action)
    assert all((held[key] == observation[key]).all() for key in held)
    assert (reward, flags, info) == (0.0, [terminated, truncated], {})
    fresh, _ = env.reset(seed=6)
    assert not (fresh["obs"] == observation["obs"]).all()
    env.step(first_available(fresh))


def test_in_this_process_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    EnvFactory(TeamEnv, TeamEnvSettings())().close()
    assert signal.getsignal(signal.SIGINT) is before


def test_workers_ignore_sigint_and_end_when_closed():
    env = in_workers(TeamEnv, TeamEnvSettings(), 2)
    try:
        observation, _ = env.reset(seed=[1, 2])
        workers = workers_of(os.getpid())
        assert len(workers) == 2
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        env.step(first_available(observation))
        assert all(worker.is_running() for worker in workers)
    finally:
        env.close()
    assert all_gone(workers)


def test_an_exception_in_a_worker_is_raised_here_and_leaves_no_process():
    env = in_workers(TeamEnv, TeamEnvSettings(raise_at=0), 2)
    observation, _ = env.reset(seed=[1, 2])
    workers = workers_of(os.getpid())
    with pytest.raises(RuntimeError, match="the game fell over"):
        env.step(first_available(observation))
    env.close()
    assert all_gone(workers)


PARENT = """
import time
from runners.team_env import TeamEnv, TeamEnvSettings
from shoal.runners.workers import in_workers

if __name__ == "__main__":
    env = in_workers(TeamEnv, TeamEnvSettings(), 2)
    env.reset(seed=[1, 2])
    print("ready", flush=True)
    time.sleep(600)
"""


def test_workers_die_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        workers = wait_until(lambda: workers_of(parent.pid), 10, "workers")
        assert len(workers) == 2
    finally:
        parent.kill()
        parent.wait()
    assert all_gone(workers, 5)
    assert not any(psutil.pid_exists(worker.pid) and worker.is_running() for worker in workers)


def test_what_an_episode_is_judged_by_arrives_as_floats_whatever_the_environment_gives():
    class Judged(TeamEnv):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            info |= {"score": 0, "won": np.bool_(True), "share": np.float32(0.5), "note": "text"}
            return observation, reward, terminated, truncated, info

    env = HoldAtEnd(Judged(TeamEnvSettings()))
    observation, _ = env.reset(seed=1)
    info, over = {}, False
    while not over:
        observation, _, terminated, truncated, info = env.step(first_available(observation))
        over = terminated or truncated
    assert {key: type(info[key]) for key in ("score", "won", "share")} == dict.fromkeys(
        ("score", "won", "share"), float
    )
    assert info["note"] == "text"


def test_a_process_of_the_users_own_stays_the_trainer():
    factory = EnvFactory(TeamEnv, TeamEnvSettings())
    before = signal.getsignal(signal.SIGINT)
    factory()
    assert signal.getsignal(signal.SIGINT) is before
    assert factory.trainer == os.getpid()
