"""Worker processes: they leave Ctrl-C to the parent, and they never outlive it."""

import contextlib
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from runners.launch import all_gone, environment, wait_until, workers_of
from runners.team_env import TeamEnv, TeamEnvSettings, finish, first_available, in_this_process, is_unlucky
from shoal.envs.team import EPISODE_FAILED
from shoal.runners.workers import EnvFactory, HoldAtEnd, WorkerVectorEnv
from shoal.utils.errors import UserError


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


def games_of(workers):
    return [child for worker in workers for child in worker.children(recursive=True)]


@contextlib.contextmanager
def workers_playing(n=2, step_timeout_s=60.0, start_timeout_s=60.0, restart_every=0, **settings):
    env = WorkerVectorEnv(TeamEnv, TeamEnvSettings(**settings), n, step_timeout_s, start_timeout_s, restart_every)
    try:
        yield env
    finally:
        workers = workers_of(os.getpid())
        games = games_of(workers)
        env.close()
        assert all_gone(workers + games)


def test_workers_play_what_the_environment_plays_in_this_process():
    with workers_playing(3) as env:
        ours = in_this_process(TeamEnv, TeamEnvSettings(), 3)
        for seeds, mask in (([5, 6, 7], [1, 1, 1]), ([None, 9, None], [0, 1, 0])):
            options = {"reset_mask": np.array(mask, dtype=bool)}
            one, _ = env.reset(seed=seeds, options=dict(options))
            other, _ = ours.reset(seed=seeds, options=dict(options))
            for _ in range(env.episode_limit):
                for key in one:
                    np.testing.assert_array_equal(one[key], other[key])
                actions = first_available(one)
                one, *theirs, infos = env.step(actions)
                other, *own, expected = ours.step(actions)
                for mine, its in zip(theirs, own, strict=True):
                    np.testing.assert_array_equal(mine, its)
                for key, values in expected.items():
                    np.testing.assert_array_equal(infos[key], values)


def test_workers_ignore_sigint_and_end_when_closed():
    with workers_playing() as env:
        observation, _ = env.reset(seed=[1, 2])
        workers = workers_of(os.getpid())
        assert len(workers) == 2
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        env.step(first_available(observation))
        assert all(worker.is_running() for worker in workers)


@pytest.mark.parametrize("at_start", [False, True], ids=["step", "start"])
@pytest.mark.parametrize(
    ("fault", "why"),
    [("raise", "RuntimeError: the game fell over"), ("exit", "process died"), ("hang", "did not answer within 4 s")],
)
def test_a_copy_that_fails_loses_its_episode_and_is_replaced_with_its_game(fault, why, at_start):
    settings = {"fault": fault, "fault_share": 0.5, "fault_at_start": at_start, "with_game": True}
    with workers_playing(2, step_timeout_s=4.0, **settings) as env:
        unlucky, lucky = (next(s for s in range(100) if is_unlucky(s) == it) for it in (True, False))
        env.reset(seed=[lucky, lucky])
        assert not env.last_failure
        before = workers_of(os.getpid())
        games = games_of(before)
        observation, _ = env.reset(seed=[unlucky, lucky])
        assert observation["avail_actions"].any(-1).all()
        failed, whole = finish(env, observation)
        assert failed == {EPISODE_FAILED: 1.0}
        assert whole["seed"] == lucky
        assert why in env.last_failure
        gone = [worker for worker in before if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE]
        assert len(gone) == 1
        assert all_gone([game for game in games if game not in games_of(workers_of(os.getpid()))])


def test_a_worker_killed_between_steps_loses_its_episode_only():
    with workers_playing(2, with_game=True) as env:
        observation, _ = env.reset(seed=[1, 2])
        victim = psutil.Process(env._workers[0].process.pid)
        games = victim.children()
        victim.kill()
        failed, whole = finish(env, observation)
        assert failed == {EPISODE_FAILED: 1.0}
        assert whole["seed"] == 2
        assert all_gone(games)
        observation, _ = env.reset(seed=[3, 4])
        assert [info["seed"] for info in finish(env, observation)] == [3, 4]


def test_processes_are_renewed_after_as_many_episodes_as_wanted():
    with workers_playing(1, restart_every=2) as env:
        seen = []
        for seed in range(5):
            observation, _ = env.reset(seed=[seed])
            (info,) = finish(env, observation)
            assert info["seed"] == seed
            seen.append(env._workers[0].process.pid)
    assert [seen.index(pid) for pid in seen] == [0, 0, 2, 2, 4]


class Unusable(TeamEnv):
    """Finds out at the first episode that its game is not installed."""

    def reset(self, **kwargs):
        raise UserError("Get the game first.")


def test_an_environment_that_cannot_be_used_is_not_tried_again():
    env = WorkerVectorEnv(Unusable, TeamEnvSettings(), 1)
    with pytest.raises(UserError, match="Get the game first"):
        env.reset(seed=[1])
    env.close()


PARENT = """
import time
from runners.team_env import TeamEnv, TeamEnvSettings
from shoal.runners.workers import WorkerVectorEnv

if __name__ == "__main__":
    env = WorkerVectorEnv(TeamEnv, TeamEnvSettings(with_game=True), 2)
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
        games = games_of(workers)
        assert len(games) == 2
    finally:
        parent.kill()
        parent.wait()
    assert all_gone(workers + games, 5)
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
    assert "note" not in info
