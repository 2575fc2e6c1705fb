"""Any number of copies of a JAX game as an environment: each step is one compiled call and one transfer per key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from shoal.envs.jax_game import CompiledGame, compiled
from shoal.envs.team import reset_mask


class JaxVectorEnv(VectorEnv):
    """``num_envs`` copies of a game stepped by one compiled call; gymnasium's vector API with autoreset disabled.

    A copy whose episode has ended stays as it is (same observation and flags, reward 0) until it is reset. Each copy
    carries its own random key, made from its reset seed: an episode is a function of its seed and its actions.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 - gymnasium's attribute

    def __init__(self, compiled: CompiledGame, num_envs: int) -> None:
        self.game: Any = compiled.game
        self.compiled, self.num_envs = compiled, num_envs
        self.episode_limit = self.game.time_limit
        self.entry_names, self.action_classes = self.game.entry_names, self.game.action_classes
        self._carry: Any = None
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self.single_observation_space = spaces.Dict(
            {
                key: spaces.MultiBinary(shape if len(shape) > 1 else shape[0])
                if key in ("avail_actions", "alive")
                else spaces.Box(-np.inf, np.inf, shape, np.float32)
                for key, shape in compiled.shapes.items()
            }
        )
        self.single_action_space = self.game.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    @property
    def states(self) -> Any:
        """The game's states of all copies, as it has them, with a leading dimension.

        Raises:
            RuntimeError: no reset yet.
        """
        if self._carry is None:
            raise RuntimeError("reset() must come first.")
        return self._carry["state"]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start new episodes in all copies, or in those of ``options["reset_mask"]`` (bool [num_envs]).

        Args:
            seed: one per copy, or one for all (copy i gets seed + i). None: on with the copy's stream.
            options: ``reset_mask`` as above; other keys are ignored.

        Returns:
            Observations of all copies (an untouched copy's is its last), and an empty info.

        Raises:
            ValueError: a seed list or a mask of the wrong size, or copies left out of the first reset.
        """
        mask = reset_mask(options or {}, self.num_envs)
        if self._carry is None:
            if not mask.all():
                raise ValueError("The first reset must reset every copy: options['reset_mask'] leaves some out.")
            self._carry = self.compiled.blank()
        keys = self._keys(seed, mask)
        self._carry, out = self.compiled.reset(self._carry, keys, mask)
        return _copied(out["observation"]), {}

    def _keys(self, seed: int | Sequence[int | None] | None, mask: np.ndarray) -> np.ndarray:
        """New keys for the copies of ``mask``: uint32 [num_envs, 2]."""
        seeds: Sequence[int | None]
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"reset() got {len(seeds)} seeds for {self.num_envs} copies.")
        keys = np.zeros((self.num_envs, 2), dtype=np.uint32)
        for i in np.flatnonzero(mask).tolist():
            rng = self._rngs[i]
            if seeds[i] is not None or rng is None:
                self._rngs[i] = rng = seeding.np_random(seeds[i])[0]
            keys[i] = rng.integers(0, 2**32, size=2, dtype=np.uint32)
        return keys

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every running copy under ``actions`` [num_envs, N] or [num_envs, N, d].

        Returns:
            Observations, team rewards [num_envs] (float64), terminated and truncated [num_envs] (bool; the time limit
            truncates what the task has not ended), and infos: where an episode just ended, what the game judges it by,
            each with its mask ``_key``.

        Raises:
            ValueError: actions of the wrong shape.
            RuntimeError: no reset yet.
        """
        if self._carry is None:
            raise RuntimeError("reset() must come before the first step().")
        discrete = isinstance(self.single_action_space, spaces.MultiDiscrete)
        actions = np.asarray(actions, dtype=np.int32 if discrete else np.float32)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"step() needs actions of shape {self.action_space.shape}, not {actions.shape}.")
        self._carry, out = self.compiled.step(self._carry, actions)
        ended = np.array(out["just_ended"])
        infos: dict[str, Any] = {}
        if ended.any():
            for key, values in out["judged"].items():
                values = np.asarray(values)
                wide = np.float64 if np.issubdtype(values.dtype, np.floating) else np.int64
                infos[key], infos[f"_{key}"] = np.where(ended, values, 0).astype(wide), ended.copy()
        reward = np.array(out["reward"], dtype=np.float64)
        return _copied(out["observation"]), reward, np.array(out["terminated"]), np.array(out["truncated"]), infos


def _copied(observation: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """In memory of the caller's own: JAX's is read-only, and on a CPU it would be aliased."""
    return {key: np.array(value) for key, value in observation.items()}


class JaxEnv(gymnasium.Env):
    """One copy of a ``JaxVectorEnv``. A suite names its ``Settings`` (a dataclass of hashable values) and its ``Game``,
    a ``JaxGame`` that is built from them.
    """

    Settings: type[Any]
    Game: type[Any]
    own_randomness = True  # draws from nothing global

    def __init__(self, settings: Any) -> None:
        self._copies = self.make_vector(settings, 1)
        self.observation_space = self._copies.single_observation_space
        self.action_space = self._copies.single_action_space
        self.episode_limit = self._copies.episode_limit
        self.action_classes = self._copies.action_classes
        self.entry_names = self._copies.entry_names

    @classmethod
    def make_vector(cls, settings: Any, num_envs: int) -> JaxVectorEnv:
        """``num_envs`` copies behind one compiled step."""
        game: Any = cls.Game
        return JaxVectorEnv(compiled(game, settings, num_envs), num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that ``seed`` determines (``options`` are ignored) -> observation, empty info."""
        super().reset(seed=seed)
        observation, _ = self._copies.reset(seed=[seed])
        return {key: value[0] for key, value in observation.items()}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Step under ``action`` [N] or [N, d] -> observation, reward, terminated, truncated, info (at the end only)."""
        observation, reward, terminated, truncated, infos = self._copies.step(np.asarray(action)[None])
        info = {key: value[0].item() for key, value in infos.items() if not key.startswith("_")}
        first = {key: value[0] for key, value in observation.items()}
        return first, float(reward[0]), bool(terminated[0]), bool(truncated[0]), info
