"""Runs as they would be after training, made of numbers."""

import shlex
from pathlib import Path

import numpy as np

from shoal.analysis.records import RecordedRun
from shoal.analysis.starts import read_runs
from shoal.reproduce.declaration import Arm, Trained
from shoal.reproduce.payoff_record import BEHAVIOUR, GREEDY, JOINT_Q, Q_STAR, PayoffRecord, joint_actions
from support.launch import in_process

NAMES = joint_actions(2, 3)


def run(metrics, **config) -> RecordedRun:
    """A run with these metrics, each a list of values or (steps, values); values alone are 100 steps apart."""
    series = {}
    for name, given in metrics.items():
        steps, values = given if isinstance(given, tuple) else ([100 * k for k in range(len(given))], given)
        series[name] = np.array(steps), np.array(values, dtype=float)
    return RecordedRun(Path("runs/1"), {"test_interval": 100, "test_nepisode": 8, **config}, series)


def trained(tmp_path: Path, runs) -> Trained:
    return Trained(runs, tmp_path)


def watched(cwd: Path, arm: Arm, seed: int) -> PayoffRecord:
    """A run of an arm on a payoff game, trained in this process with its results in ``cwd``."""
    assert in_process(cwd, *shlex.split(arm.command(seed))[2:]) == 0
    return PayoffRecord(read_runs([cwd / "results" / "sacred" / "1"])[0])


def payoff_run(paths, env_args, star=False, behaviour=None, **config) -> RecordedRun:
    """A run on a payoff game: ``paths[k][i]`` is where copy k is greedy in test i; tests go from 0 to 8,000."""
    steps = np.linspace(0, 8000, len(paths[0])).astype(int).tolist()
    metrics = {}
    for k, path in enumerate(paths):
        metrics[f"{GREEDY}{k}"] = (steps, [NAMES.index(name) for name in path])
        metrics |= {f"{JOINT_Q}{k}_{name}": (steps, [float(i)] * len(steps)) for i, name in enumerate(NAMES)}
    if star:
        metrics |= {f"{Q_STAR}{name}": (steps, [float(i)] * len(steps)) for i, name in enumerate(NAMES)}
    if behaviour is not None:
        shares = np.asarray(behaviour, dtype=float).ravel() / np.sum(behaviour)
        metrics |= {f"{BEHAVIOUR}{name}": (steps[-1:], [share]) for name, share in zip(NAMES, shares, strict=True)}
    return run(metrics, env="matrix_game", env_args=env_args, **config)
