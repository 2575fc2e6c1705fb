"""Training runs of the payoff game, watched at every test and stored as JSON files, so that each is trained once."""

import contextlib
import io
import itertools
import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.callbacks.callback import Callback
from shoal.components.action_selectors import greedy
from shoal.components.batch import PackedSteps
from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.learners.q_learner import QLearner
from shoal.learners.s2q import S2QLearner
from shoal.learners.value_learner import chosen
from shoal.learners.wqmix import WQMIXLearner
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.recording.provenance import git_commit
from shoal.utils.errors import UserError

QUICK = {
    "batch_size_run": 8,
    "batch_size": 32,
    "buffer_size": 2000,
    "lr": 0.002,
    "epsilon_anneal_time": 1500,
    "target_update_interval": 200,
    "obs_agent_id": True,
    "test_interval": 200,
    "test_nepisode": 8,
    "save_model": False,
    "use_cuda": False,
}
"""Small enough for a run in seconds, the same for every algorithm. Networks have the size that they have on SMAC."""

OUR_S2Q = {"K": 2, "T": 1.0, "w_c": 0.1, "alpha": 1.0, "suppress_floor": 1.0}
"""What S2Q needs in this game; the settings for SMAC (T=0.1, w_c=0.9) are shown beside it."""


@dataclass(frozen=True)
class Method:
    """An algorithm with its settings in the game, under a name for files and a label for people."""

    name: str
    label: str
    alg: str
    changes: dict[str, Any] = field(default_factory=dict)
    claim: str = "none for this game"
    """What the paper says of it there."""
    share: int = 1
    """Trained with one in so many of the seeds."""


@dataclass(frozen=True)
class PayoffRun:
    """A run to be trained: its settings, and how many episodes of training behaviour to count after its end."""

    name: str
    settings: dict[str, Any]
    behaviour_episodes: int = 0

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.settings["seed"])

    def file(self, out: Path) -> Path:
        """Where it is stored."""
        return out / "runs" / f"{self.name}_seed{self.seed}.json"

    def stored(self, out: Path) -> "Record | None":
        """What an earlier command stored of this very run; None where there is nothing, or another one's settings."""
        try:
            content = json.loads(self.file(out).read_text())
        except (OSError, json.JSONDecodeError):
            return None
        asked = json.loads(json.dumps([self.settings, self.behaviour_episodes]))
        return Record(content) if [content["settings"], content["behaviour_episodes"]] == asked else None


class Record:
    """A trained run: what was seen at each of its tests.

    ``steps`` [P], ``greedy`` (names such as "AA", one for each copy, at each test), ``q`` [P, M, A, A], ``q_star``
    [P, A, A] or None, ``behaviour`` [A, A] (shares of the counted episodes; zeros where none were counted).
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        tests = content["tests"]
        self.settings: dict[str, Any] = content["settings"]
        self.commit: str = content["commit"]
        self.seconds: float = content["seconds"]
        self.steps: list[int] = [test["t_env"] for test in tests]
        self.greedy: list[list[str]] = [test["greedy"] for test in tests]
        self.q = np.array([test["q"] for test in tests])
        self.q_star = None if tests[0]["q_star"] is None else np.array([test["q_star"] for test in tests])
        counts = np.array(content["behaviour"], dtype=float)
        self.behaviour = counts / max(counts.sum(), 1)

    @property
    def shift(self) -> int:
        """Index of the last test before the table moved; the last test of all in a game that does not move."""
        shift_at = self.settings["env_args"].get("shift_at")
        return self.steps.index(shift_at) if shift_at is not None else len(self.steps) - 1

    @property
    def before(self) -> str:
        """Q^tot's greedy joint action when the table moved."""
        return self.greedy[self.shift][0]

    @property
    def after(self) -> str:
        """Q^tot's greedy joint action at the end."""
        return self.greedy[-1][0]


