"""What a run needs to know of its environment: sizes and kinds, read from the gymnasium spaces."""

from dataclasses import dataclass

import gymnasium as gym

from shoal.utils.errors import UserError


@dataclass(frozen=True)
class TeamSpec:
    """Sizes of one environment.

    ``n_actions`` is the number of discrete actions, or the length of one agent's action vector where
    ``discrete`` is false.
    """

    n_agents: int
    n_actions: int
    obs_dim: int
    state_dim: int
    episode_limit: int
    discrete: bool
    has_alive: bool = False

    @classmethod
    def from_spaces(cls, observation: gym.Space, action: gym.Space, episode_limit: int) -> "TeamSpec":
        """Read the sizes from the spaces that design.md prescribes.

        Raises:
            UserError: the spaces are not those of a team environment.
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
        return cls(n_agents, n_actions, obs_dim, state_dim, episode_limit, discrete, "alive" in observation.spaces)
