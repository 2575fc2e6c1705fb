"""What a recorded run on a payoff game says: joint values and greedy joint actions at each test, what was played."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.utils.errors import UserError

if TYPE_CHECKING:
    from shoal.analysis.records import RecordedRun
    from shoal.reproduce.declaration import Trained

JOINT_Q, Q_STAR, GREEDY, BEHAVIOUR = "joint_q_", "joint_q_star_", "greedy_joint_", "behaviour_"
"""How the names of the metrics begin."""
N_AGENTS = 2


def name_of(actions: Sequence[int]) -> str:
    """Joint action (0, 2) is "AC"."""
    return "".join(chr(ord("A") + action) for action in actions)


def joint_actions(n_agents: int, n_actions: int) -> list[str]:
    """All joint actions by name, the last agent's action changing first."""
    return [name_of(actions) for actions in itertools.product(range(n_actions), repeat=n_agents)]


class PayoffRecord:
    """A trained run on a payoff game of two agents.

    ``steps`` [P], ``greedy`` (names such as "AA", one for each copy, at each test), ``q`` [P, M, A, A], ``q_star``
    [P, A, A] or None, ``behaviour`` [A, A] (shares of the counted episodes; zeros where none were counted).

    Raises:
        UserError: the run was not watched (``payoff_watch``).
    """

    def __init__(self, run: RecordedRun) -> None:
        if f"{GREEDY}0" not in run.metrics:
            raise UserError(
                f"{run.folder} recorded no joint values: "
                "train it with callbacks=[shoal.reproduce.payoff_watch:Watcher]."
            )
        self.settings: dict[str, Any] = run.config
        A = len(run.config["env_args"]["payoff"])
        names = joint_actions(N_AGENTS, A)
        copies = range(sum(name.startswith(GREEDY) for name in run.metrics))

        def tables(prefix: str) -> np.ndarray:
            return np.stack([run.metrics[f"{prefix}{name}"][1] for name in names], axis=-1).reshape(-1, A, A)

        self.steps: list[int] = run.metrics[f"{GREEDY}0"][0].astype(int).tolist()
        numbers = np.stack([run.metrics[f"{GREEDY}{k}"][1] for k in copies], axis=-1).astype(int)  # [P, M]
        self.greedy: list[list[str]] = [[names[number] for number in row] for row in numbers.tolist()]
        self.q = np.stack([tables(f"{JOINT_Q}{k}_") for k in copies], axis=1)
        self.q_star = tables(Q_STAR) if f"{Q_STAR}{names[0]}" in run.metrics else None
        self.behaviour = tables(BEHAVIOUR)[-1] if f"{BEHAVIOUR}{names[0]}" in run.metrics else np.zeros((A, A))

    @property
    def shift(self) -> int:
        """Index of the last test before the table moved; the last test of all in a game that does not move."""
        shift_at = self.settings["env_args"].get("shift_at")
        return self.steps.index(shift_at) if shift_at is not None else len(self.steps) - 1

    @property
    def before(self) -> str:
        """Q^tot's greedy joint action when the table moved."""
        return self.greedy[self.shift][0]

    @property
    def after(self) -> str:
        """Q^tot's greedy joint action at the end."""
        return self.greedy[-1][0]


def records_of(trained: Trained) -> dict[str, list[PayoffRecord]]:
    """The records of all runs, by arm.

    Raises:
        UserError: a run was not watched.
    """
    return {name: [PayoffRecord(run) for run in runs] for name, runs in trained.runs.items()}
