"""Runs that are killed at random moments and resumed until they are done: is their record that of a run left alone?

    python benchmarks/kill_soak.py --kills 30 --seed 1

Four cases (a payoff game and SMAX's 3m, each in one environment and in parallel; the payoff game's in worker
processes) train once undisturbed. Then runs of the same settings get SIGKILL, SIGTERM or SIGHUP, to the trainer alone,
to the trainer and a worker, or to a worker alone: while they start, in mid-training, in tests, and while a checkpoint
is being written. Each is resumed, killed again, and at last left to end. Joined, its records must hold what the
undisturbed run's holds, point for point, and no process may be left. A worker that dies alone stops nothing: its
episode is dropped and another one played, so of those runs the steps must be equal, not the values.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import psutil

from shoal.analysis.records import RecordedRun
from shoal.analysis.starts import joined
from shoal.envs.matrix_game import MatrixGameEnv, MatrixGameSettings
from shoal.recording.reader import read_record
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
MARK = "KILL_SOAK"
"""An environment variable by which all processes of a run are found."""

COMMON = ["seed=5", "save_buffer=True", "batch_size=4", "buffer_size=16", "test_nepisode=4", "target_update_interval=8"]
GAME = [
    *("env_args.shift_at=900", "env_args.time_limit=3", "t_max=1800", "test_interval=90", "epsilon_anneal_time=900"),
    *("save_model_interval=120", "runner_log_interval=30", "learner_log_interval=30"),
]
BATTLE = [
    *("env_args.map_name=3m", "env_args.time_limit=20", "t_max=1200", "test_interval=200", "epsilon_anneal_time=600"),
    *("save_model_interval=150", "runner_log_interval=60", "learner_log_interval=60"),
]
CASES = {
    "payoff game, one": ["--env-config=matrix_game_shift", "with", *GAME, "runner=episode"],
    "payoff game, two workers": [
        *("--env-config=matrix_game_shift", "with", *GAME, "runner=parallel", "batch_size_run=2"),
        "env=kill_soak:GameInWorkers",
    ],
    "3m, one": ["--env-config=smax", "with", *BATTLE, "runner=episode"],
    "3m, four in parallel": ["--env-config=smax", "with", *BATTLE, "runner=parallel", "batch_size_run=4"],
}
KINDS = ("kill", "term", "hup", "kill with a worker", "worker alone")
MOMENTS = ("at any time", "in the loop", "in the loop", "in a save")
SIGNALS = {"kill": signal.SIGKILL, "kill with a worker": signal.SIGKILL, "term": signal.SIGTERM, "hup": signal.SIGHUP}


class GameInWorkers(gymnasium.Wrapper):
    """The payoff game without its vectorised step, so that runner=parallel starts worker processes."""

    Settings = MatrixGameSettings

    def __init__(self, settings: MatrixGameSettings) -> None:
        super().__init__(MatrixGameEnv(settings))


@dataclass
class Outcome:
    """One run, from its first start to its end."""

    case: str
    kills: list[str] = field(default_factory=list)
    starts: int = 0
    equal: bool = False
    left: int = 0
    """Processes that outlived a start of it by ten seconds."""
    note: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--folder", type=Path, help="where to keep all of it (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        outcomes = soak(args.folder or Path(temporary), args.kills, args.cases, args.seed)
    print(f"\n{'case':<28}{'kills':>6}{'starts':>8}  {'record':<9}{'left':>5}  which")
    for one in outcomes:
        which = ", ".join(f"{n} {kind}" for kind, n in sorted(Counter(one.kills).items()))
        record = "equal" if one.equal else "DIFFERS"
        print(f"{one.case:<28}{len(one.kills):>6}{one.starts:>8}  {record:<9}{one.left:>5}  {which} {one.note}")
    total = Counter(kind for one in outcomes for kind in one.kills)
    print(f"{total.total()} kills in {len(outcomes)} runs: " + ", ".join(f"{n} {kind}" for kind, n in total.items()))
    return 0 if all(one.equal and not one.left for one in outcomes) else 1


def soak(folder: Path, kills: int, cases: Sequence[str], seed: int) -> list[Outcome]:
    """Kill ``kills`` times, in turn over the ``cases``; up to three times a run."""
    rng = random.Random(seed)
    whole: dict[str, RecordedRun] = {}
    seconds: dict[str, tuple[float, float]] = {}
    outcomes: list[Outcome] = []
    done = 0
    while done < kills:
        case = cases[len(outcomes) % len(cases)]
        if case not in whole:
            alone = Soaked(folder / f"whole {len(whole)}", case)
            seconds[case] = alone.run_to_the_end()
            whole[case] = alone.record()
        run = Soaked(folder / f"run {len(outcomes)}", case)
        outcome = Outcome(case)
        for _ in range(min(rng.randint(1, 3), kills - done)):
            kind = rng.choice(KINDS if "workers" in case else KINDS[:3])
            moment = rng.choice(MOMENTS)
            if run.start_and_kill(kind, moment, rng.random(), seconds[case]):
                outcome.kills.append(f"{kind} {moment}")
                done += 1
            else:
                break  # it was done before
        run.run_to_the_end()
        outcome.starts, outcome.left, outcome.note = run.starts, run.left, run.note
        alone_died = any(kill.startswith("worker alone") for kill in outcome.kills)
        outcome.equal = _points(run.record(), alone_died) == _points(whole[case], alone_died)
        outcomes.append(outcome)
        print(outcome, flush=True)
    return outcomes


def _points(run: RecordedRun, steps_alone: bool) -> dict[str, Any]:
    return {
        name: steps.tolist() if steps_alone else (steps.tolist(), values.tolist())
        for name, (steps, values) in run.metrics.items()
    }


class Soaked:
    """A run in a folder of its own, started as often as it takes."""

    def __init__(self, folder: Path, case: str) -> None:
        folder.mkdir(parents=True)
        self.folder, self.case = folder, case
        self.starts = self.left = 0
        self.note = ""

    @property
    def models(self) -> Path | None:
        """The folder of checkpoints to go on with."""
        found = [path for path in (self.folder / "results" / "models").glob("*") if checkpoints.steps_in(path)]
        return found[0] if found else None

    def record(self) -> RecordedRun:
        """The records of the starts that ended in the one that is complete, as one."""
        records = []
        for path in (self.folder / "results" / "sacred").glob("*/run.json"):
            try:
                records.append(read_record(path.parent))
            except UserError:  # killed before it had written what it is
                continue
        assert self.models is not None
        (run,) = (run for run in joined(records) if Path(run.records[-1].model_dir).name == self.models.name)
        assert run.status == "COMPLETED", run.status
        return run

    def start(self) -> subprocess.Popen[str]:
        """From the newest checkpoint, or anew where there is none."""
        self.starts += 1
        models = self.models
        arguments = ["--config=s2q", *CASES[self.case], *COMMON] if models is None else ["with", f"resume={models}"]
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "benchmarks")]),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            MARK: str(self.folder),
        }
        with open(self.folder / f"out{self.starts}.txt", "w") as out:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "src" / "main.py"), *arguments],
                cwd=self.folder,
                env=variables,
                stdout=out,
                stderr=out,
                text=True,
                start_new_session=True,
            )

    def run_to_the_end(self) -> tuple[float, float]:
        """Seconds until it trains, and seconds from there to its end."""
        began = time.monotonic()
        process = self.start()
        try:
            _wait(lambda: self._trains() or process.poll() is not None, 600)
            trains = time.monotonic()
            status = process.wait(1800)
        finally:
            process.kill()
        self._look_for_rest()
        assert status == 0, (self.folder / f"out{self.starts}.txt").read_text()[-3000:]
        return trains - began, time.monotonic() - trains

    def start_and_kill(self, kind: str, moment: str, share: float, seconds: tuple[float, float]) -> bool:
        """False if it came to its end before."""
        process = self.start()
        try:
            self._wait_for(moment, share, seconds, process)
            workers = _workers(process)
            if kind in ("kill with a worker", "worker alone") and workers:
                workers[0].kill()
            elif kind == "worker alone":
                return self._cut(process, "kill")  # it has none yet
            if kind != "worker alone":
                return self._cut(process, kind)
            ended = process.wait(1800)
            assert ended == 0, (self.folder / f"out{self.starts}.txt").read_text()[-3000:]
            self._look_for_rest()
            return bool(workers)
        finally:
            process.kill()
            process.wait()

    def _cut(self, process: subprocess.Popen[str], kind: str) -> bool:
        came_to_its_end = process.poll() is not None
        process.send_signal(SIGNALS[kind])
        process.wait(600)
        self._look_for_rest()
        return not came_to_its_end

    def _wait_for(self, moment: str, share: float, seconds: tuple[float, float], process: subprocess.Popen) -> None:
        if moment == "at any time":
            time.sleep(share * sum(seconds))
            return
        _wait(lambda: self._trains() or process.poll() is not None, 600)
        time.sleep(0.6 * share * seconds[1])
        if moment == "in a save":
            _wait(lambda: list(self.folder.glob("results/models/*/*.part")) or process.poll() is not None, 600)

    def _trains(self) -> bool:
        return "trained parameters" in (self.folder / f"out{self.starts}.txt").read_text()

    def _look_for_rest(self) -> None:
        def rest() -> list[psutil.Process]:
            return [p for p in psutil.process_iter() if _environment(p).get(MARK) == str(self.folder)]

        end = time.monotonic() + 10
        while rest() and time.monotonic() < end:
            time.sleep(0.1)
        for process in rest():
            self.left += 1
            self.note += f" left: {' '.join(process.cmdline())[:80]}"
            process.kill()


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def _workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        children = psutil.Process(process.pid).children()
        return [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    except psutil.Error:
        return []


def _wait(condition: Callable[[], Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened within {seconds} s")
        time.sleep(0.002)


if __name__ == "__main__":
    sys.exit(main())
