"""Runs through Ray: as many at a time as there is room for, again when they failed, until all have ended."""

import os
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import shoal
from shoal.sweeps.folder import RunFolder
from shoal.sweeps.host import Ended, Host
from shoal.sweeps.plan import PlannedRun
from shoal.utils import cluster
from shoal.utils.errors import UserError
from shoal.utils.signals import signal_name

State = Literal["waiting", "running", "finished", "failed", "stopped"]


@dataclass
class Job:
    """One run of a sweep, and how it is getting on."""

    run: PlannedRun
    folder: RunFolder
    state: State = "waiting"
    starts: int = 0
    failures: int = 0
    """In a row, without a newer checkpoint between them."""
    machine: str = ""
    note: str = ""
    """What went wrong last."""
    record: Path | None = None
    """Of the finished run."""
    started_at: float = 0.0
    seconds: float = 0.0
    _step_at_start: int = field(default=-1, repr=False)

    def look(self) -> None:
        """Take over what an earlier sweep finished."""
        self.record = self.folder.finished(self.run)
        if self.record is not None:
            self.state = "finished"


@dataclass
class _Flight:
    """A start of a job that has not ended."""

    job: Job
    actor: Any
    ended: Any
    machine: Any


class Pool:
    """Jobs and the Ray workers that hold them.

    Args:
        ray: the module, connected.
        cpus: CPUs that Ray sets aside for each run.
        gpus: GPUs that Ray sets aside for each run.
        at_once: most runs at a time; 0 for as many as there is room for.
        retries: how often in a row a run may fail without having come further, and be started again.
    """

    def __init__(self, ray: Any, cpus: float, gpus: float, at_once: int, retries: int) -> None:
        self._ray = ray
        self._cpus, self._gpus, self._at_once, self._retries = cpus, gpus, at_once, retries
        self._host = ray.remote(Host).options(num_cpus=cpus, num_gpus=gpus, max_concurrency=2, max_restarts=0)
        self._waiting: deque[Job] = deque()
        self._flying: list[_Flight] = []
        self.jobs: list[Job] = []
        self.stopping = False
        if self.room == 0:
            each = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
            there = ", ".join(f"{m.name}: {m.cpus:g} CPUs, {m.gpus:g} GPUs" for m in cluster.machines(ray))
            raise UserError(f"No machine has {each} for a run ({there}): lower --cpus-per-run or --gpus-per-run.")

    @property
    def room(self) -> int:
        """How many runs the machines that are up hold at a time."""
        room = sum(machine.room_for(self._cpus, self._gpus) for machine in cluster.machines(self._ray))
        return min(room, self._at_once) if self._at_once else room

    @property
    def idle(self) -> int:
        """How many more runs could be started now than there are."""
        return max(0, self.room - len(self._flying) - len(self._waiting))

    def add(self, jobs: Iterable[Job]) -> None:
        """Take on jobs; those that are finished are only counted."""
        for job in jobs:
            self.jobs.append(job)
            job.look()
            if job.state == "waiting":
                self._waiting.append(job)

    @property
    def busy(self) -> bool:
        """Whether a job waits or runs."""
        return bool(self._waiting or self._flying)

    def stop(self) -> None:
        """Start nothing any more, and ask what runs to save a checkpoint and end."""
        if self.stopping:
            return
        self.stopping = True
        for job in self._waiting:
            job.state = "stopped"
        self._waiting.clear()
        for flight in self._flying:
            self._locate(flight)
            if flight.machine is None:
                flight.actor.stop.remote()
            else:
                self._ray.kill(flight.actor)  # Ray has no room for it yet

    def turn(self, timeout_s: float) -> list[Job]:
        """Start what there is room for, and wait a moment. Returns the jobs whose state has changed."""
        changed = []
        while self._waiting and len(self._flying) < self.room:
            job = self._waiting.popleft()
            self._start(job)
            changed.append(job)
        if not self._flying:
            time.sleep(timeout_s)  # no machine is up
            return changed
        ended, _ = self._ray.wait([flight.ended for flight in self._flying], timeout=timeout_s)
        for flight in list(self._flying):
            self._locate(flight)
            if flight.ended in ended:
                self._flying.remove(flight)
                self._land(flight)
                changed.append(flight.job)
        return changed

    def _start(self, job: Job) -> None:
        job.state, job.starts, job.machine = "running", job.starts + 1, ""
        job._step_at_start, job.started_at = job.folder.last_step(), time.monotonic()
        cell = job.run.cell
        actor = self._host.remote()
        code = str(Path(shoal.__file__).resolve().parents[1])
        arguments = [str(job.folder.path), cell.config, cell.env_config]
        ended = actor.run.remote(arguments, os.getcwd(), code, str(job.folder.output.absolute()), self._gpus)
        self._flying.append(_Flight(job, actor, ended, actor.machine.remote()))

    def _locate(self, flight: _Flight) -> None:
        if flight.machine is None or not self._ray.wait([flight.machine], timeout=0)[0]:
            return
        try:
            flight.job.machine = self._ray.get(flight.machine)
            flight.job.started_at = time.monotonic()
        except self._ray.exceptions.RayError:
            pass  # it was lost, as its other answer says too
        flight.machine = None

    def _land(self, flight: _Flight) -> None:
        job = flight.job
        job.seconds += time.monotonic() - job.started_at
        try:
            ended: Ended = self._ray.get(flight.ended)
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            ended = Ended(1, f"its Ray worker was lost ({(lines or [type(error).__name__])[-1].rstrip('.')})")
        self._ray.kill(flight.actor)
        job.record = job.folder.finished(job.run)
        if job.record is not None:
            job.state, job.note = "finished", ""
            return
        job.note = ended.why or _why(ended.status, job.folder)
        if self.stopping:
            job.state = "stopped"
            return
        if job.folder.last_step() > job._step_at_start:
            job.failures = 0
        job.failures += 1
        if job.failures > self._retries:
            job.state = "failed"
        else:
            job.state = "waiting"
            self._waiting.appendleft(job)


def _why(status: int, folder: RunFolder) -> str:
    if status == 0:
        return f"it ended well, but its record is not in {folder.path}"
    if status < 0:
        return f"killed by {signal_name(-status)}"
    return folder.last_words() or f"exit status {status}"
