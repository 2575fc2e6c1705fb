"""What the team does while it trains on the payoff game: figure D.1 of the S2Q paper, next to what the formulas say.

    python -m shoal.reproduce s2q-exploration --seeds 3 --jobs 2

Each method learns the game before its optimum moves, then plays on as in training, without learning, and its joint
actions are counted. Epsilon-greedy methods leave their greedy joint action in one agent's action, hardly ever in both;
S2Q follows its sub-values to (B,B) and (C,C).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.reproduce import payoff_methods
from shoal.reproduce.declaration import Arm, Reproduction, Trained, Verdict
from shoal.reproduce.payoff_methods import BEHAVIOUR_WATCHER, OUR_S2Q
from shoal.reproduce.payoff_record import PayoffRecord, records_of

if TYPE_CHECKING:
    import pandas as pd

EPSILON = 0.05
P_FIX = 0.5
OFTEN = 10.0
"""How many times as often as an epsilon-greedy team S2Q must play a joint action that is not the best."""

method = partial(payoff_methods.method, callback=BEHAVIOUR_WATCHER)
METHODS = (
    method("qmix", "QMIX", "qmix"),
    method("ow_qmix", "OW-QMIX", "ow_qmix", {"w": 0.1}),
    method("s2q_T0.1", "S2Q, T=0.1", "s2q", OUR_S2Q | {"T": 0.1}),
    method("s2q", "S2Q, T=1", "s2q", OUR_S2Q),
    method("s2q_T2", "S2Q, T=2", "s2q", OUR_S2Q | {"T": 2.0}),
)


def around(greedy: str, n_actions: int) -> np.ndarray:
    """Law of the joint action when each of two agents plays epsilon-greedily around ``greedy`` ("AB"): [A, A]."""
    agents = np.full((2, n_actions), EPSILON / n_actions)
    agents[[0, 1], [ord(letter) - ord("A") for letter in greedy]] += 1 - EPSILON
    return np.outer(*agents)


def expected(arm: Arm, payoff: np.ndarray, greedy: str) -> np.ndarray:
    """Law of the joint action of a method that has learnt the game: [A, A].

    S2Q's candidates are then AA, BB and CC with their true payoffs; ``greedy`` is where the others are.
    """
    if arm.config != "s2q":
        return around(greedy, len(payoff))
    weight = np.exp(np.diag(payoff) / arm.settings["T"])
    law = (1 - P_FIX) * weight / weight.sum()
    law[0] += P_FIX
    return sum(p * around(letter * 2, len(payoff)) for p, letter in zip(law, "ABC", strict=True))


def measured(runs: Sequence[PayoffRecord]) -> np.ndarray:
    """Mean shares of the joint actions over the runs: [A, A]."""
    shares: np.ndarray = np.mean([run.behaviour for run in runs], axis=0)
    return shares


def tabulate(trained: Trained) -> pd.DataFrame:
    """Expected and measured shares of AA, BB, CC and all others, mean over the runs."""
    import pandas as pd

    rows = []
    for arm in METHODS:
        runs = records_of(trained)[arm.name]
        payoff = np.array(runs[0].settings["env_args"]["payoff"], dtype=float)
        greedy = [run.before for run in runs]
        law = np.mean([expected(arm, payoff, name) for name in greedy], axis=0)
        rows.append({"method": arm.label, "greedy": ", ".join(greedy), "shares": "expected", **cells(law)})
        rows.append({"method": "", "greedy": "", "shares": "measured", **cells(measured(runs))})
    return pd.DataFrame(rows)


def cells(shares: np.ndarray) -> dict[str, str]:
    """AA, BB, CC and all others together, of a law [A, A]."""
    on = np.diag(shares)
    names = ("AA", "BB", "CC", "all others")
    return {name: f"{share:.4f}" for name, share in zip(names, (*on, 1 - on.sum()), strict=True)}


def judge(trained: Trained) -> list[Verdict]:
    """Epsilon-greedy teams stay at one joint action; S2Q plays all three good ones, the best one most often."""
    shares = {name: measured(runs) for name, runs in records_of(trained).items()}
    greedy = {"QMIX": float(shares["qmix"].max()), "OW-QMIX": float(shares["ow_qmix"].max())}
    rarely = max(float(np.delete(np.sort(np.diag(shares[name])), -1).max()) for name in ("qmix", "ow_qmix"))
    AA, BB, CC = np.diag(shares["s2q"])
    hot_AA, hot_BB, hot_CC = np.diag(shares["s2q_T2"])
    return [
        Verdict(
            "epsilon-greedy teams play almost nothing but their greedy joint action",
            ", ".join(f"{label} {share:.3f}" for label, share in greedy.items()) + " of the episodes",
            min(greedy.values()) > 0.9,
        ),
        Verdict(
            "S2Q with T=1 plays (A,A) most often, and (B,B) and (C,C) often enough to notice a change",
            f"(A,A) {AA:.3f}, (B,B) {BB:.3f}, (C,C) {CC:.3f}; epsilon-greedy teams play any of the three that is not "
            f"their greedy one in {rarely:.4f} at most",
            bool(shares["s2q"].max() == AA and min(BB, CC) > OFTEN * rarely),
        ),
        Verdict(
            "with a higher temperature (A,A) is still played most often, the others more often than with T=1",
            f"T=2: (A,A) {hot_AA:.3f}, the two others {hot_BB + hot_CC:.3f}; T=1: {BB + CC:.3f}",
            bool(shares["s2q_T2"].max() == hot_AA and hot_BB + hot_CC > BB + CC),
        ),
    ]


def draw(trained: Trained) -> list[Path]:
    """figure_d1.png."""
    from shoal.reproduce import payoff_figures

    records = records_of(trained)
    panels = [(arm.label, measured(records[arm.name])) for arm in METHODS]
    return [payoff_figures.draw_behaviour(panels, trained.out / "figure_d1.png")]


REPRODUCTION = Reproduction(
    id="s2q-exploration",
    paper=payoff_methods.PAPER,
    figure="figure D.1",
    claim="Epsilon-greedy teams play one joint action; S2Q also plays the suboptimal ones that it tracks, and more so "
    "the higher its temperature.",
    paper_numbers="heat maps only; expected are 0.934 for an epsilon-greedy team's greedy joint action and 0.778, "
    "0.115 and 0.042 for S2Q's (A,A), (B,B) and (C,C) at T=1.",
    arms=METHODS,
    seeds=3,
    minutes=4,
    time_from="estimated from 10 seconds a run, 5 to count what is played and 4 to start",
    draw=draw,
    tabulate=tabulate,
    judge=judge,
    quick={"t_max": 400, "test_interval": 100},
    note="Each team has learned for 4,000 steps, then plays 20,000 episodes as in training. Expected is what "
    "epsilon-greedy and the law of S2Q's choice say of a team that has learned the game.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command under its earlier name."""
    from shoal.reproduce.__main__ import door

    return door(REPRODUCTION, "python -m shoal.analysis.payoff_exploration", argv)


if __name__ == "__main__":
    sys.exit(main())
