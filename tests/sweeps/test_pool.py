"""Which runs are started, started again and given up, with Ray's part played by hand."""

import json
from types import SimpleNamespace

import pytest

from shoal.config import files
from shoal.sweeps.folder import SweepFolder
from shoal.sweeps.host import Ended
from shoal.sweeps.plan import Cell, planned
from shoal.sweeps.pool import Job, Pool
from shoal.utils.errors import UserError


class LostError(Exception):
    """A Ray worker died."""


class HandRay:
    """Ray whose runs end when and how the test says."""

    exceptions = SimpleNamespace(RayError=LostError)

    def __init__(self, *machines):
        self._machines = machines or ((2, 0),)
        self.started, self.stopped, self.killed, self._ended = [], [], 0, {}
        self.placing = True

    def nodes(self):
        return [
            {"NodeManagerHostname": f"node{i}", "Alive": alive, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}}
            for i, (cpus, gpus, *rest) in enumerate(self._machines)
            for alive in [not rest]
        ]

    def remote(self, cls):
        return self

    def options(self, **asked):
        self.asked = asked
        return SimpleNamespace(remote=self._actor)

    def _actor(self):
        number = len(self.started)
        self.started.append(None)

        def run(arguments, *rest):
            self.started[number] = arguments[0].rpartition("/")[2]
            return number

        return SimpleNamespace(
            number=number,
            run=SimpleNamespace(remote=run),
            machine=SimpleNamespace(remote=lambda: f"machine of {number}"),
            stop=SimpleNamespace(remote=lambda: self.stopped.append(number)),
        )

    def end(self, number, how):
        self._ended[number] = how

    def wait(self, refs, timeout):
        ready = [ref for ref in refs if ref in self._ended or (isinstance(ref, str) and self.placing)]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref):
        if isinstance(ref, str):
            return "node0"
        if isinstance(self._ended[ref], Exception):
            raise self._ended[ref]
        return self._ended[ref]

    def kill(self, actor):
        self.killed += 1
        self._ended.setdefault(actor.number, LostError("killed"))


@pytest.fixture
def jobs(tmp_path):
    """Three seeds of one algorithm."""
    given = [files.Layer("command line", {"batch_size": 4, "buffer_size": 40})]
    folder = SweepFolder(tmp_path)
    runs = [planned(Cell("iql", "matrix_game", seed), given, folder.runs) for seed in range(3)]
    return [Job(run, folder.of(run)) for run in runs]


def completed(job, number=1):
    path = job.folder.path / "sacred" / str(number)
    path.mkdir(parents=True)
    (path / "run.json").write_text('{"status": "COMPLETED"}')
    (path / "config.json").write_text(json.dumps(job.run.values))


def checkpoint(job, step):
    path = job.folder.path / "models" / "m"
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{step}.pt").touch()


def states(jobs):
    return [job.state for job in jobs]


def test_as_many_run_as_there_is_room_for_and_finished_ones_are_left_alone(jobs):
    ray = HandRay()
    completed(jobs[1])
    pool = Pool(ray, cpus=2, gpus=0, at_once=0, retries=0)
    pool.add(jobs)
    assert states(jobs) == ["waiting", "finished", "waiting"]
    assert pool.turn(0) == [jobs[0]]
    assert states(jobs) == ["running", "finished", "waiting"]
    assert jobs[0].machine == "node0"
    assert pool.turn(0) == []
    completed(jobs[0])
    ray.end(0, Ended(0))
    assert pool.turn(0) == [jobs[0]]
    assert pool.turn(0) == [jobs[2]]
    completed(jobs[2])
    ray.end(1, Ended(0))
    assert pool.turn(0) == [jobs[2]]
    assert not pool.busy
    assert states(jobs) == ["finished"] * 3
    assert ray.started == ["iql_matrix_game_seed0", "iql_matrix_game_seed2"]
    assert (ray.asked["num_cpus"], ray.asked["num_gpus"], ray.killed) == (2, 0, 2)


