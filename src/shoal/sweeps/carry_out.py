"""A sweep from its request to its report: a grid of runs, or a search for settings, through Ray."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shoal.sweeps.board import Board
from shoal.sweeps.drive import drive
from shoal.sweeps.folder import SweepFolder
from shoal.sweeps.pool import Job, Pool
from shoal.sweeps.request import Request
from shoal.sweeps.search import Search, example_of
from shoal.utils import cluster
from shoal.utils.signals import StopRequest

REPORT_FILE = "report.html"


def carry_out(request: Request, again: str) -> int:
    """Run everything that is left to do, and report. Returns the exit status.

    Args:
        request: the sweep.
        again: the command that goes on where this one is stopped.

    Raises:
        UserError: another command is at work on it, or Ray cannot be used.
    """
    if request.options.dry_run:
        for run in request.plan(example_of(request.space), "trial000") if request.search else request.plan():
            print(run.name)
        return 0
    folder = SweepFolder(request.folder)
    with folder.locked():
        signum, jobs, shown = _run(request, folder)
        failed = [job for job in jobs if job.state == "failed"]
        if signum is not None:
            left = sum(job.state != "finished" for job in jobs)
            print(f"stopped by {signal.Signals(signum).name} with {left} runs to do; resume with: {again}")
            return 128 + signum
        reported = _report([job for job in shown if job.state == "finished"], request.folder)
    for job in failed:
        print(f"failed: {job.folder.path.name}: {job.note} (its output: {job.folder.output})", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(jobs)} runs failed; fix the cause, then: {again}", file=sys.stderr)
    return 1 if failed or not reported else 0


def _run(request: Request, folder: SweepFolder) -> tuple[int | None, list[Job], list[Job]]:
    """Run everything to its end, or until a signal asks to stop. Returns that signal, all jobs, and those to report."""
    o = request.options

    def jobs_of(changes: dict[str, Any] | None = None, tag: str = "") -> list[Job]:
        return [Job(run, folder.of(run)) for run in request.plan(changes, tag)]

    search = Search(request.folder, request.search, request.space, jobs_of) if request.search else None
    first = [] if search else jobs_of()
    for job in first:
        job.look()
    if not search and all(job.state == "finished" for job in first):
        print(f"all {len(first)} runs were finished before")
        return None, first, first
    if search and not search.wants_more:
        print(f"all {search.trials} trials were finished before")
        return None, [], _tell(search, request.folder)
    with StopRequest() as stop, cluster.joined(o.address or cluster.HERE) as ray:
        pool = Pool(ray, o.cpus_per_run, o.gpus_per_run, o.jobs, o.retries)
        pool.add(first)
        with Board(request.folder.name) as board:
            board.say(_opening(request, pool, ray))
            drive(pool, board, stop, search)
    return stop.signum, pool.jobs, _tell(search, request.folder) if search else pool.jobs


def _opening(request: Request, pool: Pool, ray: Any) -> str:
    o = request.options
    machines = cluster.machines(ray)
    gpus = sum(machine.gpus for machine in machines)
    done = sum(job.state == "finished" for job in pool.jobs)
    runs = f"{len(pool.jobs)} runs, {done} of them finished before" if not request.search else "search"
    text = f"{request.folder}: {runs}; {pool.room} at a time on {len(machines)} machine{'s' * (len(machines) > 1)}"
    if gpus and not o.gpus_per_run:
        text += (
            f"\nnote: {gpus:g} GPUs are there, which no run will see: --gpus-per-run=1, or a share of 1, gives them out"
        )
    return text


def _tell(search: Search, folder: Path) -> list[Job]:
    """Print and store the best trials. Returns their jobs."""
    for number, value, changes in search.best():
        print(f"trial {number:<4}{value:<10.4g}" + "  ".join(f"{key}={value}" for key, value in changes.items()))
    path = search.write_best(folder)
    if path is not None:
        print(f"best settings {path}")
    return search.best_jobs()


def _report(jobs: Sequence[Job], folder: Path) -> bool:
    """Write the report page of the finished runs. Returns whether there is one."""
    if not jobs:
        return False
    from shoal.analysis.__main__ import main as analysis  # matplotlib and pandas take a second to import

    records = [str(record) for job in jobs if job.record for record in job.folder.chain(job.record)]
    return analysis(["report", *records, "--out", str(folder / REPORT_FILE), "--title", folder.name]) == 0
