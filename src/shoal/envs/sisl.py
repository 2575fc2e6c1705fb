"""SISL's environments as the LAN paper plays them: Multiwalker, Waterworld and Pursuit, from PettingZoo."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from shoal.declare import Range, Role
from shoal.envs.parallel import ParallelEnv, ParallelSettings
from shoal.utils.errors import UserError
from shoal.utils.extras import install_command

INSTALL = f"run {install_command('sisl')}"
"""Waterworld left PettingZoo with 1.26; it calls what pymunk dropped with 7."""

NEEDS = {"multiwalker": ("Box2D", "pygame"), "waterworld": ("pymunk", "pygame", "scipy"), "pursuit": ("pygame",)}

OURS = ("self", "max_cycles", "render_mode", "FPS")
"""What `kwargs` may not hold: set elsewhere, or without a meaning here."""

IDLE = 0.1
"""Below this length an action counts as idling."""


@dataclass(frozen=True)
class SislSettings(ParallelSettings):
    """Settings of the SISL environments."""

    env_name: Annotated[Literal["multiwalker", "waterworld", "pursuit"], "SISL environment", Role.TASK] = "multiwalker"
    time_limit: Annotated[int, "maximum steps per episode", Range(1)] = 500
    own_state: Annotated[
        bool, "use the environment's own state vector, if it has one; off: the state is all observations in a row"
    ] = False
    reward_scale: Annotated[float, "factor on the team's reward, and so on recorded returns", Range(above=0)] = 1.0
    fix_double_thrust: Annotated[
        bool, "waterworld: refund the thrust penalty that PettingZoo charges the last pursuer twice"
    ] = False

    def __post_init__(self) -> None:
        """Refuse values that exclude each other.

        Raises:
            UserError: naming the setting.
        """
        super().__post_init__()
        if self.fix_double_thrust and self.env_name != "waterworld":
            raise UserError(f"env_args.fix_double_thrust is about waterworld: leave it out for {self.env_name}.")
        if self.fix_double_thrust and self.kwargs.get("local_ratio", 1.0) != 1.0:
            raise UserError("env_args.fix_double_thrust requires local_ratio=1.0.")


def find_module(name: str) -> str:
    """The newest module of PettingZoo that has the environment `name`, by its full name.

    Raises:
        UserError: a package is missing or too new.
    """
    # Nothing here opens a window, and pygame's greeting is not for the users of a training program.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    for package in ("pettingzoo", *NEEDS[name]):
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"env_args.env_name={name} needs the Python package {package!r}: {INSTALL}") from error
        if package == "pymunk" and not hasattr(module.Space, "add_collision_handler"):
            raise UserError(f"env_args.env_name={name} does not run with pymunk {module.version}: {INSTALL}")
    suite = importlib.import_module("pettingzoo.sisl")
    found = [m.name for m in pkgutil.iter_modules(suite.__path__) if m.name.startswith(f"{name}_v")]
    if not found:
        version = importlib.import_module("pettingzoo").__version__
        raise UserError(f"env_args.env_name={name} is not in pettingzoo {version}: {INSTALL}")
    return f"pettingzoo.sisl.{max(found, key=lambda module: int(module.rpartition('_v')[2]))}"


def _check_arguments(settings: SislSettings, key: str) -> None:
    raw = importlib.import_module(key).raw_env
    accepted = inspect.signature(sys.modules[raw.__module__]._env.__init__).parameters.keys() - set(OURS)
    unknown = sorted(settings.kwargs.keys() - accepted)
    if unknown:
        hint = " (it is env_args.time_limit)" if "max_cycles" in unknown else ""
        raise UserError(
            f"env_args.kwargs.{unknown[0]} is no argument of {settings.env_name}{hint}: "
            f"it has {', '.join(sorted(accepted))}."
        )
    for name, count in settings.kwargs.items():
        least = 0 if name in ("n_obstacles", "n_sensors") else 1
        if name.startswith("n_") and (not isinstance(count, int) or count < least):
            raise UserError(f"env_args.kwargs.{name}={count} must be a whole number of at least {least}.")


class SislEnv(ParallelEnv):
    """Multiwalker, Waterworld and Pursuit (SISL), with their time limits and penalties put right.

    What the plain PettingZoo adapter cannot know:

    * Multiwalker reports its time limit as the task's end. So the environment is given a step more than the episode
      gets, and the limit is counted here: reaching it is `truncated`, a fall, a drop or the terrain's end `terminated`.
    * With `terminate_on_fall=False` Multiwalker charges a fall again at every later step (-55 for the survivor). The
      episode ends when the first agent leaves, as in the paper's released code.
    * Waterworld's last pursuer pays its thrust twice, as published; `fix_double_thrust` gives one payment back.
    * Every episode is played in an environment of its own, so that nothing is left of the one before.

    The last info holds `hit_limit` (0 or 1), in Multiwalker `falls` (walkers on the ground), and where the actions are
    vectors `thrust_norm_<i>` (mean length of agent i's actions) and `idle_frac` (share of actions shorter than 0.1).

    Raises:
        UserError: a package is missing or of the wrong version (the sentence says which to install), an unknown
            argument, or a combination that cannot be.
    """

    Settings = SislSettings

    def __init__(self, settings: SislSettings) -> None:
        self._module = find_module(settings.env_name)
        _check_arguments(settings, self._module)
        self._settings = settings
        super().__init__(settings, f"env_args.env_name={settings.env_name}", end_on="any")
        if settings.own_state and self._state_space is None:
            raise UserError(f"{settings.env_name} has no state of its own: set env_args.own_state=False.")
        self._lengths: list[np.ndarray] = []

    def _build(self, draw: bool = False) -> Any:
        kwargs = self._settings.kwargs | {"max_cycles": self._settings.time_limit + 1, "render_mode": self.render_mode}
        try:
            return importlib.import_module(self._module).parallel_env(**kwargs)
        except TypeError as error:
            raise UserError(f"{self._where} could not be built: {error}.") from error

    @property
    def _game(self) -> Any:
        """The environment below PettingZoo's wrappers, as rebuilt for this episode."""
        return self._env.unwrapped.env

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` determines -> observation, empty info."""
        self._lengths = []
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Step under `action` [N] or [N, d] -> observation, team reward, terminated, truncated, info."""
        chosen = self._team.decode(action)
        observation, reward, terminated, truncated, _ = self._play(chosen)
        if self._settings.env_name != "pursuit":
            # Both suites' action boxes are [-1, 1]^d, so that the vectors are those of the team's action space.
            self._lengths.append(np.linalg.norm(chosen, axis=-1))
        if self._settings.fix_double_thrust:
            reward += self._paid_twice()
        info = self._judged(truncated) if terminated or truncated else {}
        return observation, self._settings.reward_scale * reward, terminated, truncated, info

    def _paid_twice(self) -> float:
        """The last pursuer's second thrust penalty of this step, in the team's reward."""
        limit = self._game.pursuer_max_accel
        penalty = -self._game.thrust_penalty * min(limit * float(self._lengths[-1][-1]), limit)
        return penalty if self._settings.reward_aggregation == "sum" else penalty / self._team.n_agents

    def _judged(self, hit_limit: bool) -> dict[str, float]:
        info: dict[str, float] = {"hit_limit": float(hit_limit)}
        if self._settings.env_name == "multiwalker":
            info["falls"] = float(np.sum(self._game.fallen_walkers))
        if self._lengths:
            lengths = np.stack(self._lengths)  # [T, N]
            info |= {f"thrust_norm_{i}": float(norm) for i, norm in enumerate(lengths.mean(0))}
            info["idle_frac"] = float((lengths < IDLE).mean())
        return info
