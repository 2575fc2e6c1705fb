"""CTDE^2: MQ-LAN and what it is compared with on SISL, next to policies that learn nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.reproduce.declaration import Arm, Reproduction, Trained, Verdict
from shoal.reproduce.judging import FEWEST, higher

if TYPE_CHECKING:
    import pandas as pd

    from shoal.analysis.comparison import Comparison
    from shoal.analysis.study import Study
    from shoal.reproduce.sisl import Baselines

PAPER = "CTDE^2: Continuous Training Discrete Execution"
TASKS = {
    "waterworld": {"env_args.time_limit": 100, "t_max": 150_000, "test_interval": 5_000},
    "multiwalker": {"env_args.time_limit": 200, "t_max": 100_000, "test_interval": 4_000},
}
COMMON = {"batch_size": 16, "buffer_size": 1000, "test_nepisode": 5, "save_model_interval": 25_000}
METHODS = {"mq_lan": "MQ-LAN", "qf_lan": "QF-LAN", "bang_bang_lan": "Bang-Bang LAN"}
QUICK = {"t_max": 500, "test_interval": 100, "test_nepisode": 1, "batch_size": 2, "learner_log_interval": 100}
BASELINE_EPISODES = 40


def arm(method: str, task: str) -> Arm:
    """One method on one task of SISL."""
    settings = {"env_args.env_name": task, **TASKS[task], **COMMON}
    if method == "mq_lan":
        settings["mq_k"] = 50
    return Arm(f"{method}_{task}", METHODS[method], method, "sisl", settings)


def study_of(trained: Trained) -> Study:
    """The runs, each scored by the mean of its last tests."""
    from shoal.analysis.study import study
    from shoal.recording.metric_names import TEST_RETURN

    return study(trained.all, TEST_RETURN, "tail")


def baselines_of(trained: Trained) -> Baselines:
    """What policies that learn nothing earn in the same games; played once, then read."""
    from shoal.analysis import tables
    from shoal.reproduce import sisl, sisl_baselines

    horizons = sisl.horizons_of(study_of(trained))
    files = []
    for task, steps in horizons.items():
        file = trained.out / f"{task}_baselines.csv"
        if not file.exists():
            scores = sisl_baselines.measure(task, steps, BASELINE_EPISODES)
            tables.write_csv(sisl_baselines.episodes_of(scores, task, steps), file)
        files.append(file)
    return sisl.read_baselines(files, horizons)


def draw(trained: Trained) -> list[Path]:
    """Learning curves, aggregates and probabilities of improvement; the last two as tables, too."""
    from shoal.analysis import plots, tables
    from shoal.analysis.comparison import compare
    from shoal.reproduce import sisl

    made = study_of(trained)
    comparison, out = compare(made), trained.out
    by_scale = sisl.scaled(made, comparison, baselines_of(trained))
    return [
        plots.curves(made, out / "curves.png"),
        plots.aggregates(made, comparison, out / "aggregates.png"),
        plots.improvements(made, comparison, out / "improvements.png"),
        *tables.write(sisl.iqm_table(by_scale), out / "iqm"),
        *tables.write(tables.improvements_table(comparison), out / "improvements"),
    ]


def tabulate(trained: Trained) -> pd.DataFrame:
    """Every policy and method on each task: return, interval, and what became of the gains."""
    from shoal.reproduce import sisl

    return sisl.returns_table(study_of(trained), baselines_of(trained))


def judge(trained: Trained) -> list[Verdict]:
    """Order of the methods over both tasks and on each, and whether runs of MQ-LAN collapse."""
    from shoal.analysis.comparison import compare

    made = study_of(trained)
    comparison = compare(made)
    by_task = {
        task: {METHODS[name]: made.cells[name, task].scores for name in METHODS if (name, task) in made.cells}
        for task in made.tasks
    }
    both = {METHODS[name]: scores for name, scores in comparison.scores.items()}
    claims = [
        iqm_verdict(comparison),
        higher("MQ-LAN beats Bang-Bang LAN over both tasks (probability 0.60)", "MQ-LAN", both, "Bang-Bang LAN"),
        higher("MQ-LAN beats QF-LAN over both tasks (probability 0.71)", "MQ-LAN", both, "QF-LAN"),
    ]
    water, walk = by_task["waterworld"], by_task["multiwalker"]
    return [
        *claims,
        higher("on Waterworld MQ-LAN does well where Bang-Bang LAN fails", "MQ-LAN", water, "Bang-Bang LAN"),
        higher("on Multiwalker Bang-Bang LAN is far ahead of MQ-LAN", "Bang-Bang LAN", walk, "MQ-LAN"),
        higher("on Multiwalker QF-LAN is slightly ahead of MQ-LAN", "QF-LAN", walk, "MQ-LAN"),
        collapse_verdict(trained, made),
    ]


def iqm_verdict(comparison: Comparison) -> Verdict:
    """MQ-LAN's interquartile mean is the highest, on scores between the least and the greatest of all runs."""
    from shoal.analysis.intervals import AGGREGATES

    every = np.concatenate(list(comparison.scores.values()))
    low, high = every.min(0), every.max(0)
    iqm = {
        METHODS[name]: float(AGGREGATES["IQM"]((scores - low) / np.where(high > low, high - low, 1.0)))
        for name, scores in comparison.scores.items()
    }
    claim = "MQ-LAN has the highest IQM of normalised returns (0.85; Bang-Bang LAN 0.55)"
    found = ", ".join(f"{name} {value:.2f}" for name, value in iqm.items())
    runs = min(len(scores) for scores in comparison.scores.values())
    if runs < FEWEST:
        return Verdict(claim, f"{found}; {FEWEST} runs each are the fewest to judge by", None)
    return Verdict(claim, f"{found}, {runs} runs each", max(iqm, key=lambda name: iqm[name]) == METHODS["mq_lan"])


