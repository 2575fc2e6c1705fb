"""What a run needs to know of its environment: sizes and kinds, read from the gymnasium spaces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import gymnasium as gym

from shoal.utils.errors import UserError

ActionClasses: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
"""Kinds of discrete action by name, each with its action indices: ``(("move", (0, 1)), ("attack", (2, 3)))``."""


@dataclass(frozen=True)
class TeamSpec:
    """Sizes of one environment.

    ``n_actions`` is the number of discrete actions, or the length of one agent's action vector where
    ``discrete`` is false. ``action_classes`` are the kinds of action that the environment declares, if it does.
    """

    n_agents: int
    n_actions: int
    obs_dim: int
    state_dim: int
    episode_limit: int
    discrete: bool
    has_alive: bool = False
    action_classes: ActionClasses = ()

    @classmethod
    def from_spaces(
        cls,
        observation: gym.Space,
        action: gym.Space,
        episode_limit: int,
        action_classes: Mapping[str, Sequence[int]] | None = None,
    ) -> "TeamSpec":
        """Read the sizes from a team environment's spaces (``shoal.envs.team``).

        Raises:
            UserError: the spaces are not those of a team environment, or the classes do not fit its actions.
        """
        if not isinstance(observation, gym.spaces.Dict) or not {"obs", "state"} <= set(observation.spaces):
            raise UserError(
                f"The environment's observation space must be a Dict with 'obs' and 'state', not {observation}: "
                "enter it through the gymma, pettingzoo or pymarl adapter."
            )
        obs_shape, state_shape = observation["obs"].shape, observation["state"].shape
        if not (obs_shape and len(obs_shape) == 2 and state_shape and len(state_shape) == 1):
            raise UserError(
                f"The environment's observations must be obs [agents, size] and state [size], "
                f"not shapes {obs_shape} and {state_shape}: flatten them."
            )
        (n_agents, obs_dim), (state_dim,) = obs_shape, state_shape
        if isinstance(action, gym.spaces.MultiDiscrete):
            n_actions, discrete = int(action.nvec.max()), True
        elif isinstance(action, gym.spaces.Box):
            n_actions, discrete = int(action.shape[-1]), False
        else:
            raise UserError(f"The environment's action space must be MultiDiscrete or Box, not {action}.")
        return cls(
            n_agents,
            n_actions,
            obs_dim,
            state_dim,
            episode_limit,
            discrete,
            "alive" in observation.spaces,
            _checked(action_classes or {}, n_actions, discrete),
        )


def _checked(declared: Mapping[str, Sequence[int]], n_actions: int, discrete: bool) -> ActionClasses:
    if declared and not discrete:
        raise UserError("The environment's actions are continuous, so it cannot declare action_classes: remove them.")
    try:
        classes = tuple((str(name), tuple(int(index) for index in indices)) for name, indices in declared.items())
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"The environment's action_classes must map names to lists of action indices, not be {declared!r}."
        ) from error
    for name, indices in classes:
        unknown = sorted(set(indices) - set(range(n_actions)))
        if unknown:
            raise UserError(
                f"The environment's action_classes put action {unknown[0]} in {name!r}, "
                f"but its actions are 0 to {n_actions - 1}: correct the list."
            )
    return classes
