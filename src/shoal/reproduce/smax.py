"""The S2Q paper's battles on SMAX, our stand-in for StarCraft: its learning curves and its analysis of actions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.reproduce.declaration import Arm, Reproduction, Trained, Verdict
from shoal.reproduce.judging import higher

if TYPE_CHECKING:
    import pandas as pd

    from shoal.analysis.records import RecordedRun
    from shoal.analysis.study import Study

PAPER = "S2Q (arXiv 2602.17062)"
COMMON = {
    "batch_size": 32,
    "updates_per_rollout": 4,
    "lr": 0.0005,
    "td_lambda": 0.3,
    "epsilon_anneal_time": 50_000,
    "test_interval": 25_000,
    "test_nepisode": 32,
}
"""Fewer environment steps between updates than in the paper: what a few hundred thousand steps can show."""
QUICK = {"t_max": 1500, "test_interval": 500, "test_nepisode": 8, "updates_per_rollout": 1, "learner_log_interval": 500}
METHODS = {"s2q": "S2Q", "ow_qmix": "OW-QMIX", "qplex": "QPLEX", "qmix": "QMIX"}


def _study(trained: Trained) -> Study:
    from shoal.analysis.study import study

    return study(trained.all, score="tail")


def draw_curves(trained: Trained) -> list[Path]:
    """The learning curves with 95% intervals, and how fast a win rate of 0.2 is reached."""
    from shoal.analysis import plots

    made = _study(trained)
    return [
        plots.curves(made, trained.out / "curves.png"),
        plots.efficiency(made, 0.2, trained.out / "efficiency.png", "until a test wins 20%"),
    ]


def tabulate_curves(trained: Trained) -> pd.DataFrame:
    """Every run's last test, best test and mean of the last tests."""
    import pandas as pd

    made = _study(trained)
    rows = []
    for name, runs in trained.runs.items():
        for run in runs:
            values = values_of(made, run)
            last, best = float(values[-1]), float(values.max())
            row = {"method": METHODS[name], "seed": run.config["seed"], "steps": made.horizon(run.task)}
            rows.append(row | {"last test": last, "mean of the last tests": tail(values), "best test": best})
    return pd.DataFrame(rows)


def values_of(made: Study, run: RecordedRun) -> np.ndarray:
    """What a run is judged by, at the study's common tests ``[P]``."""
    from shoal.analysis.wins import with_all_wins

    (whole,) = with_all_wins([run])
    steps, values = whole.metrics.get(made.metric, (np.zeros(1), np.zeros(1)))  # it never won
    return np.asarray(np.interp(made.grids[run.task], steps, values))


