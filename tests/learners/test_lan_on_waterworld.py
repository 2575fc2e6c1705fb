"""Waterworld for LAN's family: after 100 episodes a codebook has found out that idling is cheap.

In 100 steps idling earns about 1 and uniform actions -54. Corners are full thrust: -75 and what is caught by chance,
whatever is learned. The schedules are those of a run of 1,500 episodes, so nearly all actions are still random.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.recording.console import Console
from shoal.recording.logger import Logger


def greedy_return(tmp_path: Path, alg: str, episodes: int, **settings: Any) -> float:
    """Mean return of ten tests after so many training episodes of 100 steps."""
    pytest.importorskip("pymunk", reason="pip install 'pymunk<7' pygame scipy")
    raw = files.merge(files.load("envs", "sisl", "waterworld"), files.load("algs", alg))
    sizes = {"seed": 1, "buffer_size": 200, "t_max": 150_000, "save_model": False}
    raw = files.merge(raw, sizes | settings | {"env_args": {"env_name": "waterworld", "time_limit": 100}})
    with Console(1, live=False) as console:
        run = Experiment(RunSettings(raw, ExperimentSettings), Logger(None, console), console, tmp_path)
        try:
            for _ in range(episodes):
                run.step()
            torch.manual_seed(0)
            team = run.learner.controller.for_execution()
            returns = [run.runner.run(team, run.progress.t_env, test_mode=True).stats["return"] for _ in range(10)]
        finally:
            run.close()
    return float(np.mean(returns))


@pytest.mark.slow
def test_a_codebook_learns_to_idle(tmp_path: Path) -> None:
    assert greedy_return(tmp_path, "mq_lan", 100, mq_k=50) >= -15


@pytest.mark.slow
def test_corners_cannot_idle(tmp_path: Path) -> None:
    assert greedy_return(tmp_path, "bang_bang_lan", 60) <= -50
