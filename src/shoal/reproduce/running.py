"""Training what a reproduction still lacks: its arms and seeds as the runs of a sweep, in one folder."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shoal import registry
from shoal.analysis.records import RecordedRun
from shoal.config import files
from shoal.reproduce.declaration import Arm, Reproduction, Trained
from shoal.sweeps import plan
from shoal.sweeps.board import Board
from shoal.sweeps.drive import drive
from shoal.sweeps.folder import SweepFolder
from shoal.sweeps.plan import PlannedRun
from shoal.sweeps.pool import Job, Pool
from shoal.utils import cluster
from shoal.utils.errors import UserError
from shoal.utils.signals import StopRequest

RETRIES = 2


class StoppedError(Exception):
    """A signal stopped the training; what was done is kept."""

    def __init__(self, signum: int, left: int) -> None:
        super().__init__(f"{left} runs are not finished")
        self.signum, self.left = signum, left


@dataclass(frozen=True)
class Options:
    """What a person chooses about a reproduction."""

    seeds: int
    jobs: int
    out: Path
    runs: Path
    """Folder of the folder ``runs``."""
    quick: bool = False


def planned(reproduction: Reproduction, options: Options) -> dict[str, list[PlannedRun]]:
    """Every run of every arm, checked as the command line would check it.

    Raises:
        UserError: a run could not start with its settings.
    """
    quick = reproduction.quick if options.quick else {}
    return {
        arm.name: [
            planned_run(arm, seed, reproduction.id, quick, options.runs)
            for seed in arm.seeds(options.seeds, reproduction.first_seed)
        ]
        for arm in reproduction.arms
    }


def planned_run(arm: Arm, seed: int, source: str, quick: Mapping[str, Any], folder: Path) -> PlannedRun:
    """One run of an arm, checked.

    Raises:
        UserError: it could not start with these settings.
    """
    given = files.Layer(f"reproduction {source}", plan.nested({**arm.settings, **quick}))
    run = plan.planned(plan.Cell(arm.config, arm.env_config, seed), [given], folder / "runs")
    return replace(run, name=f"{arm.name}_seed{seed}")


def train(reproduction: Reproduction, options: Options) -> Trained:
    """Train what the folder of runs does not hold yet. Finished runs are kept, stopped ones continue from a checkpoint.

    Raises:
        UserError: an environment is missing, the folder cannot be used, or runs failed for good.
        StoppedError: a signal asked to stop.
    """
    arms = planned(reproduction, options)
    folder = SweepFolder(options.runs)
    with folder.locked():
        jobs = {name: [Job(run, folder.of(run)) for run in runs] for name, runs in arms.items()}
        every = [job for of_arm in jobs.values() for job in of_arm]
        for job in every:
            job.look()
        done = sum(job.state == "finished" for job in every)
        print(f"{options.runs}: {len(every)} runs, {done} of them finished before", flush=True)
        if done < len(every):
            check_environments([job.run for job in every if job.state != "finished"])
            _train(every, options, reproduction.id)
        return Trained({name: [_record(job) for job in of_arm] for name, of_arm in jobs.items()}, options.out)


def check_environments(runs: list[PlannedRun]) -> None:
    """Make each environment once: a missing package is said in its own sentence, before any run is started.

    Raises:
        UserError: an environment cannot be made.
    """
    settings = [(run.values["env"], run.values["env_args"]) for run in runs]
    different = [one for k, one in enumerate(settings) if one not in settings[:k]]
    # In another process: Ray's processes are forked from this one, and JAX does not bear that.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as elsewhere:
        for name, env_args in different:
            elsewhere.submit(_make, name, env_args).result()


def _make(name: str, env_args: dict[str, Any]) -> None:
    env_class = registry.find("env", name)
    env_class(env_class.Settings(**env_args)).close()


def _train(every: list[Job], options: Options, title: str) -> None:
    """Bring all jobs to their end.

    Raises:
        UserError: some failed for good.
        StoppedError: a signal asked to stop.
    """
    share = min(1.0, (os.cpu_count() or 1) / options.jobs)  # as many side by side as were asked for
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        ray = stack.enter_context(cluster.joined(cluster.HERE))
        pool = Pool(ray, share, 0.0, options.jobs, RETRIES)
        pool.add(every)
        drive(pool, stack.enter_context(Board(title)), stop)
    left = sum(job.state != "finished" for job in every)
    if stop.signum is not None and left:
        raise StoppedError(stop.signum, left)
    failed = [job for job in every if job.state == "failed"]
    if failed:
        named = "; ".join(f"{job.folder.path.name}: {job.note.rstrip('.')}" for job in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise UserError(
            f"{len(failed)} of {len(every)} runs failed ({named}{more}): {failed[0].folder.output} holds all that the "
            "first one printed. Fix it, then give the same command again."
        )


def _record(job: Job) -> RecordedRun:
    assert job.record is not None
    run = job.folder.whole(job.record)
    if run is None:
        raise UserError(f"The record {job.record} cannot be read: delete {job.folder.path} to train this run again.")
    return run
