"""CTDE^2: where MQ-LAN's slots end up, and which actions a team uses over all states."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.reproduce.declaration import Arm, Reproduction, Trained, Verdict
from shoal.reproduce.lan import PAPER, QUICK, SISL, arm

if TYPE_CHECKING:
    import pandas as pd

    from shoal.analysis.records import RecordedRun

UNIFORM_NEAR = math.pi * 0.1**2 / 4
"""Share of uniform slots of the box [-1, 1]^2 that are shorter than 0.1."""
DENSE = 3.0
"""How much denser than uniform a cluster must be to count as one."""
SOME = 0.05
"""Share of the slots that count as several."""
EPISODES = 20
WATERWORLD = "1,500 episodes of 100 steps, where the paper trains for 5 to 25 million steps."


# Figure 6.


def draw_codebooks(trained: Trained) -> list[Path]:
    """A picture of each run's codebooks; its slots are saved next to it as .npz."""
    from shoal.reproduce import codebook

    return [
        codebook.draw(codebook.read_slots(run.folder), trained.out / f"codebook_{name}_seed{run.config['seed']}.png")
        for name, runs in trained.runs.items()
        if name.startswith("mq_lan")
        for run in runs
    ]


def tabulate_codebooks(trained: Trained) -> pd.DataFrame:
    """Of each run and agent: shares of the slots near the origin and the edge, and of the picks near the origin."""
    import pandas as pd

    from shoal.reproduce import codebook

    rows = []
    for run in trained.runs["mq_lan_waterworld"]:
        slots = codebook.read_slots(run.folder)
        picked = slots.usage / np.maximum(slots.usage.sum(axis=1, keepdims=True), 1)
        near = np.linalg.norm(slots.u, axis=-1) < codebook.ORIGIN
        for k, (name, (origin, edge)) in enumerate(zip(slots.names, slots.shares(), strict=True)):
            row = {"seed": run.config["seed"], "codebook": name, "near the origin": origin, "near the edge": edge}
            rows.append(row | {"picks near the origin": float(picked[k][near[k]].sum())})
    return pd.DataFrame(rows)


def judge_codebooks(trained: Trained) -> list[Verdict]:
    """A dense cluster at the origin, and slots at the edge."""
    table = tabulate_codebooks(trained)
    near, edge, picks = (
        table[name].to_numpy(float) for name in ("near the origin", "near the edge", "picks near the origin")
    )
    return [
        Verdict(
            f"a dense cluster of slots sits at the origin ({DENSE:g} times as dense as uniform slots, or more)",
            f"{near.mean():.0%} of the slots are shorter than 0.1 ({near.min():.0%} to {near.max():.0%} of a codebook; "
            f"uniform {UNIFORM_NEAR:.1%}), with {picks.mean():.0%} of the picks",
            bool(near.mean() >= DENSE * UNIFORM_NEAR),
        ),
        Verdict(
            f"several slots sit at the edges and corners ({SOME:.0%} or more)",
            f"{edge.mean():.0%} have a coordinate beyond 0.9 ({edge.min():.0%} to {edge.max():.0%} of a codebook)",
            bool((edge >= SOME).all()),
        ),
    ]


CODEBOOK = Reproduction(
    id="mq-lan-codebook",
    paper=PAPER,
    figure="figure 6",
    claim="On Waterworld MQ-LAN's slots form no grid: a dense cluster migrates to the origin, others to the edges.",
    paper_numbers="a scatter plot only.",
    arms=(arm("mq_lan", "waterworld"),),
    seeds=3,
    first_seed=1,
    minutes=60,
    time_from="estimated from 99 environment steps a second; nothing after sisl, whose runs it takes",
    draw=draw_codebooks,
    tabulate=tabulate_codebooks,
    judge=judge_codebooks,
    quick=QUICK,
    note=WATERWORLD,
    runs_of=SISL.id,
)


# Figure 1.


def draw_action_map(trained: Trained) -> list[Path]:
    """Plays greedy episodes of each run and draws the agents' actions; they are saved next to the picture as .npz."""
    from shoal.reproduce import action_map

    return [
        action_map.draw(action_map.play(run.folder, EPISODES), _map_of(trained, run.config["seed"]))
        for run in trained.all
    ]


def _map_of(trained: Trained, seed: int) -> Path:
    return trained.out / f"action_map_seed{seed}.png"


def tabulate_action_map(trained: Trained) -> pd.DataFrame:
    """Of each run and agent: how often two actions are close, against uniform ones, and the actions' mean length."""
    import pandas as pd

    from shoal.reproduce import action_map

    rows = []
    for run in trained.all:
        with np.load(_map_of(trained, run.config["seed"]).with_suffix(".npz")) as saved:
            for name in sorted(saved):
                taken = saved[name]
                row = {"seed": run.config["seed"], "agent": name, "actions": len(taken)}
                row |= {"reuse over uniform": action_map.reuse_ratio(taken)}
                rows.append(row | {"mean length": float(np.linalg.norm(taken, axis=-1).mean())})
    return pd.DataFrame(rows)


