"""Any gymnasium multi-agent environment (tuple spaces, one reward per agent), by its id."""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from shoal.declare import Range, Role
from shoal.envs.adapted import AdaptedEnv
from shoal.envs.private_random import seed_spaces
from shoal.envs.reading import read_flags, read_info, read_reward, returned, takes
from shoal.envs.team import ActionSettings, Team, import_named, plain_numbers
from shoal.utils.errors import UserError

KNOWN_SUITES = ("lbforaging", "rware")
OWN_LIMITS = ("max_episode_steps", "max_steps")
"""Constructor arguments by which LBF and RWARE count steps themselves, calling the limit a true end."""


@dataclass(frozen=True)
class GymmaSettings(ActionSettings):
    """Settings of a gymnasium multi-agent environment."""

    key: Annotated[
        str, "gymnasium id, preceded by the module that registers it: 'lbforaging:Foraging-8x8-2p-3f-v3'", Role.TASK
    ] = "lbforaging:Foraging-8x8-2p-3f-v3"
    time_limit: Annotated[int | None, "maximum steps per episode; null: the environment's own limit", Range(1)] = None
    reward_aggregation: Annotated[Literal["sum", "mean"], "how the agents' rewards are combined into the team's"] = (
        "sum"
    )
    rebuild: Annotated[bool, "build a new environment for every episode, so that episodes are independent"] = True
    kwargs: Annotated[dict[str, Any], "keyword arguments of the environment's constructor"] = field(
        default_factory=dict
    )


def _spec(key: str) -> gymnasium.envs.registration.EnvSpec:
    module, _, env_id = key.rpartition(":")
    if module:
        import_named(module, key)
    registered = gymnasium.envs.registry
    if env_id not in registered:
        family = env_id.partition("-")[0]
        close = difflib.get_close_matches(env_id, [name for name in registered if family in name], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "name the package that registers it as 'package:id'."
        raise UserError(f"env_args.key={key!r}: gymnasium knows no environment {env_id!r}; {hint}")
    return copy.deepcopy(registered[env_id])


class GymmaEnv(AdaptedEnv):
    """Any gymnasium multi-agent environment (LBF, RWARE, ...), by its id.

    Spaces are tuples with one entry per agent (an ordinary environment is a team of one). Observations are
    padded to one size; the state is all of them in a row; actions that only some agents have are
    unavailable to the others. The time limit is counted here, so that reaching it is `truncated`: LBF and
    RWARE, which would call it a true end, are given one step more than they will get. The last info holds
    the numbers of the environment's own. Rewards and ends may be one for all, a list, or a mapping.

    Raises:
        UserError: an unknown id, a missing package, refused arguments, no time limit anywhere, the interface that gym
            had before 0.26; later, what does not fit the spaces, and rewards and ends that cannot be read.
    """

    Settings = GymmaSettings

    @staticmethod
    def outside_code(env_args: Mapping[str, Any]) -> dict[str, str]:
        """Settings that name code to import, but for the suites that this adapter is made for."""
        key = str(env_args.get("key") or "")
        module = key.rpartition(":")[0]
        return {"key": key} if module and module.partition(".")[0] not in KNOWN_SUITES else {}

    def __init__(self, settings: GymmaSettings) -> None:
        super().__init__()
        self._where = f"env_args.key={settings.key!r}"
        spec = _spec(settings.key)
        spec.kwargs.update(settings.kwargs)
        own = next((name for name in OWN_LIMITS if spec.kwargs.get(name) is not None), None)
        limit = settings.time_limit or spec.max_episode_steps or (spec.kwargs[own] if own else None)
        if limit is None:
            raise UserError(f"{self._where} has no time limit of its own: set env_args.time_limit.")
        self.episode_limit = int(limit)
        if own is not None:
            spec.kwargs[own] = self.episode_limit + 1
        spec.max_episode_steps = None
        self._spec, self._rebuild = spec, settings.rebuild
        with self._random.entered():
            self._env = self._build()
        if not takes(self._env.unwrapped.reset, "seed"):
            raise UserError(
                f"{self._where}: its reset takes no seed; it must be reset(self, *, seed=None, options=None)."
            )
        self._single = not isinstance(self._env.action_space, spaces.Tuple)
        parts = [self._env.observation_space, self._env.action_space]
        if not self._single and not isinstance(parts[0], spaces.Tuple):
            raise UserError(f"{self._where} has one action per agent but not one observation each.")
        observation_spaces, action_spaces = [[p] if self._single else list(p) for p in parts]
        if len(observation_spaces) != len(action_spaces):
            raise UserError(
                f"{self._where} has {len(observation_spaces)} observations for {len(action_spaces)} actions."
            )
        self._team = Team(observation_spaces, action_spaces, self._where, settings)
        self._how = settings.reward_aggregation
        self._steps = 0
        self.observation_space = self._team.observation_space()
        self.action_space = self._team.action_space

    def _build(self, draw: bool = False) -> gymnasium.Env:
        drawing: dict[str, Any] = (
            {"render_mode": "rgb_array"} if draw and "render_mode" not in self._spec.kwargs else {}
        )
        try:
            with warnings.catch_warnings():
                # gymnasium advises here against what a multi-agent environment is.
                warnings.simplefilter("ignore")
                return gymnasium.make(self._spec, disable_env_checker=True, **drawing)
        except (TypeError, gymnasium.error.Error, ImportError) as error:
            if drawing:
                return self._build()
            raise UserError(f"{self._where} could not be built: {error}.") from error

    def _observation(self, observations: Any) -> dict[str, np.ndarray]:
        obs = self._team.pad([observations] if self._single else observations)
        observation = {"obs": obs, "state": obs.reshape(-1).copy()}
        if self._team.discrete:
            observation["avail_actions"] = self._team.avail()
        return observation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` determines -> observation, empty info. Of `options` only `draw` is read."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._random.seed(seed)
        with self._random.entered():
            # LBF, for one, places its agents around where the last episode left them.
            self._renew(self._rebuild, options)
            seed_spaces(seed, self._env.observation_space, self._env.action_space)
            started = self._env.reset(seed=seed)
        observations, info = returned(started, ("observations", "info"), self._where, "reset")
        read_info(info, self._where, "reset")  # gym before 0.26 returned observations alone: of two agents, two values
        self._steps = 0
        return self._observation(observations), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Step under `action` [N] or [N, d] -> observation, team reward, terminated, truncated, info."""
        actions = self._team.decode(action)
        with self._random.entered():
            result = self._env.step(actions[0] if self._single else tuple(actions))
        names = ("observations", "rewards", "terminated", "truncated", "info")
        observations, rewards, done, cut, info = returned(result, names, self._where, "step")
        self._steps += 1
        done = read_flags(done, self._team.n_agents, "terminated", self._where)
        cut = read_flags(cut, self._team.n_agents, "truncated", self._where)
        terminated = bool(done.all())
        out_of_time = bool((done | cut).all()) or self._steps >= self.episode_limit
        truncated = out_of_time and not terminated
        last = plain_numbers(read_info(info, self._where, "step")) if terminated or truncated else {}
        reward = read_reward(rewards, self._team.n_agents, self._how, self._where)
        return self._observation(observations), reward, terminated, truncated, last
