"""Any PettingZoo parallel environment, by the module that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from shoal.envs.team import ActionSettings, Team, aggregate, import_named
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class PettingZooSettings(ActionSettings):
    """Settings of a PettingZoo parallel environment."""

    key: Annotated[str, "module with a parallel_env function: 'pettingzoo.sisl.multiwalker_v9'"] = (
        "pettingzoo.sisl.multiwalker_v9"
    )
    time_limit: Annotated[int | None, "steps per episode; null: the environment's max_cycles"] = None
    reward_aggregation: Annotated[Literal["sum", "mean"], "how the agents' rewards become the team's"] = "sum"
    own_state: Annotated[bool, "take the environment's state vector, if any; off: all observations"] = True
    end_on: Annotated[Literal["all", "any"], "the episode ends when every agent has left, or when any has"] = "all"
    rebuild: Annotated[bool, "build it anew for every episode, so that none depends on the one before"] = True
    kwargs: Annotated[dict[str, Any], "arguments for parallel_env"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            UserError: naming the setting.
        """
        super().__post_init__()
        if self.time_limit is not None and self.time_limit < 1:
            raise UserError(f"env_args.time_limit={self.time_limit} must be at least 1, or null.")
        if self.reward_aggregation not in ("sum", "mean"):
            raise UserError(f"env_args.reward_aggregation={self.reward_aggregation!r} must be sum or mean.")
        if self.end_on not in ("all", "any"):
            raise UserError(f"env_args.end_on={self.end_on!r} must be all or any.")


def _make(settings: PettingZooSettings) -> Any:
    module = import_named(settings.key, settings.key)
    if not hasattr(module, "parallel_env"):
        raise UserError(f"env_args.key={settings.key!r} has no parallel_env: only parallel environments are played.")
    try:
        return module.parallel_env(**settings.kwargs)
    except (TypeError, ImportError) as error:
        raise UserError(f"env_args.key={settings.key!r} could not be built: {error}.") from error


