"""Train QMIX on a SMAX battle, note its best test, and test the trained team in 100 more episodes.

python examples/train.py
"""

from pathlib import Path
from typing import Any

import shoal
from shoal.callbacks import Callback


class Best(Callback):
    """Remembers the best test so far. (For metrics in a file or at W&B, see shoal.callbacks.)"""

    def __init__(self) -> None:
        self.win_rate, self.t_env = 0.0, 0

    def on_test(self, experiment: Any, metrics: Any) -> None:
        if metrics["test_battle_won_mean"] > self.win_rate:
            self.win_rate, self.t_env = metrics["test_battle_won_mean"], experiment.progress.t_env


def main(**changes: Any) -> Path | None:
    """Train with these settings changed. Returns the folder of the run's record."""
    best = Best()
    settings = {"map_name": "3m", "lr": 5e-4, "t_max": 500_000, "seed": 1} | changes
    with shoal.make("qmix", "smax", callbacks=[best], **settings) as run:
        run.train()
        tested = run.test(100)  # episodes of the last policy, which are not recorded
    print(f"best test {best.win_rate:.0%} at t_env {best.t_env:,}; 100 more episodes: {tested['test_return_mean']:.2f}")
    print(f"continue it: shoal.resume({str(run.record)!r}, t_max=1_000_000)")
    return run.record


if __name__ == "__main__":  # worker processes import this file
    main()
