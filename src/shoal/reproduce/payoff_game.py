"""The payoff game whose optimum moves: figure 1 of the S2Q paper, trained, drawn and set beside the paper's claims.

    python -m shoal.reproduce.payoff_game --seeds 10 --jobs 2 --out results/s2q_matrix

VDN and the variants of S2Q get a third of the seeds. Each finished run is stored under --out: the same command goes on
where it was interrupted, and runs nothing twice.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from shoal.reproduce import payoff_figures
from shoal.reproduce.payoff_runs import OUR_S2Q, Method, Record, plan, train_missing
from shoal.utils.errors import UserError

ENV = "matrix_game_shift"
T_MAX = 8000
"""As many steps after the move as before it."""

METHODS = (
    Method("vdn", "VDN", "vdn", share=3),
    Method("qmix", "QMIX", "qmix", claim="wrong before and after"),
    Method("cw_qmix", "CW-QMIX", "cw_qmix", {"w": 0.1}, "WQMIX: AA before, and stays there"),
    Method("ow_qmix", "OW-QMIX", "ow_qmix", {"w": 0.1}, "WQMIX: AA before, and stays there"),
    Method("s2q", "S2Q, K=2", "s2q", OUR_S2Q, "Q^tot, Q_1, Q_2 at AA, BB, CC before; Q^tot at CC after"),
    Method("s2q_K1", "S2Q, K=1", "s2q", OUR_S2Q | {"K": 1}, share=3),
    Method("s2q_K0", "S2Q, K=0", "s2q", OUR_S2Q | {"K": 0}, share=3),
    Method("s2q_no_soft", "S2Q, no_soft", "s2q", OUR_S2Q | {"s2q_fix_prob": 1.0}, share=3),
    Method("s2q_w_c", "S2Q, w_c=0.9", "s2q", OUR_S2Q | {"w_c": 0.9}, "none; its value on most of SMAC", share=3),
    Method("s2q_T", "S2Q, T=0.1", "s2q", OUR_S2Q | {"T": 0.1}, "none; its value on SMAC", share=3),
)


def counted(names: Sequence[str]) -> str:
    """How often each occurs, most frequent first: "AA 3, BB 1"."""
    return ", ".join(f"{name} {count}" for name, count in Counter(names).most_common())


def shares(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Share of the runs whose Q^tot is greedy at AA, BB, CC or another joint action, at each test: [P] each."""
    told_apart = [key for key in payoff_figures.OUTCOMES if key != "other"]
    names = np.array([[copies[0] for copies in record.greedy] for record in records])  # [seeds, P]
    result = {key: (names == key).mean(0) for key in told_apart}
    return result | {"other": 1.0 - sum(result.values())}


def typical(records: Sequence[Record]) -> Record:
    """The first run with the most frequent outcome: all copies' greedy joint actions before, Q^tot's after."""

    def outcome(record: Record) -> tuple[str, ...]:
        return (*record.greedy[record.shift], record.after)

    (most, _), *_ = Counter(map(outcome, records)).most_common()
    return next(record for record in records if outcome(record) == most)


def table(records: Mapping[str, Sequence[Record]]) -> str:
    """The markdown table: what the paper says, and what was found, method by method."""
    lines = [
        "| method | the paper on this game | greedy joint action, before -> after the move (runs) "
        "| Q^tot, Q_1, ... before (runs) | at CC after |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method in METHODS:
        runs = records[method.name]
        moves = counted([f"{run.before} -> {run.after}" for run in runs])
        several = len(runs[0].greedy[0]) > 1
        copies = counted(["/".join(run.greedy[run.shift]) for run in runs]) if several else ""
        reached = sum(run.after == "CC" for run in runs)
        lines.append(f"| {method.label} | {method.claim} | {moves} | {copies} | {reached} of {len(runs)} |")
    return "\n".join(lines)


def draw(records: Mapping[str, Sequence[Record]], out: Path) -> None:
    """figure1.png and greedy_over_time.png."""
    labels = {method.name: method.label for method in METHODS}
    game = records["s2q"][0].settings["env_args"]
    columns = [("true payoffs", np.array(game["payoff"]), np.array(game["payoff_after"]), "", "")]
    for name in ("vdn", "qmix", "cw_qmix", "ow_qmix", "s2q"):
        run = typical(records[name])
        titles = ["S2Q, $Q^{tot}$", "S2Q, $Q_1$", "S2Q, $Q_2$"] if name == "s2q" else [labels[name]]
        for k, title in enumerate(titles):
            columns.append((title, run.q[run.shift, k], run.q[-1, k], run.greedy[run.shift][k], run.greedy[-1][k]))
        if name == "s2q" and run.q_star is not None:
            columns.append(("S2Q, $Q^*$", run.q_star[run.shift], run.q_star[-1], "", ""))
    rows = (f"before: step {game['shift_at']:,}", f"after: step {T_MAX:,}")
    payoff_figures.draw_values(columns, rows, out / "figure1.png")
    panels = [(f"{labels[name]} ({len(runs)} seeds)", runs[0].steps, shares(runs)) for name, runs in records.items()]
    payoff_figures.draw_shares(panels, game["shift_at"], out / "greedy_over_time.png")


def command_line(text: str | None, out: str, seeds: int) -> argparse.ArgumentParser:
    """Options that the commands on the payoff game share."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds, help="runs of each method")
    parser.add_argument("--jobs", type=int, default=1, help="runs trained side by side, one torch thread each")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of finished runs, pictures and table")
    return parser


def finish(work: Callable[[], None]) -> int:
    """Run a command's work. Exit status: 0 done, 1 an error the user can fix, 130 interrupted."""
    try:
        work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command trains the missing runs", file=sys.stderr)
        return 130
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    args = command_line(__doc__, "results/s2q_matrix", 10).parse_args(argv)

    def work() -> None:
        records = train_missing(plan(METHODS, ENV, T_MAX, args.seeds), args.out, args.jobs)
        draw(records, args.out)
        (args.out / "table.md").write_text(table(records) + "\n")
        print(table(records))
        for name in ("figure1.png", "greedy_over_time.png", "table.md"):
            print(args.out / name)

    return finish(work)


if __name__ == "__main__":
    sys.exit(main())
