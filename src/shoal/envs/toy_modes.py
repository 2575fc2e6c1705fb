"""A one-step game with continuous actions, the good ones inside the box and elsewhere in each context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from shoal.envs.team import ActionSettings, Team, corners, reset_mask

MODES = np.array(
    [
        [[0.5, 0.3], [-0.4, 0.6], [-0.3, -0.5], [0.6, -0.2]],
        [[-0.2, 0.5], [0.3, 0.1], [0.1, -0.6], [-0.6, -0.1]],
    ]
)
"""The best action of each agent in each context: [N, contexts, d]. Its mirror image is worth half."""

WIDTH = 0.3
N_AGENTS, N_CONTEXTS, DIMS = MODES.shape


def team_reward(contexts: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Mean over the agents of a bump around their mode and one half as high around its mirror image.

    Shapes: contexts [...] integers, actions [..., N, d] in [-1, 1] -> [...], at most 1.
    """
    modes = np.moveaxis(MODES, 0, 1)[contexts]  # [..., N, d]

    def bump(centres: np.ndarray) -> np.ndarray:
        height: np.ndarray = np.exp(-((actions - centres) ** 2).sum(-1) / (2 * WIDTH**2))
        return height

    reward: np.ndarray = np.maximum(bump(modes), 0.5 * bump(-modes)).mean(-1)
    return reward


@dataclass(frozen=True)
class ToyModesSettings(ActionSettings):
    """Settings of the game of modes."""


class ToyModesVectorEnv(VectorEnv):
    """`num_envs` copies of the game in a few array operations; gymnasium's vector API with autoreset disabled.

    A copy whose episode has ended stays as it is (same flags, reward 0) until it is reset.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 - gymnasium's attribute

    def __init__(self, settings: ToyModesSettings, num_envs: int) -> None:
        view, action = spaces.Box(0.0, 1.0, (N_CONTEXTS,), np.float32), spaces.Box(-1.0, 1.0, (DIMS,), np.float32)
        self._team = Team([view] * N_AGENTS, [action] * N_AGENTS, "env=toy_modes", settings)
        self._corners = corners(DIMS, settings.bang_bang_levels) if self._team.discrete else None
        self.num_envs, self.episode_limit = num_envs, 1
        parts = {"obs": (N_AGENTS, N_CONTEXTS), "state": (N_CONTEXTS,)}
        seen: dict[str, spaces.Space] = {key: spaces.Box(0.0, 1.0, shape, np.float32) for key, shape in parts.items()}
        if self._team.discrete:
            seen["avail_actions"] = spaces.MultiBinary([N_AGENTS, self._team.n_actions])
        self.single_observation_space = spaces.Dict(seen)
        self.single_action_space = self._team.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._contexts = np.zeros(num_envs, dtype=np.int64)
        self._over = np.zeros(num_envs, dtype=bool)
        self._draw = [np.random.default_rng() for _ in range(num_envs)]

    def _observation(self) -> dict[str, np.ndarray]:
        state = np.eye(N_CONTEXTS, dtype=np.float32)[self._contexts]
        observation = {"obs": np.repeat(state[:, None], N_AGENTS, axis=1), "state": state}
        if self._team.discrete:
            observation["avail_actions"] = np.ones((self.num_envs, N_AGENTS, self._team.n_actions), dtype=np.int8)
        return observation

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draw a context in all copies, or in those of `options["reset_mask"]` (bool [num_envs]).

        `seed`: one for each copy (None: the copy continues its own), or a number that copy i adds i to.
        """
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        for i in np.flatnonzero(reset_mask(options or {}, self.num_envs)).tolist():
            if seeds[i] is not None:
                self._draw[i] = np.random.default_rng(seeds[i])
            self._contexts[i] = self._draw[i].integers(N_CONTEXTS)
            self._over[i] = False
        return self._observation(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Play `actions`, [num_envs, N, d] or [num_envs, N] corners: every running copy's episode ends with it."""
        vectors = np.clip(actions, -1.0, 1.0) if self._corners is None else self._corners[actions]
        rewards = np.where(self._over, 0.0, team_reward(self._contexts, vectors))
        self._over[:] = True
        return self._observation(), rewards, self._over.copy(), np.zeros(self.num_envs, dtype=bool), {}


class ToyModesEnv(gymnasium.Env):
    """Continuous actions whose optimum lies inside the box: one step, two agents, four contexts.

    Observations [N, 4] and state [4] are the context as a one-hot, actions are [2, 2] in [-1, 1]. The team is paid
    `team_reward`: 1 at best, 0.187 for always zero, 0.189 for uniform actions, 0.0146 for the best corners.
    """

    Settings = ToyModesSettings
    own_randomness = True  # draws from nothing global

    def __init__(self, settings: ToyModesSettings) -> None:
        self._games = ToyModesVectorEnv(settings, 1)
        self.episode_limit = self._games.episode_limit
        self.observation_space = self._games.single_observation_space
        self.action_space = self._games.single_action_space

    @classmethod
    def make_vector(cls, settings: ToyModesSettings, num_envs: int) -> VectorEnv:
        """`num_envs` copies in this process."""
        return ToyModesVectorEnv(settings, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Draw the context that `seed` determines (`options` are ignored)."""
        super().reset(seed=seed)
        observation, info = self._games.reset(seed=[int(self.np_random.integers(2**31))])
        return {key: value[0] for key, value in observation.items()}, info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Play `action`, [N, d] or [N] corners -> observation, reward, True, False, info."""
        observation, rewards, _, _, info = self._games.step(np.asarray(action)[None])
        return {key: value[0] for key, value in observation.items()}, float(rewards[0]), True, False, info
