"""A payoff table as an environment, whose entries may change once during a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from shoal.utils.errors import UserError


def _default_payoff() -> list[Any]:
    """The game of the S2Q experiment before its optimum moves: AA = 8 is best, B is safe."""
    return [[8, 0, -12], [0, 7, 0], [-12, 0, 6]]


def _table(name: str, payoff: list[Any]) -> np.ndarray:
    """`payoff` as an array [A] * N.

    Raises:
        UserError: it is ragged, empty, not numeric, or its axes differ in length.
    """
    try:
        table = np.array(payoff, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"env_args.{name} must be a full table of numbers: a list level per agent, rows equally long."
        ) from error
    if table.ndim < 1 or table.size == 0 or len(set(table.shape)) != 1:
        raise UserError(
            f"env_args.{name} has shape {table.shape}, but all agents need equally many actions, at least 1."
        )
    if not np.isfinite(table).all():
        raise UserError(f"env_args.{name} must hold finite numbers only.")
    return table


@dataclass(frozen=True)
class MatrixGameSettings:
    """Settings of the payoff game."""

    payoff: Annotated[list[Any], "team reward by joint action: nested lists, one level per agent"] = field(
        default_factory=_default_payoff
    )
    payoff_after: Annotated[list[Any] | None, "table that replaces payoff from shift_at on; null: none"] = None
    shift_at: Annotated[int | None, "environment steps of the run after which payoff_after holds"] = None
    episode_limit: Annotated[int, "steps per episode, the last of which is terminal"] = 1

    def __post_init__(self) -> None:
        """Refuse tables that are no game.

        Raises:
            UserError: naming the setting.
        """
        before = _table("payoff", self.payoff)
        if (self.payoff_after is None) != (self.shift_at is None):
            raise UserError("env_args.payoff_after and env_args.shift_at go together: give both or neither.")
        if self.payoff_after is not None:
            after = _table("payoff_after", self.payoff_after)
            if after.shape != before.shape:
                raise UserError(
                    f"env_args.payoff_after has shape {after.shape}, but env_args.payoff has {before.shape}."
                )
        if self.shift_at is not None and self.shift_at < 0:
            raise UserError(f"env_args.shift_at={self.shift_at} must be 0 or more environment steps.")
        if self.episode_limit < 1:
            raise UserError(f"env_args.episode_limit={self.episode_limit} must be at least 1.")


class MatrixGameEnv(gymnasium.Env):
    """A payoff table for any number of agents, which may change once during the run.

    obs [N, 1] and state [1] are always 1; every action is always available. The table is chosen at reset,
    by the run's step count `options["t_env"]` if given, else by the steps this environment has taken
    itself. The last step is terminated (the game is over, there is nothing to bootstrap from), and its info
    says in which share of the episode's steps the joint action was the table's best (`optimal`, 0 to 1).
    """

    Settings = MatrixGameSettings

    def __init__(self, settings: MatrixGameSettings) -> None:
        before = _table("payoff", settings.payoff)
        self._before = before
        self._after = before if settings.payoff_after is None else _table("payoff_after", settings.payoff_after)
        self._shift_at = settings.shift_at
        self.episode_limit = settings.episode_limit
        N, A = before.ndim, before.shape[0]
        self.observation_space = spaces.Dict(
            obs=spaces.Box(0.0, 1.0, (N, 1), np.float32),
            state=spaces.Box(0.0, 1.0, (1,), np.float32),
            avail_actions=spaces.MultiBinary([N, A]),
        )
        self.action_space = spaces.MultiDiscrete([A] * N)
        self._payoff = before
        self._own_steps = 0
        self._episode_steps = 0
        self._hits = 0

    def _observation(self) -> dict[str, np.ndarray]:
        N, A = self._before.ndim, self._before.shape[0]
        return {
            "obs": np.ones((N, 1), dtype=np.float32),
            "state": np.ones(1, dtype=np.float32),
            "avail_actions": np.ones((N, A), dtype=np.int8),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; `options["t_env"]` (environment steps of the run so far) decides the table."""
        super().reset(seed=seed)
        t_env = (options or {}).get("t_env", self._own_steps)
        shifted = self._shift_at is not None and t_env >= self._shift_at
        self._payoff = self._after if shifted else self._before
        self._episode_steps = 0
        self._hits = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Pay the team for the joint `action` [N] -> observation, reward, terminated, False, info."""
        reward = float(self._payoff[tuple(int(a) for a in action)])
        self._own_steps += 1
        self._episode_steps += 1
        self._hits += reward == self._payoff.max()
        over = self._episode_steps >= self.episode_limit
        info = {"optimal": self._hits / self._episode_steps} if over else {}
        return self._observation(), reward, over, False, info
