"""A payoff table as an environment, whose entries may change once during a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from shoal.declare import Check, Checked, Range
from shoal.envs.team import reset_mask
from shoal.utils.errors import UserError


def _default_payoff() -> list[Any]:
    """The game of the S2Q experiment before its optimum moves: AA = 8 is best, B is safe."""
    return [[8, 0, -12], [0, 7, 0], [-12, 0, 6]]


class Table(Check):
    """A full table of finite numbers: a list level per agent, all axes equally long."""

    def read(self, value: Any) -> Any:
        try:
            table = np.array(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError("must be a full table of numbers: a list level per agent, rows equally long") from error
        if table.ndim < 1 or table.size == 0 or len(set(table.shape)) != 1:
            raise ValueError(f"has shape {table.shape}, but all agents need equally many actions, at least 1")
        if not np.isfinite(table).all():
            raise ValueError("must hold finite numbers only")
        return value


@dataclass(frozen=True)
class MatrixGameSettings(Checked):
    """Settings of the payoff game."""

    payoff: Annotated[list[Any], "team reward of each joint action: nested lists, one level per agent", Table()] = (
        field(default_factory=_default_payoff)
    )
    payoff_after: Annotated[list[Any] | None, "payoff table from shift_at on; null: no change", Table()] = None
    shift_at: Annotated[int | None, "environment step of the run from which payoff_after applies", Range(0)] = None
    time_limit: Annotated[int, "steps per episode; the last one is a true end (terminated)", Range(1)] = 1

    def __post_init__(self) -> None:
        """Refuse tables that do not go together.

        Raises:
            UserError: naming the setting.
        """
        super().__post_init__()
        if (self.payoff_after is None) != (self.shift_at is None):
            raise UserError("env_args.payoff_after and env_args.shift_at go together: give both or neither.")
        before, after = np.shape(self.payoff), np.shape(self.payoff_after or self.payoff)
        if after != before:
            raise UserError(f"env_args.payoff_after has shape {after}, but env_args.payoff has {before}.")


class MatrixGameVectorEnv(VectorEnv):
    """`num_envs` copies of the game in a few array operations; gymnasium's vector API with autoreset disabled.

    A copy whose episode has ended stays as it is (same flags, reward 0) until it is reset. obs [N, 1] and state [1] are
    always 1; every action is always available. Actions: [num_envs, N] integers.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 - gymnasium's attribute

    def __init__(self, settings: MatrixGameSettings, num_envs: int) -> None:
        before = np.array(settings.payoff, dtype=np.float64)
        after = np.array(settings.payoff_after or settings.payoff, dtype=np.float64)
        self._tables = np.stack([before, after])
        self._best = np.array([before.max(), after.max()])
        self._shift_at = settings.shift_at
        self.num_envs = num_envs
        self.episode_limit = settings.time_limit
        N, A = before.ndim, before.shape[0]
        self.single_observation_space = spaces.Dict(
            obs=spaces.Box(0.0, 1.0, (N, 1), np.float32),
            state=spaces.Box(0.0, 1.0, (1,), np.float32),
            avail_actions=spaces.MultiBinary([N, A]),
        )
        self.single_action_space = spaces.MultiDiscrete([A] * N)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._phase = np.zeros(num_envs, dtype=np.int64)  # 0: payoff, 1: payoff_after
        self._own_steps = np.zeros(num_envs, dtype=np.int64)
        self._episode_steps = np.zeros(num_envs, dtype=np.int64)
        self._hits = np.zeros(num_envs, dtype=np.int64)
        self._over = np.zeros(num_envs, dtype=bool)

    def _observation(self) -> dict[str, np.ndarray]:
        n, N, A = self.num_envs, self._tables.ndim - 1, self._tables.shape[1]
        return {
            "obs": np.ones((n, N, 1), dtype=np.float32),
            "state": np.ones((n, 1), dtype=np.float32),
            "avail_actions": np.ones((n, N, A), dtype=np.int8),
        }

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start new episodes in all copies, or in those of `options["reset_mask"]` (bool [num_envs]).

        Args:
            seed: ignored, nothing here is random.
            options: `reset_mask` as above; `t_env` (environment steps of the run so far) decides the table, where it
                is missing the steps that the copy has taken itself do.
        """
        options = options or {}
        mask = reset_mask(options, self.num_envs)
        if self._shift_at is not None:
            steps = np.broadcast_to(options.get("t_env", self._own_steps), self.num_envs)
            self._phase[mask] = steps[mask] >= self._shift_at
        self._episode_steps[mask] = self._hits[mask] = 0
        self._over[mask] = False
        return self._observation(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Pay every running copy's team for its joint action.

        Returns:
            Observations, team rewards [num_envs] (float64), terminated and truncated [num_envs] (bool), and infos:
            where an episode just ended, `optimal` (float, 0 to 1) with its mask `_optimal`.
        """
        running = ~self._over
        paid = self._tables[(self._phase, *np.asarray(actions).T)]
        self._own_steps += running
        self._episode_steps += running
        self._hits += running & (paid == self._best[self._phase])
        self._over = self._episode_steps >= self.episode_limit
        ended = running & self._over
        infos = {}
        if ended.any():
            infos = {"optimal": np.where(ended, self._hits / self._episode_steps, 0.0), "_optimal": ended}
        truncated = np.zeros(self.num_envs, dtype=bool)
        return self._observation(), np.where(running, paid, 0.0), self._over.copy(), truncated, infos


class MatrixGameEnv(gymnasium.Env):
    """A payoff table for any number of agents, which may change once during the run.

    One copy of `MatrixGameVectorEnv`. obs [N, 1] and state [1] are always 1; every action is always available. The
    table is chosen at reset, by the run's step count `options["t_env"]` if given, else by the steps this environment
    has taken itself. The last step is terminated (the game is over, there is nothing to bootstrap from), and its info
    says in which share of the episode's steps the joint action was the table's best (`optimal`, 0 to 1).
    """

    Settings = MatrixGameSettings
    own_randomness = True  # draws from nothing global

    def __init__(self, settings: MatrixGameSettings) -> None:
        self._game = MatrixGameVectorEnv(settings, 1)
        self.episode_limit = self._game.episode_limit
        self.observation_space = self._game.single_observation_space
        self.action_space = self._game.single_action_space

    @classmethod
    def make_vector(cls, settings: MatrixGameSettings, num_envs: int) -> VectorEnv:
        """`num_envs` copies in this process."""
        return MatrixGameVectorEnv(settings, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; `options["t_env"]` (environment steps of the run so far) decides the table."""
        super().reset(seed=seed)
        t_env = {key: value for key, value in (options or {}).items() if key == "t_env"}
        observation, _ = self._game.reset(options=t_env)
        return {key: value[0] for key, value in observation.items()}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Pay the team for the joint `action` [N] -> observation, reward, terminated, False, info."""
        observation, reward, terminated, _, infos = self._game.step(np.asarray(action)[None])
        first = {key: value[0] for key, value in observation.items()}
        info = {"optimal": float(infos["optimal"][0])} if infos else {}
        return first, float(reward[0]), bool(terminated[0]), False, info
