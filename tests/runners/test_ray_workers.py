"""runner=ray on a local cluster of two machines: the parallel runner's episodes, and nothing lost but an episode."""

import logging
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from shoal.envs.team import EPISODE_FAILED
from shoal.runners import ray_workers
from shoal.runners.ray_workers import RayRunner, RayRunnerSettings
from shoal.runners.runner import ParallelRunner, ParallelRunnerSettings
from shoal.utils import cluster
from shoal.utils.errors import UserError
from support.launch import all_gone, environment, wait_until
from support.reflex import Reflex
from support.team_env import TeamEnv, TeamEnvSettings, VectorisedTeamEnv, finish, is_unlucky

pytestmark = pytest.mark.slow  # starts a cluster
SEED = 3


@pytest.fixture(scope="module")
def two_machines():
    """The address of a Ray cluster of two machines with two CPUs each, both here."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
    machines = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        machines.add_node(**size)
        yield machines.address
    finally:
        machines.shutdown()


@pytest.fixture
def runner(two_machines):
    """Makes runners on the cluster, and closes them."""
    made = []

    def make(env_class=TeamEnv, env_settings=None, copies=4, envs_per_worker=2, **settings):
        s = RayRunnerSettings(
            batch_size_run=copies, ray_address=two_machines, ray_envs_per_worker=envs_per_worker, **settings
        )
        made.append(RayRunner(s, env_class, env_settings or TeamEnvSettings(), SEED))
        return made[-1]

    yield make
    for one in made:
        one.close()


def in_the_worker(env, group, ask):
    """What a function returns in the Ray worker of a group."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        return env._ray.get(env._actors[group].__ray_call__.remote(ask))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def node_id(_):
    import ray

    return ray.get_runtime_context().get_node_id()


def pid(_):
    return os.getpid()


def process_of(env, group):
    return psutil.Process(in_the_worker(env, group, pid))


def assert_same_rollouts(one, other):
    assert (one.env_steps, one.stats) == (other.env_steps, other.stats)
    assert set(one.batch.keys()) == set(other.batch.keys())
    for key, values in one.batch.items():
        assert values.equal(other.batch[key]), key


@pytest.mark.parametrize("env_class", [TeamEnv, VectorisedTeamEnv], ids=["processes", "vectorised"])
def test_two_machines_play_the_episodes_of_the_parallel_runner(runner, env_class):
    ours = runner(env_class)
    nodes = {
        in_the_worker(ours.env, g, lambda self: __import__("ray").get_runtime_context().get_node_id()) for g in (0, 1)
    }
    assert len(nodes) == 2
    theirs = ParallelRunner(ParallelRunnerSettings(batch_size_run=4), env_class, TeamEnvSettings(), SEED)
    try:
        for test_mode in (False, False, True):
            one, other = (r.run(Reflex(), 0, test_mode=test_mode) for r in (ours, theirs))
            assert_same_rollouts(one, other)
    finally:
        theirs.close()


def test_a_killed_worker_is_replaced_and_its_episodes_are_played_again(runner, caplog):
    ours = runner(env_settings=TeamEnvSettings(with_game=True))
    env = ours.env
    observation, _ = env.reset(seed=[1, 2, 3, 4])
    victim = process_of(env, 0)
    below = victim.children(recursive=True)
    assert len(below) >= 4  # two copies, each with a game
    victim.kill()
    with caplog.at_level(logging.WARNING, "shoal.runners"):
        last = finish(env, observation)
    assert [info.get(EPISODE_FAILED, 0) for info in last] == [1, 1, 0, 0]
    assert [info["seed"] for info in last[2:]] == [3, 4]
    assert "Ray worker 0 is restarted: it was lost (" in caplog.text
    assert all_gone(below, 60)

    observation, _ = env.reset(seed=[5, 6, 7, 8], options={"reset_mask": np.array([False, True, False, False])})
    assert process_of(env, 0).pid != victim.pid
    assert observation["avail_actions"].any(-1).all()
    rollout = ours.run(Reflex(), 0)
    assert rollout.env_restarts == 0
    assert len(rollout.stats["seed"]) == 4


def test_a_worker_lost_within_a_rollout_costs_its_episodes_only(runner):
    ours = runner(env_settings=TeamEnvSettings(step_s=0.05))
    controller, killed = Reflex(), []

    def killing(*args, **kwargs):
        if not killed:
            killed.append(process_of(ours.env, 1))
            killed[0].kill()
        return Reflex.select_actions(controller, *args, **kwargs)

    controller.select_actions = killing
    rollout = ours.run(controller, 0)
    assert rollout.env_restarts == 2
    assert len(set(rollout.stats["seed"])) == 4
    assert sorted(rollout.batch["filled"].sum(1).flatten().tolist()) == sorted(
        v + 1 for v in rollout.stats["ep_length"]
    )


