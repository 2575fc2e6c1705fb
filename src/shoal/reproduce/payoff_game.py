"""The payoff game whose optimum moves: figure 1 of the S2Q paper.

    python -m shoal.reproduce s2q-matrix --seeds 10 --jobs 2

VDN and the variants of S2Q get a third of the seeds.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.reproduce import payoff_methods
from shoal.reproduce.declaration import Reproduction, Trained, Verdict
from shoal.reproduce.payoff_methods import OUR_S2Q
from shoal.reproduce.payoff_record import PayoffRecord, records_of

if TYPE_CHECKING:
    import pandas as pd

T_MAX = 8000
"""As many steps after the move as before it."""
OUTCOMES = ("AA", "BB", "CC")
"""Greedy joint actions that are told apart."""

method = partial(payoff_methods.method, env="matrix_game_shift", t_max=T_MAX)
METHODS = (
    method("vdn", "VDN", "vdn", share=3),
    method("qmix", "QMIX", "qmix", paper="wrong before and after"),
    method("cw_qmix", "CW-QMIX", "cw_qmix", {"w": 0.1}, "WQMIX: AA before, and stays there"),
    method("ow_qmix", "OW-QMIX", "ow_qmix", {"w": 0.1}, "WQMIX: AA before, and stays there"),
    method("s2q", "S2Q, K=2", "s2q", OUR_S2Q, "Q^tot, Q_1, Q_2 at AA, BB, CC before; Q^tot at CC after"),
    method("s2q_K1", "S2Q, K=1", "s2q", OUR_S2Q | {"K": 1}, share=3),
    method("s2q_K0", "S2Q, K=0", "s2q", OUR_S2Q | {"K": 0}, share=3),
    method("s2q_no_soft", "S2Q, no_soft", "s2q", OUR_S2Q | {"s2q_fix_prob": 1.0}, share=3),
    method("s2q_w_c", "S2Q, w_c=0.9", "s2q", OUR_S2Q | {"w_c": 0.9}, "none; its value on most of SMAC", share=3),
    method("s2q_T", "S2Q, T=0.1", "s2q", OUR_S2Q | {"T": 0.1}, "none; its value on SMAC", share=3),
)


def counted(names: Sequence[str]) -> str:
    """How often each occurs, most frequent first: "AA 3, BB 1"."""
    return ", ".join(f"{name} {count}" for name, count in Counter(names).most_common())


def shares(records: Sequence[PayoffRecord]) -> dict[str, np.ndarray]:
    """Share of the runs whose Q^tot is greedy at AA, BB, CC or another joint action, at each test: [P] each."""
    names = np.array([[copies[0] for copies in record.greedy] for record in records])  # [seeds, P]
    result = {key: (names == key).mean(0) for key in OUTCOMES}
    return result | {"other": 1.0 - sum(result.values())}


def typical(records: Sequence[PayoffRecord]) -> PayoffRecord:
    """The first run with the most frequent outcome: all copies' greedy joint actions before, Q^tot's after."""

    def outcome(record: PayoffRecord) -> tuple[str, ...]:
        return (*record.greedy[record.shift], record.after)

    (most, _), *_ = Counter(map(outcome, records)).most_common()
    return next(record for record in records if outcome(record) == most)


def tabulate(trained: Trained) -> pd.DataFrame:
    """What the paper says, and what was found, method by method."""
    import pandas as pd

    records = records_of(trained)
    return pd.DataFrame([row(arm.label, arm.paper, records[arm.name]) for arm in METHODS])


def row(label: str, paper: str, runs: Sequence[PayoffRecord]) -> dict[str, str]:
    """A method's line of the table."""
    moves = counted([f"{run.before} -> {run.after}" for run in runs])
    several = len(runs[0].greedy[0]) > 1
    reached = sum(run.after == "CC" for run in runs)
    return {
        "method": label,
        "the paper on this game": paper,
        "greedy joint action, before -> after the move (runs)": moves,
        "Q^tot, Q_1, ... before (runs)": counted(["/".join(run.greedy[run.shift]) for run in runs]) if several else "",
        "at CC after": f"{reached} of {len(runs)}",
    }


