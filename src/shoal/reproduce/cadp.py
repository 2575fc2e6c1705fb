"""CADP: what pruning does to the agents' confidence in each other, and to the team."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.reproduce.declaration import Arm, Reproduction, Trained, Verdict
from shoal.reproduce.judging import FEWEST, higher

if TYPE_CHECKING:
    import pandas as pd

    from shoal.analysis.records import RecordedRun

COMMON = {
    "env_args.map_name": "3m",
    "env_args.sight_range": 7,
    "batch_size": 32,
    "updates_per_rollout": 4,
    "lr": 0.0005,
    "td_lambda": 0.3,
    "epsilon_anneal_time": 50_000,
    "test_interval": 25_000,
    "test_nepisode": 64,
    "t_max": 400_000,
}
BREAKPOINT = 100_000
PRUNED = 0.95
"""Confidence in oneself from which on the matrix counts as the identity."""
CLOSE = 0.05
"""Difference in win rate below which two models count as equal."""
LAST = 5
"""Tests at the end of a run that are averaged."""


def draw(trained: Trained) -> list[Path]:
    """The confidences of the runs with advice, and the learning curves of all."""
    from shoal.analysis import plots
    from shoal.analysis.study import study
    from shoal.reproduce import confidence

    return [
        confidence.draw(trained.runs["qmix_cadp"], trained.out / "confidence.png"),
        plots.curves(study(trained.all), trained.out / "curves.png"),
    ]


def ends(run: RecordedRun) -> dict[str, float]:
    """Win rates at the end of a run, of the deployed model and of the one with advice; NaN where there is none."""
    from shoal.analysis.wins import with_all_wins
    from shoal.recording import metric_names

    (whole,) = with_all_wins([run])
    metric = metric_names.judge(whole.metrics)
    advised = metric.replace(metric_names.TEST, f"{metric_names.TEST}teacher_", 1)
    return {
        "alone (D)": _last(whole, metric),
        "with advice (C)": _last(whole, advised),
    }


def _last(run: RecordedRun, metric: str) -> float:
    return float(run.metrics[metric][1][-LAST:].mean()) if metric in run.metrics else float("nan")


def self_confidence(run: RecordedRun) -> tuple[float, float]:
    """Mean confidence in oneself when pruning begins, and at the end."""
    steps, values = run.metrics["confidence_self"]
    before = values[steps <= run.config["breakpoint"]]
    return float(before[-1] if len(before) else values[0]), float(values[-1])


def tabulate(trained: Trained) -> pd.DataFrame:
    """A row a run: both models at the end, and the confidence in oneself."""
    import pandas as pd

    rows = []
    for arm in CONFIDENCE.arms:
        for run in trained.runs[arm.name]:
            row = {"method": arm.label, "seed": run.config["seed"], **ends(run)}
            if "confidence_self" in run.metrics:
                begin, end = self_confidence(run)
                row |= {"confidence in oneself before pruning": begin, "at the end": end}
            rows.append(row)
    return pd.DataFrame(rows)


def judge(trained: Trained) -> list[Verdict]:
    """The matrix becomes the identity; (D) then is as good as (C); and better than QMIX."""
    advised = trained.runs["qmix_cadp"]
    own = np.array([self_confidence(run) for run in advised])  # [R, 2]
    both = [ends(run) for run in advised]
    alone, helped = (np.array([run[key] for run in both]) for key in ("alone (D)", "with advice (C)"))
    scores = {"QMIX+CADP (D)": alone, "QMIX": np.array([ends(run)["alone (D)"] for run in trained.runs["qmix"]])}
    begin, end = own.mean(axis=0)
    found = f"(C) {helped.mean():.2f}, (D) {alone.mean():.2f} in the last {LAST} tests of {len(both)} runs"
    equal = abs(helped.mean() - alone.mean()) <= CLOSE
    return [
        Verdict(
            f"pruning makes agents rely on themselves alone (confidence in oneself of {PRUNED} or more)",
            f"{begin:.2f} when pruning begins, {end:.2f} at the end",
            bool(end >= PRUNED),
        ),
        Verdict(
            f"after pruning the model that executes alone (D) wins as often as the one with advice (C), to {CLOSE}",
            found if len(both) >= FEWEST else f"{found}, {FEWEST} are the fewest to judge by",
            bool(equal) if len(both) >= FEWEST else None,
        ),
        higher("CADP's (D) wins more than the method it is added to", "QMIX+CADP (D)", scores, "QMIX"),
    ]


CONFIDENCE = Reproduction(
    id="cadp-confidence",
    paper="CADP (AAMAS 2025, extended abstract)",
    figure="equation 3, pruning",
    claim="Agents that advise each other in training are pruned until each attends to itself alone, and then "
    "execute alone as well as together.",
    paper_numbers="none in the extended abstract.",
    arms=(
        Arm("qmix", "QMIX", "qmix", "smax", COMMON),
        Arm("qmix_cadp", "QMIX+CADP", "qmix", "smax", {**COMMON, "agent": "att_rnn", "breakpoint": BREAKPOINT}),
    ),
    seeds=3,
    first_seed=1,
    minutes=75,
    time_from="estimated from 450 (QMIX) and 200 (QMIX+CADP) environment steps a second",
    draw=draw,
    tabulate=tabulate,
    judge=judge,
    quick={
        "t_max": 1500,
        "test_interval": 250,
        "test_nepisode": 8,
        "updates_per_rollout": 1,
        "learner_log_interval": 250,
    },
    note="SMAX's 3m with a sight of 7 instead of 9 stands in for the paper's StarCraft II and football.",
)
