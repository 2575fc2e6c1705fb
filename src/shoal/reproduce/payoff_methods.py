"""The methods on the payoff games, and the settings that they share."""

from typing import Any

from shoal.reproduce.declaration import Arm

PAPER = "S2Q (arXiv 2602.17062)"
COMMON = {
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
"""What S2Q needs in this game; the settings for SMAC (T=0.1, w_c=0.9) are shown next to it."""

WATCHER = "shoal.reproduce.payoff_watch:Watcher"
BEHAVIOUR_WATCHER = "shoal.reproduce.payoff_watch:BehaviourWatcher"
NO_CLAIM = "none for this game"


def method(
    name: str,
    label: str,
    alg: str,
    changes: dict[str, Any] | None = None,
    paper: str = NO_CLAIM,
    share: int = 1,
    env: str = "matrix_game",
    t_max: int = 4000,
    callback: str = WATCHER,
) -> Arm:
    """An algorithm on a payoff game, with its joint values recorded at every test."""
    settings = {**COMMON, "t_max": t_max, **(changes or {}), "callbacks": [callback]}
    return Arm(name, label, alg, env, settings, paper, share)