def tail(values: np.ndarray) -> float:
    """Mean of the last tenth of the tests, at least five."""
    return float(values[-max(5, -(-len(values) // 10)) :].mean())


def judge_curves(trained: Trained) -> list[Verdict]:
    """S2Q above each of the others, at the end and over the whole of training."""
    made = _study(trained)
    values = {METHODS[name]: [values_of(made, run) for run in runs] for name, runs in trained.runs.items()}
    ends = {label: np.array([tail(run) for run in runs]) for label, runs in values.items()}
    whole = {label: np.array([run.mean() for run in runs]) for label, runs in values.items()}
    return [
        verdict
        for other in list(values)[1:]
        for verdict in (
            higher(f"S2Q ends above {other} (mean of the last tests)", "S2Q", ends, other),
            higher(f"S2Q learns faster than {other} (mean of all tests)", "S2Q", whole, other),
        )
    ]


COMPARISON = Reproduction(
    id="s2q-smax",
    paper=PAPER,
    figure="figure 5",
    claim="S2Q converges faster and ends higher than the methods it is compared with, most of all on hard maps.",
    paper_numbers="table 1 has a mean win rate of 73.4% for S2Q and 43.9% for QMIX over SMAC-Hard+'s six maps; "
    "curves only for the others.",
    arms=tuple(
        Arm(name, label, name, "smax", {"env_args.map_name": "3s5z", **COMMON, "t_max": 300_000})
        for name, label in METHODS.items()
    ),
    seeds=3,
    first_seed=1,
    minutes=120,
    time_from="10 to 37 minutes a run, measured on a shared machine",
    draw=draw_curves,
    tabulate=tabulate_curves,
    judge=judge_curves,
    quick=QUICK,
    note="SMAX's 3s5z stands in for StarCraft II, and 300,000 environment steps for the paper's millions: this is the "
    "beginning of learning.",
)


# What the sub-values hold.


def draw_actions(trained: Trained) -> list[Path]:
    """Kinds of action in tests, and of the candidates of S2Q's sub-values."""
    from shoal.reproduce import actions

    return [actions.draw(trained.all, trained.out / "actions.png")]


def tabulate_actions(trained: Trained) -> pd.DataFrame:
    """Shares at the first and the last test; of the candidates over the first and the last quarter of their records."""
    import pandas as pd

    rows = []
    for metric in shown_metrics(trained.all[0]):
        begin, end = np.mean([ends(run, metric) for run in trained.all if metric in run.metrics], axis=0)
        rows.append({"share": metric, "at first": begin, "in the end": end})
    return pd.DataFrame(rows)


def shown_metrics(run: RecordedRun) -> list[str]:
    """Shares of attacks and moves, in tests and of each sub-value's candidate."""
    kinds = ("attack", "move", "stop")
    copies = sorted(name.rpartition("_")[2] for name in run.metrics if name.startswith("candidate_attack_"))
    return [*(f"test_action_{kind}_mean" for kind in kinds), *(f"candidate_{k}_{c}" for c in copies for k in kinds)]


def ends(run: RecordedRun, metric: str) -> tuple[float, float]:
    """A metric's mean over the first and the last quarter of its records; of a test's, its first and last value."""
    values = run.metrics[metric][1]
    width = 1 if metric.startswith("test_") else max(1, len(values) // 4)
    return float(values[:width].mean()), float(values[-width:].mean())


def judge_actions(trained: Trained) -> list[Verdict]:
    """The team turns to attacking as it wins more, and sub-values held attacks that Q^tot did not choose at first."""
    hits = np.array([ends(run, "test_action_attack_mean") for run in trained.all])  # [R, 2]
    copies = {
        name for run in trained.all for name in run.metrics if name.startswith("candidate_attack_") and name[-1] != "0"
    }
    candidates = np.array(
        [
            [ends(run, "candidate_attack_0")[0], max(ends(run, name)[0] for name in copies)]
            for run in trained.all
            if "candidate_attack_0" in run.metrics
        ]
    )
    grows = Verdict(
        "the share of attacks grows as training continues",
        f"from {hits[:, 0].mean():.2f} in the first test to {hits[:, 1].mean():.2f} in the last",
        bool((hits[:, 1] > hits[:, 0]).all()),
    )
    claim = "at first Q^tot's candidate moves, while a sub-value tracks attacks as the alternative"
    if not len(candidates):
        return [grows, Verdict(claim, "no candidates were recorded: the runs are too short", None)]
    mine, theirs = candidates.mean(axis=0)
    found = f"in the first quarter {mine:.2f} of Q^tot's choices attack, {theirs:.2f} of the most attacking sub-value's"
    return [grows, Verdict(claim, found, bool((candidates[:, 1] > candidates[:, 0]).all()))]


ACTIONS = Reproduction(
    id="smax-actions",
    paper=PAPER,
    figure="figure 7",
    claim="On 6h_vs_8z the team learns to attack instead of running away; S2Q's sub-values hold attacking before Q^tot "
    "turns to it.",
    paper_numbers="curves only.",
    arms=(Arm("s2q", "S2Q", "s2q", "smax", {"env_args.map_name": "6h_vs_8z", **COMMON, "t_max": 150_000}),),
    seeds=1,
    first_seed=1,
    minutes=30,
    time_from="estimated from 100 environment steps a second",
    draw=draw_actions,
    tabulate=tabulate_actions,
    judge=judge_actions,
    quick=QUICK,
    note="SMAX's 6h_vs_8z stands in for StarCraft II's, and 150,000 environment steps for the paper's millions; "
    "epsilon falls within 50,000 steps.",
)
