"""SMAX, the StarCraft-like battles of JaxMARL, whose copies are stepped together (`jax_vector`)."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from gymnasium import spaces

from shoal.declare import Checked, OneOf, Range, Role
from shoal.envs.jax_game import JaxGame
from shoal.envs.jax_vector import JaxEnv
from shoal.utils.extras import needed_for

MAPS = (
    "3m",
    "2s3z",
    "25m",
    "3s5z",
    "8m",
    "5m_vs_6m",
    "10m_vs_11m",
    "27m_vs_30m",
    "3s5z_vs_3s6z",
    "3s_vs_5z",
    "6h_vs_8z",
    "smacv2_5_units",
    "smacv2_10_units",
    "smacv2_20_units",
)
"""The scenarios of JaxMARL 0.2.0, repeated here so that a misspelt one is refused before JAX loads."""

N_UNIT_TYPES = 6
COOLDOWN = 3  # index of the weapon's cooldown in a unit's row of the world state
N_MOVES = 5  # north, east, south, west, stop: the actions before those that shoot
JAXMARLS = (
    "attack_mode",
    "enemy_shoots",
    "see_enemy_actions",
    "observation_type",
    "walls_cause_death",
    "won_battle_bonus",
    "use_self_play_reward",
    "world_steps_per_env_step",
    "time_per_step",
    "map_width",
    "map_height",
)
"""Settings that go to JaxMARL as they are."""


@dataclass(frozen=True)
class SmaxSettings(Checked):
    """Settings of SMAX: JaxMARL's names and defaults, but for `time_limit`, its max_steps."""

    map_name: Annotated[str, "scenario, named as in SMAC (3m, 2s3z, ..., smacv2_5_units)", OneOf(MAPS), Role.TASK] = (
        "3m"
    )
    time_limit: Annotated[int, "maximum steps per episode", Range(1)] = 100
    attack_mode: Annotated[Literal["closest", "random"], "which unit in its range an enemy shoots at"] = "closest"
    enemy_shoots: Annotated[bool, "enemies shoot; off: they only walk"] = True
    see_enemy_actions: Annotated[bool, "observe each visible enemy's last move and target"] = True
    observation_type: Annotated[
        Literal["unit_list", "conic"],
        "observation: a slot for each other unit (unit_list), or the first two units in each of 32 cones (conic)",
    ] = "unit_list"
    sight_range: Annotated[
        float | None,
        "sight range of all units of both teams, in map units; null: each unit type's (8 to 10)",
        Range(above=0),
    ] = None
    walls_cause_death: Annotated[bool, "units that touch the map's edge die"] = True
    won_battle_bonus: Annotated[float, "reward for winning, in addition to at most 1 for damage"] = 1.0
    use_self_play_reward: Annotated[
        bool, "reward the outcome only (won_battle_bonus, positive or negative), not damage"
    ] = False
    reward_scale: Annotated[
        float, "factor on every reward; with 10 the largest return is 20, as in SMAC", Range(above=0)
    ] = 1.0
    scale_state: Annotated[
        bool,
        "bound the state: positions in map sizes, unit types in [0, 1], weapon cooldowns cut at 0 (JaxMARL's "
        "fall without bound while a unit does not shoot); off: JaxMARL's state",
    ] = False
    world_steps_per_env_step: Annotated[int, "simulation ticks per environment step", Range(1)] = 8
    time_per_step: Annotated[float, "length of one simulation tick, in seconds", Range(above=0)] = 1.0 / 16
    map_width: Annotated[int, "width of the map, in map units", Range(1)] = 32
    map_height: Annotated[int, "height of the map, in map units", Range(1)] = 32


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Keep JaxMARL's greeting off the console, and the run's own streams in place.

    JAX tells of every accelerator that the machine lacks. JaxMARL's import not only prints: it points
    sys.stdout and sys.stderr at the original ones, past whoever captures them.
    """
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    streams = sys.stdout, sys.stderr, sys.__stdout__
    sys.stdout = sys.__stdout__ = io.StringIO()  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        sys.stdout, sys.stderr, sys.__stdout__ = streams  # type: ignore[misc]


def _battle(settings: SmaxSettings) -> Any:
    """JaxMARL's environment.

    Raises:
        UserError: JaxMARL or JAX is missing.
    """
    with needed_for("env=smax", "smax"), _quiet_import():
        import jax.numpy as jnp
        from jaxmarl import make
        from jaxmarl.environments.smax import map_name_to_scenario

    kwargs: dict[str, Any] = {name: getattr(settings, name) for name in JAXMARLS} | {"max_steps": settings.time_limit}
    if settings.sight_range is not None:
        kwargs["unit_type_sight_ranges"] = jnp.full((N_UNIT_TYPES,), settings.sight_range, dtype=jnp.float32)
    return make("HeuristicEnemySMAX", scenario=map_name_to_scenario(settings.map_name), **kwargs)


class SmaxGame(JaxGame):
    """One battle: JaxMARL's step with the enemy's script in it, and what a team sees of it.

    obs [N, obs_dim], state [state_dim], avail_actions [N, A] (a dead unit can only stop, and observes zeros),
    alive [N]. Actions: [N] integers; 0-3 move north, east, south, west, 4 stops, 5 + j shoots at enemy j:
    `action_classes` are move, stop and attack. The task ends when a side is dead (both dead is no win). An episode is
    judged by `battle_won` (0 or 1), `dead_allies` and `dead_enemies` (counts).

    Raises:
        UserError: JaxMARL or JAX is missing.
    """

    def __init__(self, settings: SmaxSettings) -> None:
        self._settings = settings
        self._game = _battle(settings)
        self._agents: list[str] = list(self._game.agents)
        self._n_enemies = int(self._game.num_enemies)
        self.full_health = np.asarray(self._game.unit_type_health)
        N, A = len(self._agents), N_MOVES + self._n_enemies
        self.time_limit = settings.time_limit
        self.action_space = spaces.MultiDiscrete([A] * N)
        stop = N_MOVES - 1
        self.action_classes = {"move": list(range(stop)), "stop": [stop], "attack": list(range(N_MOVES, A))}
        self.entry_names = _entry_names(N, self._n_enemies, settings.observation_type)
        self._state_low, self._state_scale = _bounds_of_state(N + self._n_enemies, settings)

    def reset(self, key: Any) -> Any:
        """A new battle."""
        return self._game.reset(key)[1]

    def step(self, key: Any, state: Any, actions: Any) -> tuple[Any, Any, Any]:
        """The battle after the orders [N], the team's reward [], whether a side is dead []."""
        import jax.numpy as jnp

        orders = {agent: actions[i] for i, agent in enumerate(self._agents)}
        _, state, rewards, _, _ = self._game.step_env(key, state, orders)
        ours, theirs = self._alive(state)
        reward = self._settings.reward_scale * rewards[self._agents[0]]
        return state, reward, ~(jnp.any(ours) & jnp.any(theirs))

    def observe(self, state: Any) -> dict[str, Any]:
        """As the class says."""
        import jax.numpy as jnp

        obs, avail = self._game.get_obs(state), self._game.get_avail_actions(state)
        return {
            "obs": jnp.stack([obs[agent] for agent in self._agents]),
            "state": self._world_state(state),
            "avail_actions": jnp.stack([avail[agent] for agent in self._agents]),
            "alive": self._alive(state)[0],
        }

    def judged(self, state: Any) -> dict[str, Any]:
        """As the class says."""
        import jax.numpy as jnp

        ours, theirs = self._alive(state)
        won = jnp.any(ours) & ~jnp.any(theirs)
        return {"battle_won": won, "dead_allies": jnp.sum(~ours), "dead_enemies": jnp.sum(~theirs)}

    def _alive(self, state: Any) -> tuple[Any, Any]:
        """Our units and the enemy's: bool [N], [E]."""
        alive = state.state.unit_alive
        return alive[: len(self._agents)], alive[len(self._agents) :]

    def _world_state(self, state: Any) -> Any:
        """[S]. Without `scale_state` a cooldown falls by a second every second, without end, until the unit shoots."""
        import jax.numpy as jnp

        own = self._game.get_world_state(state)
        return jnp.maximum(own, self._state_low) * self._state_scale if self._settings.scale_state else own