def judge_action_map(trained: Trained) -> list[Verdict]:
    """Actions are concentrated; one agent moves much more than the other."""
    table = tabulate_action_map(trained)
    reuse = table["reuse over uniform"].to_numpy(float)
    lengths = np.array([sorted(group) for _, group in table.groupby("seed")["mean length"]])  # [R, N]
    factor = float((lengths[:, -1] / np.maximum(lengths[:, 0], 1e-6)).mean())
    return [
        Verdict(
            f"actions are concentrated over states (two are close {DENSE:g} times as often as uniform ones, or more)",
            f"{reuse.min():.1f} to {reuse.max():.1f} times as often",
            bool((reuse >= DENSE).all()),
        ),
        Verdict(
            "one agent is mobile, the other makes small movements (mean length of actions, twice or more)",
            f"the more mobile agent's actions are {factor:.1f} times as long; the second one pays its thrust twice",
            factor >= 2,
        ),
    ]


ACTION_MAP = Reproduction(
    id="mq-lan-actions",
    paper=PAPER,
    figure="figure 1",
    claim="Over all states the actions of QF-LAN's policy on Waterworld concentrate in small regions of the box.",
    paper_numbers="a heat map only.",
    arms=(arm("qf_lan", "waterworld"),),
    seeds=1,
    first_seed=1,
    minutes=25,
    time_from="estimated from 119 environment steps a second; nothing after sisl, whose runs it takes",
    draw=draw_action_map,
    tabulate=tabulate_action_map,
    judge=judge_action_map,
    quick=QUICK,
    note=WATERWORLD,
    runs_of=SISL.id,
)


# The same on a game whose best actions are known.

TOY = {
    "runner": "parallel",
    "batch_size_run": 64,
    "batch_size": 256,
    "t_max": 32_000,
    "lr": 0.001,
    "test_interval": 8_000,
    "test_nepisode": 64,
}
SLOTS = {"mq_k": 16, "mq_top_k": 1, "mq_lr_start": 0.001, "mq_lr_finish": 0.0001}
BEST, BEST_CORNERS, ALWAYS_ZERO = 1.0, 0.0146, 0.187
"""What the game of modes pays at most, at most for corners, and for always zero."""


def draw_toy(trained: Trained) -> list[Path]:
    """The codebooks and the learning curves."""
    from shoal.analysis import plots
    from shoal.analysis.study import study

    return [*draw_codebooks(trained), plots.curves(study(trained.all), trained.out / "curves.png")]


def tabulate_toy(trained: Trained) -> pd.DataFrame:
    """The last test of each run."""
    import pandas as pd

    rows = [
        {"method": one.label, "seed": run.config["seed"], "return": last_return(run)}
        for one in TOY_MODES.arms
        for run in trained.runs[one.name]
    ]
    return pd.DataFrame(rows)


def last_return(run: RecordedRun) -> float:
    """Mean return of a run's last test."""
    from shoal.recording.metric_names import TEST_RETURN

    return float(run.metrics[TEST_RETURN][1][-1])


def judge_toy(trained: Trained) -> list[Verdict]:
    """MQ-LAN finds what lies inside the box, corners cannot."""
    mq, bang = (np.array([last_return(run) for run in trained.runs[name]]) for name in ("mq_lan", "bang_bang_lan"))
    return [
        Verdict(
            "slots migrate to where the actions that pay are, inside the box (return of 0.8 or more)",
            f"return {mq.mean():.2f} of {BEST:g} ({mq.min():.2f} to {mq.max():.2f}); always zero earns {ALWAYS_ZERO}",
            bool((mq >= 0.8).all()),
        ),
        Verdict(
            "extreme actions alone cannot do that",
            f"Bang-Bang LAN: return {bang.mean():.3f}; the best corners earn {BEST_CORNERS}",
            bool(bang.max() < mq.min()),
        ),
    ]


TOY_MODES = Reproduction(
    id="toy-modes",
    paper=PAPER,
    figure="figure 6, on a game of ours",
    claim="The slots of a codebook migrate to the actions that pay, which fixed corners cannot.",
    paper_numbers="none: the game is ours. It pays 1 at most, 0.0146 for the best corners, 0.187 for always zero.",
    arms=(
        Arm("mq_lan", "MQ-LAN", "mq_lan", "toy_modes", {**TOY, **SLOTS}),
        Arm("bang_bang_lan", "Bang-Bang LAN", "bang_bang_lan", "toy_modes", TOY),
    ),
    seeds=3,
    first_seed=1,
    minutes=15,
    time_from="five minutes a run, measured",
    draw=draw_toy,
    tabulate=tabulate_toy,
    judge=judge_toy,
    quick={"t_max": 1280, "test_interval": 320, "test_nepisode": 64},
    note="The paper's figure is of Waterworld; here the place of the good actions is known, and a run takes minutes.",
)