def judge(trained: Trained) -> list[Verdict]:
    """What figure 1 shows of each method. The paper draws one run: a claim holds if most runs are like it."""
    records = records_of(trained)
    wqmix = [*records["cw_qmix"], *records["ow_qmix"]]
    return [
        most(records["qmix"], "QMIX is wrong before and after the move", is_wrong, outcome),
        most(wqmix, "WQMIX finds (A,A) and stays there after the move", stays, outcome),
        most(records["s2q"], "S2Q with K=2 follows the move to (C,C)", follows, outcome),
        most(records["s2q"], "before it, Q^tot, Q_1 and Q_2 are at (A,A), (B,B) and (C,C)", keeps_all, copies),
    ]


def is_wrong(run: PayoffRecord) -> bool:
    """Neither the first optimum nor the second."""
    return run.before != "AA" and run.after != "CC"


def stays(run: PayoffRecord) -> bool:
    """At the first optimum, also when it is none any more."""
    return run.before == run.after == "AA"


def follows(run: PayoffRecord) -> bool:
    """At the first optimum, then at the second."""
    return run.before == "AA" and run.after == "CC"


def keeps_all(run: PayoffRecord) -> bool:
    """Each of three copies at a payoff of its own, the best one first."""
    return run.greedy[run.shift] == ["AA", "BB", "CC"]


def outcome(run: PayoffRecord) -> str:
    """Q^tot's greedy joint action before and after the move."""
    return f"{run.before} -> {run.after}"


def copies(run: PayoffRecord) -> str:
    """All copies' greedy joint actions before the move."""
    return "/".join(run.greedy[run.shift])


def most(
    runs: Sequence[PayoffRecord],
    claim: str,
    is_so: Callable[[PayoffRecord], bool],
    shown: Callable[[PayoffRecord], str],
) -> Verdict:
    """Whether more than half of the runs are as claimed."""
    share = sum(map(is_so, runs))
    return Verdict(
        claim, f"{share} of {len(runs)} runs ({counted([shown(run) for run in runs])})", 2 * share > len(runs)
    )


def draw(trained: Trained) -> list[Path]:
    """figure1.png and greedy_over_time.png."""
    from shoal.reproduce import payoff_figures

    records, labels = records_of(trained), {arm.name: arm.label for arm in METHODS}
    game = records["s2q"][0].settings["env_args"]
    columns = [("true payoffs", np.array(game["payoff"]), np.array(game["payoff_after"]), "", "")]
    for name in ("vdn", "qmix", "cw_qmix", "ow_qmix", "s2q"):
        run = typical(records[name])
        titles = ["S2Q, $Q^{tot}$", "S2Q, $Q_1$", "S2Q, $Q_2$"] if name == "s2q" else [labels[name]]
        for k, title in enumerate(titles):
            columns.append((title, run.q[run.shift, k], run.q[-1, k], run.greedy[run.shift][k], run.greedy[-1][k]))
        if name == "s2q" and run.q_star is not None:
            columns.append(("S2Q, $Q^*$", run.q_star[run.shift], run.q_star[-1], "", ""))
    rows = (f"before: step {game['shift_at']:,}", f"after: step {records['s2q'][0].steps[-1]:,}")
    panels = [
        (f"{labels[name]} ({len(runs)} seed{'s' * (len(runs) > 1)})", runs[0].steps, shares(runs))
        for name, runs in records.items()
    ]
    return [
        payoff_figures.draw_values(columns, rows, trained.out / "figure1.png"),
        payoff_figures.draw_shares(panels, game["shift_at"], trained.out / "greedy_over_time.png"),
    ]


REPRODUCTION = Reproduction(
    id="s2q-matrix",
    paper=payoff_methods.PAPER,
    figure="figure 1",
    claim="When the optimum of a payoff game moves, QMIX is wrong before and after, WQMIX stays at the first optimum, "
    "and S2Q with K=2 follows.",
    paper_numbers="payoffs of 8, 7 and 6 at (A,A), (B,B) and (C,C); after the move 7, 6 and 8.",
    arms=METHODS,
    seeds=10,
    minutes=12,
    time_from="10 to 20 seconds a run, counted, and 4 to start each",
    draw=draw,
    tabulate=tabulate,
    judge=judge,
    quick={"t_max": 400, "env_args.shift_at": 200, "test_interval": 100},
    note="Payoffs off the diagonal, temperature and weights are not in the paper's text; these are ours. VDN and the "
    "variants of S2Q have a third of the seeds.",
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command under its earlier name."""
    from shoal.reproduce.__main__ import door

    return door(REPRODUCTION, "python -m shoal.analysis.payoff_game", argv)


if __name__ == "__main__":
    sys.exit(main())