def plan(methods: Sequence[Method], env: str, t_max: int, seeds: int, behaviour_episodes: int = 0) -> list[PayoffRun]:
    """Every run of a command, from seed 0 on.

    Raises:
        UserError: ``seeds`` is not positive.
    """
    if seeds < 1:
        raise UserError(f"--seeds {seeds} is not possible: train with at least one seed.")
    return [
        PayoffRun(m.name, settings_of(env, m.alg, seed, t_max=t_max, **m.changes), behaviour_episodes)
        for m in methods
        for seed in range(-(-seeds // m.share))
    ]


def settings_of(env: str, alg: str, seed: int, **changes: Any) -> dict[str, Any]:
    """Unchecked settings: environment, algorithm, the quick preset and ``changes``, each over the one before."""
    config = files.merge(files.read(files.FOLDER / "default.yaml"), files.load("envs", env))
    config = files.merge(config, files.load("algs", alg))
    return files.merge(config, QUICK | {"seed": seed} | changes)


def name_of(actions: Sequence[int]) -> str:
    """Joint action (0, 2) is "AC"."""
    return "".join(chr(ord("A") + action) for action in actions)


class Watcher(Callback):
    """Notes, at every test of an experiment on a one-state game, its greedy joint actions and its joint values."""

    def __init__(self) -> None:
        self.tests: list[dict[str, Any]] = []

    @torch.no_grad()
    def on_test(self, experiment: Experiment, metrics: Mapping[str, float]) -> None:
        learner = experiment.learner
        assert isinstance(learner, QLearner | WQMIXLearner | S2QLearner)
        assert learner.mixer is not None
        spec = learner.spec
        N, A = spec.n_agents, spec.n_actions
        fields = {
            "obs": torch.ones(1, 1, N, spec.obs_dim),
            "state": torch.ones(1, 1, spec.state_dim),
            "avail_actions": torch.ones(1, 1, N, A, dtype=torch.bool),
            "actions": torch.zeros(1, 1, N, dtype=torch.int64),
            "terminated": torch.zeros(1, 1, 1, dtype=torch.bool),
            "filled": torch.ones(1, 1, 1, dtype=torch.bool),
        }
        batch = TensorDict(fields, batch_size=[1, 1])
        steps = PackedSteps.of(batch)
        joint = torch.tensor(list(itertools.product(range(A), repeat=N)))  # [C, N] with C = A^N
        state = batch["state"][0]  # [1, S]

        values, _ = learner.controller.unroll_packed(batch, steps)  # [M, 1, N, A]
        states, maxima = state.expand(len(joint), -1), values.amax(-1).expand(-1, len(joint), -1)
        q = learner.mixer(chosen(values, joint), states, maxima, joint.unsqueeze(0))  # [M, C]
        q_star = None
        if not isinstance(learner, QLearner) and learner.central is not None:
            utilities = learner.central.utilities(batch, steps)  # [1, N, A]
            q_star = _table(learner.central(utilities, joint.unsqueeze(1), state)[:, 0], A)
        best = greedy(values, batch["avail_actions"][0])[:, 0]  # [M, N]
        self.tests.append(
            {
                "t_env": experiment.progress.t_env,
                "greedy": [name_of(actions) for actions in best.tolist()],
                "q": [_table(values_k, A) for values_k in q],
                "q_star": q_star,
            }
        )


def _table(values: Tensor, n_actions: int) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in values.view(-1, n_actions).tolist()]


def train(run: PayoffRun) -> dict[str, Any]:
    """Train one run from start to end. Returns what its file holds."""
    start = time.monotonic()
    watcher = Watcher()
    settings = RunSettings(run.settings, ExperimentSettings)
    # A console's lines would drown those about finished runs.
    with contextlib.redirect_stdout(io.StringIO()), Console(run.settings["t_max"], live=False) as console:
        experiment = Experiment(settings, Logger(None, console), console, Path("unused"), callbacks=[watcher])
        try:
            experiment.run()
            behaviour = count_behaviour(experiment, run.behaviour_episodes)
        finally:
            experiment.close()
    git = git_commit(Path(__file__).parent)
    return {
        "settings": run.settings,
        "behaviour_episodes": run.behaviour_episodes,
        "commit": "unknown" if git is None else git["commit"][:7] + " with changes" * git["dirty"],
        "seconds": round(time.monotonic() - start, 1),
        "tests": watcher.tests,
        "behaviour": behaviour.tolist(),
    }


def count_behaviour(experiment: Experiment, n_episodes: int) -> np.ndarray:
    """How often each joint action is chosen while acting as in training, without learning any more: int ``[A, A]``."""
    spec = experiment.runner.spec
    counts = np.zeros([spec.n_actions] * spec.n_agents, dtype=np.int64)
    for _ in range(0, n_episodes, experiment.runner.n):
        batch = experiment.runner.run(experiment.learner.controller, experiment.progress.t_env).batch
        np.add.at(counts, tuple(batch["actions"][:, 0].T.numpy()), 1)
    return counts


def train_missing(runs: Sequence[PayoffRun], out: Path, jobs: int) -> dict[str, list[Record]]:
    """Train those of the runs that ``out`` does not hold yet, ``jobs`` of them side by side.

    Returns:
        The records of all runs, by name, in the order of ``runs``.

    Raises:
        UserError: ``out`` cannot be written, or jobs is not positive.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs} is not possible: at least one run must be trained at a time.")
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        missing = [run for run in runs if run.stored(out) is None]
        for run in missing:
            run.file(out).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}): choose a folder that can.") from error
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished before", flush=True)
    if jobs == 1 or len(missing) <= 1:
        _train_each(missing, runs, out)
    else:
        _train_side_by_side(missing, runs, out, jobs)
    records: dict[str, list[Record]] = {}
    for run in runs:
        record = run.stored(out)
        assert record is not None
        records.setdefault(run.name, []).append(record)
    return records


def _train_each(missing: Sequence[PayoffRun], all_runs: Sequence[PayoffRun], out: Path) -> None:
    """Train and store one run after the other, with a line for each."""
    parent = multiprocessing.parent_process()
    for run in missing:
        if parent is not None and not parent.is_alive():
            return
        content = train(run)
        part = run.file(out).with_suffix(".part")
        part.write_text(json.dumps(content))
        part.replace(run.file(out))  # whole or not at all, also when interrupted
        record = Record(content)
        done = sum(one.file(out).exists() for one in all_runs)
        print(
            f"[{done}/{len(all_runs)}] {run.name} seed {run.seed}: {record.before} -> {record.after} "
            f"in {record.seconds:.0f} s",
            flush=True,
        )


def _train_side_by_side(missing: Sequence[PayoffRun], all_runs: Sequence[PayoffRun], out: Path, jobs: int) -> None:
    """Share the runs among processes that live until their share is done: importing torch takes as long as a run."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_quietly, args=(missing[i::jobs], all_runs, out)) for i in range(min(jobs, len(missing)))
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()
    if any(process.exitcode for process in processes):
        raise UserError("A process that trained runs has failed: see its own message above.")


def _quietly(missing: Sequence[PayoffRun], all_runs: Sequence[PayoffRun], out: Path) -> None:
    """As ``_train_each``, but Ctrl-C is the parent's to report."""
    with contextlib.suppress(KeyboardInterrupt):
        _train_each(missing, all_runs, out)