class PettingZooEnv(gymnasium.Env):
    """Any PettingZoo parallel environment (MPE, SISL, ...), by its module.

    The team is `possible_agents`, in that order. An agent that has left observes zeros, is not `alive`, and
    can only choose its first action, which is not passed on. Action masks are read where PettingZoo puts
    them: in a Dict observation ("observation", "action_mask") or in the agent's info. The state is the
    environment's own where that is a vector, else all observations in a row. The episode is over when every
    agent has left: terminated if those who left last did so by the task's end, else truncated; with
    `end_on=any`, when the first leaves: terminated if anyone did so by the task's end. `options` of reset are
    not passed on.

    Args:
        settings: which environment, and how.
        env: a parallel environment already built, played instead of `settings.key` (and never rebuilt).

    Raises:
        UserError: a missing package, no `parallel_env`, refused arguments, or no time limit anywhere.
    """

    Settings = PettingZooSettings

    @staticmethod
    def outside_code(env_args: Mapping[str, Any]) -> dict[str, str]:
        """Settings that name code to import, but for PettingZoo's own modules."""
        key = str(env_args.get("key") or "")
        return {"key": key} if key and key.partition(".")[0] != "pettingzoo" else {}

    def __init__(self, settings: PettingZooSettings, env: Any = None) -> None:
        self._env = _make(settings) if env is None else env
        self._settings, self._rebuild, self._used = settings, settings.rebuild and env is None, False
        self._agents: list[Any] = list(self._env.possible_agents)
        # SISL keeps its limit one level further down than MPE and Butterfly.
        levels = [self._env.unwrapped, getattr(self._env.unwrapped, "env", None)]
        own = next((level.max_cycles for level in levels if hasattr(level, "max_cycles")), None)
        limit = settings.time_limit or own
        if limit is None:
            raise UserError(f"env_args.key={settings.key!r} has no max_cycles of its own: set env_args.time_limit.")
        self.episode_limit = int(limit)
        self._how = settings.reward_aggregation

        views = [self._env.observation_space(agent) for agent in self._agents]
        self._masked = [isinstance(v, spaces.Dict) and {"observation", "action_mask"} <= set(v) for v in views]
        views = [v["observation"] if masked else v for v, masked in zip(views, self._masked, strict=True)]
        actions = [self._env.action_space(agent) for agent in self._agents]
        self._team = Team(views, actions, settings.key, settings)
        state_space = getattr(self._env, "state_space", None)
        self._own_state = settings.own_state and isinstance(state_space, spaces.Box) and len(state_space.shape) == 1
        state_dim = int(state_space.shape[0]) if self._own_state else None  # type: ignore[union-attr]
        self._state_dim = state_dim or 0
        self.observation_space = self._team.observation_space(state_dim, alive=True)
        self.action_space = self._team.action_space
        self._live: list[Any] = []
        self._steps = 0

    def _observation(self, observations: dict[Any, Any], infos: dict[Any, Any]) -> dict[str, np.ndarray]:
        seen: list[Any] = []
        masks: list[Any] = []
        for agent, masked in zip(self._agents, self._masked, strict=True):
            if agent not in self._live:
                seen.append(None)
                masks.append(np.arange(self._team.n_actions) == 0)
            elif masked:
                seen.append(observations[agent]["observation"])
                masks.append(observations[agent]["action_mask"])
            else:
                seen.append(observations[agent])
                masks.append(infos.get(agent, {}).get("action_mask"))
        obs = self._team.pad(seen)
        if not self._own_state:
            state = obs.reshape(-1).copy()
        elif self._live:
            state = np.array(self._env.state(), dtype=np.float32)
        else:
            # There is nobody to value it for, and some environments (multiwalker) cannot say it any more.
            state = np.zeros(self._state_dim, dtype=np.float32)
        alive = np.array([agent in self._live for agent in self._agents], dtype=np.int8)
        observation = {"obs": obs, "state": state, "alive": alive}
        if self._team.discrete:
            observation["avail_actions"] = self._team.avail(masks)
        return observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` determines (`options` are ignored) -> observation, empty info."""
        super().reset(seed=seed)
        if self._rebuild and self._used:
            self._env.close()
            self._env = _make(self._settings)
        self._used = True
        observations, infos = self._env.reset(seed=int(self.np_random.integers(2**31)) if seed is None else seed)
        self._live = list(self._env.agents)
        self._steps = 0
        return self._observation(observations, infos), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Step under `action` [N] or [N, d] -> observation, team reward, terminated, truncated, info.

        The last info holds `agents_left`, the number of agents still there when the episode ended.
        """
        return self._play(self._team.decode(action))

    def _play(self, actions: list[Any]) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """`step`, with the actions in each agent's own terms."""
        chosen = dict(zip(self._agents, actions, strict=True))
        playing = self._live
        observations, rewards, ends, cuts, infos = self._env.step({agent: chosen[agent] for agent in playing})
        self._steps += 1
        self._live = [a for a in self._env.agents if not (ends.get(a, False) or cuts.get(a, False))]
        over, ended = not self._live, all(ends.get(agent, False) for agent in playing)
        if self._settings.end_on == "any":
            over, ended = len(self._live) < len(playing), any(ends.get(agent, False) for agent in playing)
        terminated = over and ended
        truncated = (over or self._steps >= self.episode_limit) and not terminated
        reward = aggregate([float(rewards[a]) for a in playing if a in rewards], self._how)
        survivors = [agent for agent in playing if not ends.get(agent, False)]
        info = {"agents_left": len(survivors)} if terminated or truncated else {}
        # Who was only cut off by the clock still has a view to bootstrap from. At the task's end nobody needs one.
        if terminated or truncated:
            self._live = [agent for agent in survivors if agent in observations and truncated]
        return self._observation(observations, infos), reward, terminated, truncated, info

    def close(self) -> None:
        """Close the environment underneath."""
        self._env.close()
