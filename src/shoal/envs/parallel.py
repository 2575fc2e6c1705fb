"""Environments with PettingZoo's parallel interface, whoever builds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from gymnasium import spaces

from shoal.declare import Range
from shoal.envs.adapted import AdaptedEnv
from shoal.envs.private_random import seed_spaces
from shoal.envs.reading import read_flags, read_reward, read_view, returned, shown, takes
from shoal.envs.team import ALL, LEFT, ActionSettings, Team
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class ParallelSettings(ActionSettings):
    """What every suite with PettingZoo's parallel interface lets the user say."""

    time_limit: Annotated[int | None, "maximum steps per episode; null: the environment's max_cycles", Range(1)] = None
    reward_aggregation: Annotated[Literal["sum", "mean"], "how the agents' rewards are combined into the team's"] = (
        "sum"
    )
    own_state: Annotated[
        bool, "use the environment's own state vector, if it has one; off: the state is all observations in a row"
    ] = True
    kwargs: Annotated[dict[str, Any], "keyword arguments of the environment's constructor"] = field(
        default_factory=dict
    )


class ParallelEnv(AdaptedEnv):
    """An environment with PettingZoo's parallel interface, which a subclass builds (`_build`).

    The team is `possible_agents`, in that order. An agent that has left observes zeros, is not `alive`, and
    can only choose its first action, which is not passed on. Action masks are read where PettingZoo puts
    them: in a Dict observation ("observation", "action_mask") or in the agent's info. The state is the
    environment's own where that is a vector, else all observations in a row. The episode is over when every
    agent has left: terminated if those who left last did so by the task's end, else truncated; with
    `end_on="any"`, when the first leaves: terminated if anyone did so by the task's end. `options` of reset are
    not passed on. Every dictionary must speak of every agent that played; a reward, `terminations` and `truncations`
    may also be one for all, ends also `"__all__"`.

    Args:
        settings: how it is played.
        where: what the user asked for, which error messages begin with.
        env: an environment already built, which is played instead (and never rebuilt).
        end_on: "all" or "any", as above.
        rebuild: build a new environment for every episode.

    Raises:
        UserError: no time limit anywhere, no `possible_agents`, the interface before PettingZoo 1.23; later, a skipped
            agent, what does not fit the spaces, and rewards and ends that cannot be read.
    """

    def __init__(
        self,
        settings: ParallelSettings,
        where: str,
        env: Any = None,
        end_on: Literal["all", "any"] = "all",
        rebuild: bool = True,
    ) -> None:
        super().__init__()
        self._where = where
        self._given, self._end_on, self._rebuild = env is not None, end_on, rebuild
        self._aggregation = settings.reward_aggregation
        with self._random.entered():
            self._env = env if self._given else self._build()
        base = getattr(self._env, "unwrapped", self._env)
        self._agents: list[Any] = list(getattr(self._env, "possible_agents", None) or [])
        if not self._agents:
            raise UserError(f"{self._where} has no agents: possible_agents must list all that may play.")
        if not takes(base.reset, "seed"):
            raise UserError(f"{self._where}: its reset takes no seed; it must be reset(self, seed=None, options=None).")
        self.episode_limit = self._limit(base, settings.time_limit)
        views = [self._space("observation", agent) for agent in self._agents]
        self._masked = [isinstance(v, spaces.Dict) and {"observation", "action_mask"} <= set(v) for v in views]
        views = [v["observation"] if masked else v for v, masked in zip(views, self._masked, strict=True)]
        actions = [self._space("action", agent) for agent in self._agents]
        self._team = Team(views, actions, where, settings, self._agents)
        state_space = getattr(self._env, "state_space", None)
        self._state_space: spaces.Box | None = None
        if settings.own_state and isinstance(state_space, spaces.Box) and len(state_space.shape) == 1:
            self._state_space = state_space
        state_dim = self._state_space.shape[0] if self._state_space else None
        self.observation_space = self._team.observation_space(state_dim, alive=True)
        self.action_space = self._team.action_space
        self._live: list[Any] = []
        self._steps = 0

    def _limit(self, base: Any, asked: int | None) -> int:
        """Steps per episode: as asked for, or else the environment's own."""
        # SISL keeps its limit one level further down than MPE and Butterfly.
        levels = [base, getattr(base, "env", None)]
        limit = asked or next((level.max_cycles for level in levels if hasattr(level, "max_cycles")), None)
        if limit is None:
            raise UserError(f"{self._where} has no max_cycles of its own: set env_args.time_limit.")
        return int(limit)

    def _space(self, kind: str, agent: Any) -> Any:
        """The agent's observation or action space."""
        try:
            return getattr(self._env, f"{kind}_space")(agent)
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(
                f"{self._where}: {kind}_space({agent!r}) gives no space ({type(error).__name__}: {error})."
            ) from error

    def _dictionary(self, values: Any, what: str) -> Mapping[Any, Any]:
        """A dictionary that the environment gave.

        Raises:
            UserError: it is none.
        """
        if isinstance(values, Mapping):
            return values
        raise UserError(f"{self._where}: the {what} are {shown(values)}, but must be a dictionary by agent.")

    def _of(self, values: Any, agents: list[Any], what: str) -> dict[Any, Any]:
        """The entries of `agents` in a dictionary that the environment gave.

        Raises:
            UserError: it is no dictionary, or skips one of them.
        """
        values = self._dictionary(values, what)
        for agent in agents:
            if agent not in values:
                raise UserError(f"{self._where}: the {what} skip agent {agent!r}, who plays: name every agent there.")
        return {agent: values[agent] for agent in agents}

    def _ends(self, flags: Any, agents: list[Any], what: str) -> dict[Any, bool]:
        """Agent -> whether it has come to an end."""
        everybody = False
        if isinstance(flags, Mapping):
            if "__all__" in flags:
                everybody = bool(read_flags(flags, len(agents), what, self._where).all())
                flags = {**dict.fromkeys(agents, False), **flags}
            flags = list(self._of(flags, agents, what).values())
        ends = read_flags(flags, len(agents), what, self._where) | everybody
        return dict(zip(agents, ends.tolist(), strict=True))

    def _members(self) -> list[Any]:
        """Who plays on, as the environment says.

        Raises:
            UserError: it does not say, or names somebody who was not announced.
        """
        agents = getattr(self._env, "agents", None)
        if agents is None:
            raise UserError(f"{self._where} has no `agents`: it must list who is still playing.")
        for agent in agents:
            if agent not in self._agents:
                raise UserError(f"{self._where}: agent {agent!r} plays, but is not among its possible_agents.")
        return list(agents)

    def _observation(self, observations: Any, infos: Any, last: bool = False) -> dict[str, np.ndarray]:
        """What the team sees. With `last`, of an ended task: no agent acts any more, so that masks may be empty."""
        observations = self._of(observations, self._live, "observations")
        infos = self._dictionary({} if infos is None else infos, "infos")
        seen: list[Any] = []
        masks: list[Any] = []
        for agent, masked, count in zip(self._agents, self._masked, self._team.action_counts, strict=True):
            if agent not in self._live:
                seen.append(LEFT)
                masks.append([1] + [0] * (count - 1))
            elif masked:
                view = observations[agent]
                if not isinstance(view, Mapping) or not {"observation", "action_mask"} <= set(view):
                    raise UserError(
                        f"{self._where}: the observation of agent {agent!r} is {shown(view)}, but its space is a Dict "
                        "of observation and action_mask."
                    )
                seen.append(view["observation"])
                masks.append(view["action_mask"])
            else:
                seen.append(observations[agent])
                info = infos.get(agent)
                masks.append(info.get("action_mask", ALL) if isinstance(info, Mapping) else ALL)
        obs = self._team.pad(seen)
        if self._state_space is None:
            state = obs.reshape(-1).copy()
        elif self._live:
            state = read_view(self._state_space, self._env.state(), f"{self._where}: the state")
        else:
            # There is no agent to value it for, and some environments (multiwalker) cannot say it any more.
            state = np.zeros(self._state_space.shape, dtype=np.float32)
        alive = np.array([agent in self._live for agent in self._agents], dtype=np.int8)
        observation = {"obs": obs, "state": state, "alive": alive}
        if self._team.discrete:
            observation["avail_actions"] = self._team.avail(masks, needed=not last)
        return observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` determines -> observation, empty info. Of `options` only `draw` is read."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._random.seed(seed)
        with self._random.entered():
            if not self._given:
                self._renew(self._rebuild, options)
            seed_spaces(seed, *(self._space(kind, a) for kind in ("observation", "action") for a in self._agents))
            started = self._env.reset(seed=seed)
            observations, infos = returned(started, ("observations", "infos"), self._where, "reset")
            self._live = self._members()
            if not self._live:
                raise UserError(f"{self._where}: no agent is left after reset: `agents` must list who does.")
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
        names = ("observations", "rewards", "terminations", "truncations", "infos")
        with self._random.entered():
            result = self._env.step({agent: chosen[agent] for agent in playing})
            observations, rewards, ends, cuts, infos = returned(result, names, self._where, "step")
            ends, cuts = self._ends(ends, playing, "terminations"), self._ends(cuts, playing, "truncations")
            if isinstance(rewards, Mapping):
                rewards = self._of(rewards, playing, "rewards")
            reward = read_reward(rewards, len(playing), self._aggregation, self._where)
            self._steps += 1
            self._live = [a for a in self._members() if not (ends.get(a, False) or cuts.get(a, False))]
            over, ended = not self._live, all(ends.values())
            if self._end_on == "any":
                over, ended = len(self._live) < len(playing), any(ends.values())
            terminated = over and ended
            truncated = (over or self._steps >= self.episode_limit) and not terminated
            observations = self._dictionary(observations, "observations")
            survivors = [agent for agent in playing if not ends[agent]]
            info = {"agents_left": len(survivors)} if terminated or truncated else {}
            # Who was only cut off by the clock still has a view to bootstrap from. At the task's end none is needed.
            if terminated or truncated:
                self._live = [agent for agent in survivors if agent in observations and truncated]
            return self._observation(observations, infos, terminated), reward, terminated, truncated, info