def _bounds_of_state(units: int, settings: SmaxSettings) -> tuple[np.ndarray, np.ndarray]:
    """What `scale_state` cuts the entries of the world state at, and multiplies them by: [S], [S].

    The world state is a row for every unit (health, x, y, cooldown, type bits), then all teams, then all types.
    """
    row_scale = np.concatenate([[1.0, 1 / settings.map_width, 1 / settings.map_height], np.ones(1 + N_UNIT_TYPES)])
    row_low = np.full(len(row_scale), -np.inf)
    row_low[COOLDOWN] = 0.0
    scale = np.concatenate([np.tile(row_scale, units), np.ones(units), np.full(units, 1 / (N_UNIT_TYPES - 1))])
    low = np.concatenate([np.tile(row_low, units), np.full(2 * units, -np.inf)])
    return low, scale


def _entry_names(n_agents: int, n_enemies: int, observation_type: str) -> dict[str, list[str]]:
    """What the entries of `obs` and `state` are, in JaxMARL's words."""
    kinds = [f"unit_type_bit_{i}" for i in range(N_UNIT_TYPES)]
    own = ["health", "position_x", "position_y", "weapon_cooldown", *kinds]
    other = [*own[:3], "last_movement_x", "last_movement_y", "last_targeted", *own[3:]]
    allies, enemies = [f"ally_{i}" for i in range(n_agents)], [f"enemy_{i}" for i in range(n_enemies)]
    if observation_type == "conic":
        seen = [f"cone_{i} unit_{j}" for i in range(32) for j in range(2)]
    else:
        seen = [f"other_{unit}" for unit in allies[:-1]] + enemies
    units = allies + enemies
    return {
        "obs": [f"{unit} {feature}" for unit in seen for feature in other] + [f"own {feature}" for feature in own],
        "state": [f"{unit} {feature}" for unit in units for feature in own]
        + [f"{unit} {feature}" for feature in ("team", "unit_type") for unit in units],
    }


