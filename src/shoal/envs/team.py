"""What environments share: one shape for a team whose agents may see and do different things, and resets by copy."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim

from shoal.declare import Checked, Range
from shoal.envs.reading import check_space, number_in, per_agent, read_mask, read_view
from shoal.utils.errors import UserError


def import_named(module: str, key: str) -> Any:
    """The module that `env_args.key` names.

    Raises:
        UserError: it cannot be imported; the sentence names the missing package.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        if error.name is not None and module.startswith(error.name) and error.name != missing:
            raise UserError(f"env_args.key={key!r}: package {missing!r} has no module {error.name!r}.") from error
        raise UserError(
            f"env_args.key={key!r} needs the Python package {missing!r}: install it, or correct the name."
        ) from error
    except ImportError as error:
        raise UserError(f"env_args.key={key!r} could not be imported: {error}.") from error


def reset_mask(options: Mapping[str, Any], num_envs: int) -> np.ndarray:
    """Which copies of a vector environment to reset: `options["reset_mask"]`, or all. Bool [num_envs].

    Raises:
        ValueError: it is of another size or type.
    """
    mask = np.asarray(options.get("reset_mask", np.ones(num_envs, dtype=bool)))
    if mask.shape != (num_envs,) or mask.dtype != np.bool_:
        raise ValueError(f"options['reset_mask'] must be {num_envs} booleans, not {mask!r}.")
    return mask


EPISODE_FAILED = "shoal:episode_failed"
"""In the last info of an episode that its environment could not finish, 1: the runner drops it and plays another one.

No environment from elsewhere can say so by accident: ``plain_numbers`` leaves this key out."""


def plain_numbers(info: Any) -> dict[str, float | int]:
    """The entries of an info dict that can be averaged over episodes (`number_in`); booleans as 0 or 1."""
    if not isinstance(info, dict):
        return {}
    numbers = {str(key): number for key, value in info.items() if (number := number_in(value)) is not None}
    numbers.pop(EPISODE_FAILED, None)
    return numbers


@dataclass(frozen=True)
class ActionSettings(Checked):
    """What every suite that may have continuous actions lets the user say about them."""

    action_mode: Annotated[
        Literal["continuous", "discrete", "bang_bang"] | None,
        "bang_bang: offer the corners of a continuous action box as discrete actions; continuous or discrete:"
        " require actions of that kind; null: accept both",
    ] = None
    bang_bang_levels: Annotated[
        int, "values per action dimension under bang_bang: 2 is -1 and 1, 3 adds 0", Range(2)
    ] = 2


MAX_CORNERS = 1024
"""Ten dimensions of two levels; a network with an output for each of more is no sensible agent."""


def corners(dims: int, levels: int = 2) -> np.ndarray:
    """Every action of `levels` evenly spaced values a coordinate, from -1 to 1: float32 [levels**dims, dims].

    The last coordinate runs fastest: (-1, -1), (-1, 1), (1, -1), (1, 1).

    Raises:
        UserError: there are more than `MAX_CORNERS`.
    """
    if levels**dims > MAX_CORNERS:
        raise UserError(
            f"env_args.action_mode=bang_bang would make {levels}^{dims} actions of {dims} dimensions, "
            f"more than {MAX_CORNERS}: keep action_mode=continuous."
        )
    axis = np.linspace(-1.0, 1.0, levels, dtype=np.float32)
    return np.stack(np.meshgrid(*[axis] * dims, indexing="ij"), axis=-1).reshape(-1, dims)


LEFT, ALL = object(), object()
"""In the place of the observation of an agent that has left, and of the mask of one that may do all it can."""


