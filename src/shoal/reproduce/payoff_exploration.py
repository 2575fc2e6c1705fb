"""What the team does while it trains on the payoff game: figure D.1 of the S2Q paper, beside what the formulas say.

    python -m shoal.reproduce.payoff_exploration --seeds 3 --jobs 2 --out results/s2q_exploration

Each method learns the game before its optimum moves, then plays on as in training, without learning, and its joint
actions are counted. Epsilon-greedy methods leave their greedy joint action in one agent's action, hardly ever in both;
S2Q follows its sub-values to (B,B) and (C,C).
"""

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from shoal.reproduce import payoff_figures
from shoal.reproduce.payoff_game import command_line, finish
from shoal.reproduce.payoff_runs import OUR_S2Q, Method, Record, plan, train_missing

EPSILON = 0.05
P_FIX = 0.5
EPISODES = 20_000
T_MAX = 4000

METHODS = (
    Method("qmix", "QMIX", "qmix"),
    Method("ow_qmix", "OW-QMIX", "ow_qmix", {"w": 0.1}),
    Method("s2q_T0.1", "S2Q, T=0.1", "s2q", OUR_S2Q | {"T": 0.1}),
    Method("s2q", "S2Q, T=1", "s2q", OUR_S2Q),
    Method("s2q_T2", "S2Q, T=2", "s2q", OUR_S2Q | {"T": 2.0}),
)


def around(greedy: str, n_actions: int) -> np.ndarray:
    """Law of the joint action when each of two agents plays epsilon-greedily around ``greedy`` ("AB"): [A, A]."""
    agents = np.full((2, n_actions), EPSILON / n_actions)
    agents[[0, 1], [ord(letter) - ord("A") for letter in greedy]] += 1 - EPSILON
    return np.outer(*agents)


def expected(method: Method, payoff: np.ndarray, greedy: str) -> np.ndarray:
    """Law of the joint action of a method that has learnt the game: [A, A].

    S2Q's candidates are then AA, BB and CC with their true payoffs; ``greedy`` is where the others are.
    """
    if method.alg != "s2q":
        return around(greedy, len(payoff))
    promise = np.exp(np.diag(payoff) / method.changes["T"])
    law = (1 - P_FIX) * promise / promise.sum()
    law[0] += P_FIX
    return sum(p * around(letter * 2, len(payoff)) for p, letter in zip(law, "ABC", strict=True))


def diagonal(shares: np.ndarray) -> str:
    """Cells of the table: AA, BB, CC and all others together."""
    on = np.diag(shares)
    return " | ".join(f"{share:.4f}" for share in (*on, 1 - on.sum()))


def table(records: Mapping[str, Sequence[Record]]) -> str:
    """The markdown table: expected and measured shares of AA, BB, CC, mean over the runs."""
    lines = [
        "| method | greedy | | AA | BB | CC | all others |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in METHODS:
        runs = records[method.name]
        payoff = np.array(runs[0].settings["env_args"]["payoff"], dtype=float)
        greedy = [run.before for run in runs]
        law = np.mean([expected(method, payoff, name) for name in greedy], axis=0)
        lines.append(f"| {method.label} | {', '.join(greedy)} | expected | {diagonal(law)} |")
        lines.append(f"| | | measured | {diagonal(measured(runs))} |")
    return "\n".join(lines)


def measured(runs: Sequence[Record]) -> np.ndarray:
    """Mean shares of the joint actions over the runs: [A, A]."""
    return np.mean([run.behaviour for run in runs], axis=0)


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    args = command_line(__doc__, "results/s2q_exploration", 3).parse_args(argv)

    def work() -> None:
        records = train_missing(plan(METHODS, "matrix_game", T_MAX, args.seeds, EPISODES), args.out, args.jobs)
        panels = [(method.label, measured(records[method.name])) for method in METHODS]
        payoff_figures.draw_behaviour(panels, args.out / "figure_d1.png")
        (args.out / "table.md").write_text(table(records) + "\n")
        print(table(records))
        for name in ("figure_d1.png", "table.md"):
            print(args.out / name)

    return finish(work)


if __name__ == "__main__":
    sys.exit(main())
