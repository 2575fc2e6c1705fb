"""How far a run has come, and what its episodes were like on average."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shoal.recording import metric_names


@dataclass
class Progress:
    """The counters of a run; with the random states, all that decides what it does next."""

    t_env: int = 0
    episode: int = 0
    env_restarts: int = 0
    episodes_dropped: int = 0
    last_test: int | None = None
    last_result: dict[str, float] = field(default_factory=dict)
    """What the last test measured: the result of a run that is resumed behind its final test."""
    last_runner_log: int = 0
    last_learner_log: int = 0
    last_save: int = 0
    since_log: dict[str, list[float]] = field(default_factory=dict)
    info_keys: list[str] = field(default_factory=list)
    """What the environment's infos have held so far: an episode without one of them counts 0."""
    best: list[float] = field(default_factory=list)
    """The score of the best test so far (``metric_names.score``); empty before there is one."""

    def due(self, last: int | None, interval: int) -> bool:
        """Whether ``interval`` environment steps have passed since ``last``."""
        return last is None or self.t_env - last >= interval


def summary(
    stats: Mapping[str, Sequence[float]], prefix: str = "", info_keys: Collection[str] = ()
) -> dict[str, float]:
    """Means over episodes under PyMARL's names: ``return_mean``, ``ep_length_mean``, ``battle_won_mean``, ``win_rate``.

    The denominator is the episodes that were played: one without a key of the environment's, ``info_keys`` included,
    counts 0 there, as in PyMARL. Only a share of kinds of action leaves out episodes, those without a choice.
    """
    returns = stats.get(metric_names.RETURN, ())
    metrics = {}
    for key in dict.fromkeys([*stats, *info_keys]):
        values = stats.get(key, ())
        missing = 0 if metric_names.is_episode_key(key) else len(returns) - len(values)
        if len(values) + missing:
            metrics[metric_names.metric_of(key, prefix)] = float(np.mean([*values, *[0.0] * missing]))
    if returns:
        metrics[f"{prefix}return_std"] = float(np.std(returns))
    return metrics