class Team:
    """Pads agents to one observation size and one action space, and undoes it for the actions.

    Observations are flattened (images too, dictionaries in key order) and padded with zeros to `obs_dim`.
    Discrete actions are padded to `n_actions` with actions that are never available. Continuous ones are
    [-1, 1]^d here and rescaled to each agent's own bounds; surplus dimensions are dropped. `bang_bang` offers
    the corners of that cube (`corners`, each agent those of its own dimensions) as discrete actions.

    Args:
        observation_spaces: one per agent.
        action_spaces: one per agent, all Discrete or all Box.
        where: what the user asked for, which error messages begin with: `env_args.key='x'`.
        actions: how to offer them.
        names: what the environment calls its agents, for error messages; None: 0, 1, ...

    Raises:
        UserError: observation spaces that are no vectors; action spaces of another kind than asked for, mixed, or
            without finite bounds; too many corners; or no agents.
    """

    def __init__(
        self,
        observation_spaces: Sequence[spaces.Space],
        action_spaces: Sequence[spaces.Space],
        where: str,
        actions: ActionSettings = ActionSettings(),
        names: Sequence[Any] | None = None,
    ) -> None:
        if not action_spaces:
            raise UserError(f"{where} has no agents.")
        for space in observation_spaces:
            check_space(space, where)
        self.n_agents = len(action_spaces)
        self._where = where
        self._names = list(names or range(self.n_agents))
        self._observation_spaces = list(observation_spaces)
        self._action_spaces = list(action_spaces)
        self.obs_dim = max(flatdim(space) for space in observation_spaces)
        self.discrete, self.action_counts = _own_actions(action_spaces, where)
        _check_mode(actions.action_mode, self.discrete, where)
        self._bounds = [] if self.discrete else [_bounds(space) for space in action_spaces]
        self._corners: list[np.ndarray] | None = None
        if actions.action_mode == "bang_bang":
            self.discrete = True
            self._corners = [corners(dims, actions.bang_bang_levels) for dims in self.action_counts]
            self.action_counts = [len(table) for table in self._corners]
        self.n_actions = max(self.action_counts)
        self.action_space: spaces.Space
        if self.discrete:
            self.action_space = spaces.MultiDiscrete([self.n_actions] * self.n_agents)
        else:
            self.action_space = spaces.Box(-1.0, 1.0, (self.n_agents, self.n_actions), np.float32)

    def observation_space(self, state_dim: int | None = None, alive: bool = False) -> spaces.Dict:
        """The team's observation space; without `state_dim`, the state is all observations in a row."""
        N = self.n_agents
        parts: dict[str, spaces.Space] = {
            "obs": spaces.Box(-np.inf, np.inf, (N, self.obs_dim), np.float32),
            "state": spaces.Box(-np.inf, np.inf, (state_dim or N * self.obs_dim,), np.float32),
        }
        if self.discrete:
            parts["avail_actions"] = spaces.MultiBinary([N, self.n_actions])
        if alive:
            parts["alive"] = spaces.MultiBinary(N)
        return spaces.Dict(parts)

    def pad(self, observations: Any) -> np.ndarray:
        """One observation per agent, `LEFT` for one that left -> [N, obs_dim] float32.

        Raises:
            UserError: an observation that does not fit its agent's space, or one too many or too few.
        """
        padded = np.zeros((self.n_agents, self.obs_dim), dtype=np.float32)
        views = per_agent(observations, self.n_agents, f"{self._where}: the observations")
        for row, space, name, view in zip(padded, self._observation_spaces, self._names, views, strict=True):
            if view is not LEFT:
                flat = read_view(space, view, f"{self._where}: the observation of agent {name!r}")
                row[: flat.size] = flat
        return padded

    def avail(self, masks: Any = ALL, needed: bool = True) -> np.ndarray:
        """[N, A] int8: each agent's mask, or all its own actions where there is none (`ALL`).

        Args:
            masks: one per agent, or `ALL`.
            needed: every agent must have an action; not so where the task has ended.

        Raises:
            UserError: a mask of another length or of other values, without an action, or one too many or too few.
        """
        available = np.zeros((self.n_agents, self.n_actions), dtype=np.int8)
        masks = [ALL] * self.n_agents if masks is ALL else masks
        masks = per_agent(masks, self.n_agents, f"{self._where}: the available actions")
        for row, count, name, mask in zip(available, self.action_counts, self._names, masks, strict=True):
            row[:count] = 1 if mask is ALL else read_mask(mask, count, self._where, name, needed)
        return available

    def decode(self, actions: np.ndarray) -> list[Any]:
        """The team's actions, [N] or [N, d] in [-1, 1], in each agent's own terms."""
        # Padding is never available; whoever chooses it all the same takes the first action.
        if self._corners is not None:
            taken = [table[a if a < len(table) else 0] for table, a in zip(self._corners, actions, strict=True)]
            return [self._rescaled(i, action) for i, action in enumerate(taken)]
        if self.discrete:
            return [
                int(space.start) + (int(a) if a < space.n else 0)  # type: ignore[attr-defined]
                for space, a in zip(self._action_spaces, actions, strict=True)
            ]
        parts = zip(self.action_counts, np.asarray(actions), strict=True)
        return [self._rescaled(i, action[:size]) for i, (size, action) in enumerate(parts)]

    def _rescaled(self, agent: int, action: np.ndarray) -> np.ndarray:
        """A vector in [-1, 1] (clipped to it) between the agent's bounds, in the shape and dtype of its space."""
        space, (low, high) = self._action_spaces[agent], self._bounds[agent]
        value = low + (action.astype(np.float64) + 1.0) * 0.5 * (high - low)
        value = np.minimum(np.maximum(value, low), high)  # exact bounds, which the rounding above may miss
        if np.issubdtype(space.dtype, np.integer):
            value = np.rint(value)
        return value.astype(space.dtype).reshape(space.shape)


def _own_actions(action_spaces: Sequence[Any], where: str) -> tuple[bool, list[int]]:
    """Whether the agents' own actions are discrete, and how many actions, or dimensions of one, each agent has."""
    if all(isinstance(space, spaces.Discrete) for space in action_spaces):
        return True, [int(space.n) for space in action_spaces]
    if not all(isinstance(space, spaces.Box) for space in action_spaces):
        kinds = sorted({type(space).__name__ for space in action_spaces})
        raise UserError(f"{where} has {' and '.join(kinds)} actions: all must be Discrete, or all Box.")
    if not all(np.isfinite(space.low).all() and np.isfinite(space.high).all() for space in action_spaces):
        raise UserError(f"{where} has unbounded actions, which [-1, 1] cannot be scaled to.")
    return False, [flatdim(space) for space in action_spaces]


def _check_mode(mode: str | None, discrete: bool, where: str) -> None:
    """Refuse an `action_mode` that the agents' own actions do not allow."""
    own = "discrete" if discrete else "continuous"
    if mode not in (None, own, "bang_bang") or (mode == "bang_bang" and discrete):
        raise UserError(
            f"env_args.action_mode={mode} does not fit {where}, whose actions are {own}: "
            f"set env_args.action_mode={own}."
        )


def _bounds(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest action, flat."""
    return space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