def collapse_verdict(trained: Trained, made: Study) -> Verdict:
    """Figure 7: single runs of MQ-LAN lose on Multiwalker what they had learnt."""
    from shoal.reproduce.collapse import collapse
    from shoal.reproduce.sisl_baselines import UNIFORM

    random = float(baselines_of(trained)["multiwalker"][UNIFORM].mean())
    collapsed = collapse(made.cells["mq_lan", "multiwalker"].values, random).collapsed
    found = f"{int(collapsed.sum())} of {len(collapsed)} runs lost more than half of their gain over acting at random"
    claim = "single runs of MQ-LAN collapse on Multiwalker (figure 7)"
    if not collapsed.any() and len(collapsed) < FEWEST:
        return Verdict(claim, f"{found}; too few to rule it out", None)
    return Verdict(claim, found, bool(collapsed.any()))


SISL = Reproduction(
    id="sisl",
    paper=PAPER,
    figure="figures 3, 5 and 7 to 9",
    claim="MQ-LAN scores highest over Waterworld and Multiwalker together; on Multiwalker alone Bang-Bang LAN does.",
    paper_numbers="IQM about 0.85 for MQ-LAN and 0.55 for Bang-Bang LAN; MQ-LAN beats Bang-Bang LAN with probability "
    "0.60 and QF-LAN with 0.71.",
    arms=tuple(arm(method, task) for task in TASKS for method in METHODS),
    seeds=3,
    first_seed=1,
    minutes=180,
    time_from="8 to 34 minutes a run, measured on a shared machine",
    draw=draw,
    tabulate=tabulate,
    judge=judge,
    quick=QUICK,
    note="Waterworld has 1,500 episodes of 100 steps and Multiwalker 100,000 steps of episodes of at most 200, where "
    "the paper trains for 5 to 25 million steps; MAPPO is not compared. The always-zero, random and scripted policies "
    "are ours.",
)