def living_units(game: SmaxGame, states: Any) -> list[tuple[float, float, float, bool]]:
    """Living units of the first of several battles: x, y (map units), share of full health, whether it is an enemy."""
    battle = states.state
    full = game.full_health[np.asarray(battle.unit_types[0])]
    rows = zip(
        np.asarray(battle.unit_positions[0]).tolist(),
        (np.asarray(battle.unit_health[0]) / full).tolist(),
        np.asarray(battle.unit_teams[0]).tolist(),
        np.asarray(battle.unit_alive[0]).tolist(),
        strict=True,
    )
    return [(x, y, health, team > 0) for (x, y), health, team, alive in rows if alive]


class SmaxEnv(JaxEnv):
    """SMAX: StarCraft-like battles in JAX (JaxMARL), stepped in batches.

    `SmaxGame` says what the team sees, does and is judged by. Its reward is the share of the enemy's health taken in
    the step (at most 1 over an episode) plus `won_battle_bonus` on winning, times `reward_scale`.

    Raises:
        UserError: JaxMARL or JAX is missing.
    """

    Settings = SmaxSettings
    Game = SmaxGame
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012 - gymnasium's attribute
    render_mode = "rgb_array"

    def __init__(self, settings: SmaxSettings) -> None:
        super().__init__(settings)
        self._map_size = settings.map_width, settings.map_height

    def render(self) -> np.ndarray:
        """The battle seen from above, uint8 ``[height, width, 3]``: own units blue, enemies red, health as filling."""
        from PIL import Image, ImageDraw

        pixels = 12
        width, height = (side * pixels for side in self._map_size)
        image = Image.new("RGB", (width, height), "white")
        canvas = ImageDraw.Draw(image)
        for x, y, health, enemy in living_units(self._copies.game, self._copies.states):
            colour, r = ("firebrick" if enemy else "royalblue"), 0.6 * pixels
            box = [x * pixels - r, height - y * pixels - r, x * pixels + r, height - y * pixels + r]
            canvas.ellipse(box, outline=colour, width=2)
            canvas.pieslice(box, -90, -90 + 360 * health, fill=colour)
        return np.asarray(image)
