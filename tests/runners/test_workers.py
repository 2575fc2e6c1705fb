"""Worker processes: they leave Ctrl-C to the parent, and they never outlive it."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import psutil
import pytest

from shoal.envs.team import EPISODE_FAILED
from shoal.runners import supervised
from shoal.runners.runner import EpisodeRunner, ParallelRunner
from shoal.runners.supervised import RolloutAbandonedError
from shoal.runners.workers import EnvFactory, HoldAtEnd, WorkerVectorEnv, _become_worker, in_process
from shoal.utils.errors import UserError
from support.hiding_env import PROCESSES, HidingEnv, HidingEnvSettings
from support.launch import all_gone, environment, wait_until, workers_of
from support.team_env import TeamEnv, TeamEnvSettings, finish, first_available, in_this_process, is_unlucky


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
    [
        ("raise", "RuntimeError: the game fell over"),
        ("exit", "process died (exit status 3)"),
        ("hang", "did not answer within 4 s"),
    ],
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


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("segv", "its process died (SIGSEGV)"),
        ("sys_exit", "it called sys.exit(0)"),
        ("eof", "EOFError: the game hung up"),
        ("keyboard", "KeyboardInterrupt"),
        ("memory", "MemoryError"),
        ("long", f"RuntimeError: {'x' * 300}..."),
    ],
)
def test_whatever_ends_a_worker_is_said_in_a_line(fault, why, caplog):
    with workers_playing(1, fault=fault) as env:
        observation, _ = env.reset(seed=[1])
        assert finish(env, observation) == [{EPISODE_FAILED: 1.0}]
    assert env.last_failure == why
    assert f"Environment 0 is restarted: {why}." in caplog.messages
    assert max(map(len, caplog.messages)) < 30_000


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


class CannotClose(TeamEnv):
    """Raises or hangs when it is closed."""

    def close(self):
        if self.settings.fault == "hang":
            time.sleep(600)
        raise RuntimeError("still busy")


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
import sys
import time
from support.hiding_env import HidingEnv, HidingEnvSettings
from shoal.runners.workers import WorkerVectorEnv

if __name__ == "__main__":
    env = WorkerVectorEnv(HidingEnv, HidingEnvSettings(folder=sys.argv[1], how=sys.argv[2]), 2)
    env.reset(seed=[1, 2])
    time.sleep(600)
"""


def noted(folder, n):
    """The processes whose ids lie in ``folder``, once there are ``n``."""
    found = wait_until(lambda: len(list(folder.iterdir())) == n and list(folder.iterdir()), 60, f"{n} processes")
    return [psutil.Process(int(path.name)) for path in found]


@pytest.mark.parametrize("how", PROCESSES)
def test_nothing_outlives_a_parent_that_is_killed(tmp_path, how):
    script, folder = tmp_path / "parent.py", tmp_path / "pids"
    folder.mkdir()
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script), str(folder), how], env=environment())
    try:
        processes = noted(folder, 2 * PROCESSES[how])
        watching = psutil.Process(parent.pid).children()
    finally:
        parent.kill()
        parent.wait()
    assert all_gone(processes + watching, 20)


@pytest.mark.parametrize("runner", [EpisodeRunner, ParallelRunner])
@pytest.mark.parametrize("fault", ["raise", "hang"])
def test_an_environment_that_cannot_be_closed_costs_a_warning(runner, fault, monkeypatch, caplog):
    monkeypatch.setattr(supervised, "CLOSE_PATIENCE_S", 0.2)

    settings = runner.Settings(**({"batch_size_run": 1} if runner is ParallelRunner else {}))
    runner(settings, CannotClose, TeamEnvSettings(fault=fault), 1).close()
    assert "Being closed, the environment failed: " in caplog.messages[-1]
    assert ("TimeoutError: it took more than 0.2 seconds" if fault == "hang" else "still busy") in caplog.messages[-1]
    assert wait_until(lambda: not workers_of(os.getpid()), 10, "the workers' end")


FORGETFUL = """
from support.team_env import TeamEnv, TeamEnvSettings
from shoal.runners.workers import WorkerVectorEnv

if __name__ == "__main__":
    env = WorkerVectorEnv(TeamEnv, TeamEnvSettings(), 2)
    env.reset(seed=[1, 2])
"""


def test_a_program_that_closes_nothing_ends_all_the_same(tmp_path):
    script = tmp_path / "forgetful.py"
    script.write_text(FORGETFUL)
    assert subprocess.run([sys.executable, str(script)], env=environment(), timeout=20).returncode == 0


@pytest.mark.parametrize("how", ["session", "fork", "orphan"])
def test_nothing_outlives_a_worker_that_is_replaced(tmp_path, how):
    settings = HidingEnvSettings(folder=str(tmp_path), how=how, fault="raise")
    env = WorkerVectorEnv(HidingEnv, settings, 1)
    try:
        observation, _ = env.reset(seed=[1])
        processes = noted(tmp_path, PROCESSES[how])
        assert finish(env, observation) == [{EPISODE_FAILED: 1.0}]
        assert all_gone(processes)
    finally:
        env.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_workers_leave_stop_signals_to_the_trainer(signum):
    with workers_playing(1) as env:
        observation, _ = env.reset(seed=[1])
        (worker,) = workers_of(os.getpid())
        worker.send_signal(signum)
        env.step(first_available(observation))
        assert not env.last_failure


def test_what_a_worker_forks_can_be_terminated():
    class Forks(TeamEnv):
        def reset(self, *, seed=None, options=None):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            os.kill(child, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
            return super().reset(seed=seed, options=options)

    _become_worker_and(lambda: Forks(TeamEnvSettings()).reset(seed=1))


def _become_worker_and(work):
    """Do ``work`` in a fork of this process that has become a worker; its exit status must be 0."""
    child = os.fork()
    if child == 0:
        try:
            _become_worker(os.getppid())
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("hangs", ["step", "start"])
def test_who_was_asked_to_stop_waits_for_no_hung_environment(hangs):
    with workers_playing(2, step_timeout_s=600.0, fault="hang", fault_at_start=hangs == "start") as env:
        asked = threading.Event()
        env.stopping = asked.is_set
        threading.Timer(1.0, asked.set).start()
        with pytest.raises(RolloutAbandonedError):
            finish(env, env.reset(seed=[1, 2])[0])


def test_who_was_asked_to_stop_replaces_nobody():
    with workers_playing(2, fault="raise") as env:
        observation, _ = env.reset(seed=[1, 2])
        before = workers_of(os.getpid())
        env.stopping = lambda: True
        with pytest.raises(RolloutAbandonedError, match="the game fell over"):
            finish(env, observation)
        assert workers_of(os.getpid()) == before


def test_too_few_open_files_are_said_in_a_sentence():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 45, hard))
    try:
        with pytest.raises(UserError, match=r"12 environment processes need more open files .*ulimit -n"):
            WorkerVectorEnv(TeamEnv, TeamEnvSettings(), 12)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert wait_until(lambda: not workers_of(os.getpid()), 10, "the workers' end")


@pytest.mark.parametrize("make", [in_process, lambda *build: WorkerVectorEnv(*build, 1)], ids=["here", "workers"])
@pytest.mark.parametrize(
    ("error", "words"), [(RuntimeError("no map"), "RuntimeError: no map"), (SystemExit(0), "exit")]
)
def test_an_environment_that_cannot_be_built_is_said_in_a_sentence(make, error, words):
    class Unbuilt(TeamEnv):
        def __init__(self, settings):
            raise error

    with pytest.raises(UserError, match=f"could not be built: .*{words}"):
        make(Unbuilt, TeamEnvSettings())


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