def test_a_silent_worker_is_replaced(runner, monkeypatch):
    ours = runner(copies=1, envs_per_worker=1, env_timeout_s=1.0, env_start_timeout_s=120.0)
    ours.env.reset(seed=[1])
    monkeypatch.setattr(ray_workers, "_MARGIN_S", 2.0)
    victim = process_of(ours.env, 0)
    victim.send_signal(signal.SIGSTOP)
    _, _, _, truncated, infos = ours.env.step(np.zeros((1, 2), dtype=int))
    assert truncated.all()
    assert infos[EPISODE_FAILED].tolist() == [1.0]
    assert "did not answer within 3 seconds" in ours.env.last_failure
    assert all_gone([victim], 60)
    assert len(ours.run(Reflex(), 0).stats["seed"]) == 1


def test_a_copy_that_fails_takes_no_other_with_it_and_is_told_of(runner, caplog):
    unlucky, lucky = (next(seed for seed in range(100) if is_unlucky(seed) == it) for it in (True, False))
    env = runner(copies=2, env_settings=TeamEnvSettings(fault="raise", fault_share=0.5)).env
    observation, _ = env.reset(seed=[unlucky, lucky])
    worker = process_of(env, 0)
    with caplog.at_level(logging.WARNING, "shoal.runners"):
        failed, whole = finish(env, observation)
    assert failed == {EPISODE_FAILED: 1.0}
    assert whole["seed"] == lucky
    assert "Ray worker 0: Environment 0 is restarted: RuntimeError: the game fell over" in caplog.text
    assert env.last_failure == "RuntimeError: the game fell over"
    assert process_of(env, 0) == worker


class Unusable(TeamEnv):
    """Needs what no machine has."""

    def __init__(self, settings):
        raise UserError("Get the game first.")


def test_what_cannot_be_used_says_so_at_once(runner):
    with pytest.raises(UserError, match="Get the game first"):
        runner(Unusable)


def test_what_never_begins_an_episode_is_tried_twice(runner):
    broken = runner(copies=2, env_settings=TeamEnvSettings(fault="raise", fault_at_start=True))
    with pytest.raises(UserError, match=r"could not begin an episode, 2 times in a row .*the game fell over"):
        broken.run(Reflex(), 0)
    assert broken.state_dict()["train"] == 4


class Unbuilt(TeamEnv):
    """Has a fault of its author's."""

    def __init__(self, settings):
        sys.exit(0)


def test_an_environment_that_cannot_be_built_is_said_in_a_sentence(runner):
    with pytest.raises(UserError, match=r"could not be built: it called sys.exit\(0\)"):
        runner(Unbuilt)


@pytest.mark.parametrize(
    ("needs", "machines", "placed"),
    [([4, 1], [5], 2), ([4, 4, 2], [10], 3), ([2, 2, 2], [3, 3], 2), ([0.5] * 3, [1, 0.4], 2), ([1], [], 0)],
)
def test_workers_of_unequal_size_find_room(needs, machines, placed):
    assert ray_workers._placed(needs, machines) == placed


def test_more_than_the_cluster_holds_is_refused(runner):
    with pytest.raises(UserError, match=r"wants 3 workers of up to 2 CPUs, and .* hold 2"):
        runner(copies=6)


def test_a_cluster_that_is_not_there_is_named():
    s = RayRunnerSettings(batch_size_run=1, ray_address="127.0.0.1:1")
    with pytest.raises(UserError, match=r"No Ray cluster can be used at '127.0.0.1:1' \(.*refused"):
        RayRunner(s, TeamEnv, TeamEnvSettings(), SEED)


@pytest.mark.parametrize("wrong", [{"ray_envs_per_worker": 0}, {"ray_cpus_per_env": 0.0}])
def test_settings_are_checked(wrong):
    (key,) = wrong
    with pytest.raises(UserError, match=key):
        RayRunnerSettings(**wrong)


def test_signal_handlers_stay_ours_and_nothing_is_reported(two_machines):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with cluster.joined(two_machines) as ray:
        assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
        assert [(m.cpus, m.gpus) for m in cluster.machines(ray)] == [(2.0, 0.0)] * 2
        with pytest.raises(UserError, match="connected to a Ray cluster already"), cluster.joined(two_machines):
            pass
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


QUICK = "runner={} t_max=12 batch_size=2 buffer_size=20 test_nepisode=2 test_interval=100 save_model=False"
RUN = """
import sys
from shoal.command_line.main import main
status = main(["src/main.py", "--config=iql", "--env-config=matrix_game", "with", *sys.argv[1:]])
print("status", status, "ray" in sys.modules)
"""


@pytest.mark.parametrize("kind", ["parallel", "ray"])
def test_only_a_run_that_asks_for_ray_starts_it_and_it_ends_with_the_run(tmp_path, kind):
    args = [*QUICK.format(kind).split(), "batch_size_run=2", "env=support.plain_game:PlainMatrixGame"]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *args], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    seen = {}

    def ended():
        for child in psutil.Process(process.pid).children(recursive=True):
            seen[child.pid] = child
        return process.poll() is not None

    wait_until(ended, 300, "the run to end")
    assert process.stdout is not None
    assert process.stdout.read().splitlines()[-1] == f"status 0 {kind == 'ray'}"
    assert all_gone(list(seen.values()), 60)