@pytest.mark.parametrize(
    ("machines", "cpus", "gpus", "at_once", "room"),
    [
        (((4, 0), (3, 0)), 2, 0, 0, 3),
        (((4, 0), (3, 0)), 2, 0, 2, 2),
        (((8, 2), (8, 0)), 1, 0.5, 0, 4),
        (((8, 1), (8, 1, "down")), 1, 1, 0, 1),
        (((1, 0),), 0.1, 0, 0, 10),
    ],
)
def test_room_is_counted_machine_by_machine(machines, cpus, gpus, at_once, room):
    assert Pool(HandRay(*machines), cpus, gpus, at_once, retries=0).room == room


def test_what_fits_on_no_machine_is_refused():
    with pytest.raises(UserError, match=r"No machine has 4 CPUs and 1 GPUs .*node1: 4 CPUs, 0 GPUs.*lower"):
        Pool(HandRay((2, 1), (4, 0)), cpus=4, gpus=1, at_once=0, retries=0)


@pytest.mark.parametrize(
    ("how", "note"),
    [
        (Ended(-9), "killed by SIGKILL"),
        (Ended(1), "ValueError: bad"),
        (Ended(1, "no such folder"), "no such folder"),
        (Ended(0), "its record is not in"),
        (LostError("\nsome text\nThe worker died.\n"), "its Ray worker was lost (The worker died)"),
    ],
)
def test_a_run_that_fails_is_started_again_and_then_given_up(jobs, how, note):
    ray, (job, *_) = HandRay(), jobs
    job.folder.output.write_text("Traceback\nValueError: bad\n")
    pool = Pool(ray, 1, 0, 0, retries=1)
    pool.add([job])
    for start, state in enumerate(("waiting", "failed")):
        pool.turn(0)
        ray.end(start, how)
        assert pool.turn(0) == [job]
        assert (job.state, job.starts) == (state, start + 1)
        assert note in job.note
    assert not pool.busy


def test_failures_after_which_it_came_further_are_forgiven(jobs):
    ray, (job, *_) = HandRay(), jobs
    pool = Pool(ray, 1, 0, 0, retries=1)
    pool.add([job])
    for start in range(4):
        pool.turn(0)
        checkpoint(job, start)
        ray.end(start, Ended(-9))
        pool.turn(0)
        assert (job.state, job.failures) == ("waiting", 1)
    for start, state in ((4, "failed"),):
        pool.turn(0)
        ray.end(start, Ended(-9))
        pool.turn(0)
        assert job.state == state


def test_stopping_asks_what_runs_and_starts_nothing(jobs):
    ray = HandRay()
    pool = Pool(ray, 1, 0, 0, retries=5)
    pool.add(jobs)
    pool.turn(0)
    pool.stop()
    pool.stop()
    assert ray.stopped == [0, 1]
    assert states(jobs) == ["running", "running", "stopped"]
    completed(jobs[0])
    ray.end(0, Ended(0))
    ray.end(1, Ended(143))
    pool.turn(0)
    assert states(jobs) == ["finished", "stopped", "stopped"]
    assert not pool.busy
    assert len(ray.started) == 2


def test_a_run_that_ray_has_not_placed_is_given_up_when_stopping(jobs):
    ray = HandRay()
    ray.placing = False
    pool = Pool(ray, 1, 0, 0, retries=5)
    pool.add(jobs[:1])
    pool.turn(0)
    pool.stop()
    assert ray.stopped == []
    pool.turn(0)
    assert states(jobs[:1]) == ["stopped"]
    assert not pool.busy


def test_idle_room_is_what_no_job_waits_for(jobs):
    ray = HandRay((5, 0))
    pool = Pool(ray, 1, 0, 0, retries=0)
    assert pool.idle == 5
    pool.add(jobs)
    assert pool.idle == 2
    pool.turn(0)
    assert pool.idle == 2
