"""SMAX, the StarCraft-like battles of JaxMARL, as one compiled step for any number of copies.

Everything that happens to a copy in one step (the battle, the enemy's scripted moves, observations,
availability, the flags) is one jitted and vmapped function, so a step costs one call and one small transfer
per key. Each copy carries its own random key, made from its reset seed: an episode is a function of its
seed and its actions.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from shoal.declare import Checked, Range, Role
from shoal.envs.team import reset_mask
from shoal.utils.errors import UserError
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


@dataclass(frozen=True)
class SmaxSettings(Checked):
    """Settings of SMAX: JaxMARL's names and JaxMARL's defaults, plus `map_name` and `sight_range`."""

    map_name: Annotated[str, "scenario, named as in SMAC (3m, 2s3z, ..., smacv2_5_units)", Role.TASK] = "3m"
    max_steps: Annotated[int, "time limit of an episode, in environment steps", Range(1)] = 100
    attack_mode: Annotated[Literal["closest", "random"], "whom an enemy shoots at among the units in its range"] = (
        "closest"
    )
    enemy_shoots: Annotated[bool, "whether the enemy shoots at all; if not, it only walks"] = True
    see_enemy_actions: Annotated[bool, "show each visible enemy's last move and target"] = True
    observation_type: Annotated[
        Literal["unit_list", "conic"], "one slot per other unit, or the two first units in each of 32 cones"
    ] = "unit_list"
    sight_range: Annotated[
        float | None,
        "sight radius of every unit of both teams, in map units; null keeps each type's own (8-10)",
        Range(above=0),
    ] = None
    walls_cause_death: Annotated[bool, "a unit that touches the map's edge dies"] = True
    won_battle_bonus: Annotated[float, "reward for winning, on top of at most 1 for damage"] = 1.0
    use_self_play_reward: Annotated[bool, "no reward for damage: won_battle_bonus, won or lost, is all"] = False
    reward_scale: Annotated[
        float, "factor on every reward; 10 makes the largest return 20, as in SMAC", Range(above=0)
    ] = 1.0
    scale_state: Annotated[
        bool,
        "bound the world state: positions in map sizes, unit types in [0, 1], weapon cooldowns cut at 0 (JaxMARL's "
        "go on falling for as long as a unit does not shoot); false leaves JaxMARL's own state",
    ] = False
    world_steps_per_env_step: Annotated[int, "simulation ticks per environment step", Range(1)] = 8
    time_per_step: Annotated[float, "length of one simulation tick, in seconds", Range(above=0)] = 1.0 / 16
    map_width: Annotated[int, "width of the map, in map units", Range(1)] = 32
    map_height: Annotated[int, "height of the map, in map units", Range(1)] = 32

    def __post_init__(self) -> None:
        """Refuse what SMAX cannot play.

        Raises:
            UserError: naming the setting, and for an unknown map the nearest and all known ones.
        """
        super().__post_init__()
        if self.map_name not in MAPS:
            nearest = difflib.get_close_matches(self.map_name, MAPS, n=1, cutoff=0.0)[0]
            raise UserError(
                f"env_args.map_name={self.map_name!r} is not an SMAX scenario; did you mean {nearest!r}? "
                f"All of them: {', '.join(MAPS)}."
            )
        for name, choices in (
            ("attack_mode", ("closest", "random")),
            ("observation_type", ("unit_list", "conic")),
        ):
            if getattr(self, name) not in choices:
                raise UserError(f"env_args.{name}={getattr(self, name)!r} must be one of {', '.join(choices)}.")


@dataclass(frozen=True)
class _Engine:
    """The compiled battle for one (settings, num_envs), shared by every environment built from them.

    `reset(carry, keys, mask) -> (carry, out)` and `step(carry, actions) -> (carry, out)` consume (donate)
    the carry that they are given; `blank()` makes one whose copies all wait for their first reset. `out` is
    a dict of arrays with leading dimension num_envs.
    """

    n_agents: int
    n_actions: int
    obs_dim: int
    state_dim: int
    full_health: np.ndarray
    entry_names: dict[str, list[str]]
    blank: Callable[[], Any]
    reset: Callable[..., tuple[Any, dict[str, Any]]]
    step: Callable[..., tuple[Any, dict[str, Any]]]


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


@functools.cache
def _engine(settings: SmaxSettings, num_envs: int) -> _Engine:
    with needed_for("env=smax", "smax"), _quiet_import():
        import jax
        import jax.numpy as jnp
        from jaxmarl import make
        from jaxmarl.environments.smax import map_name_to_scenario

    kwargs: dict[str, Any] = {
        name: getattr(settings, name)
        for name in (
            "max_steps",
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
    }
    if settings.sight_range is not None:
        kwargs["unit_type_sight_ranges"] = jnp.full((N_UNIT_TYPES,), settings.sight_range, dtype=jnp.float32)
    game: Any = make("HeuristicEnemySMAX", scenario=map_name_to_scenario(settings.map_name), **kwargs)
    agents: list[str] = list(game.agents)
    N = len(agents)

    def strong(tree: Any) -> Any:
        # JaxMARL's initial state holds weakly typed scalars; left so, the second step would compile again.
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), tree)

    # The world state is a row for every unit (health, x, y, cooldown, type bits), then all teams, then all types.
    units = N + game.num_enemies
    row_scale = np.concatenate([[1.0, 1 / settings.map_width, 1 / settings.map_height], np.ones(1 + N_UNIT_TYPES)])
    row_low = np.full(len(row_scale), -np.inf)
    row_low[COOLDOWN] = 0.0
    state_scale = np.concatenate([np.tile(row_scale, units), np.ones(units), np.full(units, 1 / (N_UNIT_TYPES - 1))])
    state_low = np.concatenate([np.tile(row_low, units), np.full(2 * units, -np.inf)])

    def world_state(battle: Any) -> Any:
        """[S]. Without `scale_state` a cooldown falls by a second every second, without end, until the unit shoots."""
        state = game.get_world_state(battle)
        return jnp.maximum(state, state_low) * state_scale if settings.scale_state else state

    def observe(carry: dict[str, Any]) -> dict[str, Any]:
        """One copy's obs [N, D], state [S], avail_actions [N, A], alive [N], flags and counts []."""
        battle = carry["battle"]
        obs, avail = game.get_obs(battle), game.get_avail_actions(battle)
        alive = battle.state.unit_alive
        return {
            "obs": jnp.stack([obs[a] for a in agents]).astype(jnp.float32),
            "state": world_state(battle).astype(jnp.float32),
            "avail_actions": jnp.stack([avail[a] for a in agents]).astype(jnp.int8),
            "alive": alive[:N].astype(jnp.int8),
            "terminated": carry["terminated"],
            "truncated": carry["truncated"],
            "dead_allies": jnp.sum(~alive[:N]),
            "dead_enemies": jnp.sum(~alive[N:]),
        }

    def reset_one(key: Any) -> dict[str, Any]:
        episode_key, reset_key = jax.random.split(key)
        _, battle = game.reset(reset_key)
        over = jnp.array(False)
        return strong({"key": episode_key, "battle": battle, "terminated": over, "truncated": over})

    def step_one(carry: dict[str, Any], actions: Any) -> tuple[dict[str, Any], Any]:
        """One copy's step under `actions` [N] -> its carry and the team's reward []."""
        key, step_key = jax.random.split(carry["key"])
        _, battle, rewards, _, _ = game.step_env(
            step_key, carry["battle"], {a: actions[i] for i, a in enumerate(agents)}
        )
        alive = battle.state.unit_alive
        decided = ~(jnp.any(alive[:N]) & jnp.any(alive[N:]))
        out_of_time = battle.state.step >= settings.max_steps
        after = {"key": key, "battle": battle, "terminated": decided, "truncated": out_of_time & ~decided}
        frozen = carry["terminated"] | carry["truncated"]
        kept = jax.tree.map(lambda old, new: jnp.where(frozen, old, new), carry, strong(after))
        return kept, jnp.where(frozen, 0.0, settings.reward_scale * rewards[agents[0]])

    def reset(carry: Any, keys: Any, mask: Any) -> tuple[Any, dict[str, Any]]:
        fresh = jax.vmap(reset_one)(keys)
        choose = jax.vmap(lambda m, new, old: jax.tree.map(lambda x, y: jnp.where(m, x, y), new, old))
        carry = choose(mask, fresh, carry)
        return carry, jax.vmap(observe)(carry)

    def step(carry: Any, actions: Any) -> tuple[Any, dict[str, Any]]:
        ended_before = carry["terminated"] | carry["truncated"]
        carry, reward = jax.vmap(step_one)(carry, actions)
        out = jax.vmap(observe)(carry)
        ended = (out["terminated"] | out["truncated"]) & ~ended_before
        return carry, {**out, "reward": reward, "just_ended": ended}

    key_like = jax.ShapeDtypeStruct((num_envs, 2), jnp.uint32)
    carry_like = jax.eval_shape(jax.vmap(reset_one), key_like)
    shapes = jax.eval_shape(jax.vmap(observe), carry_like)
    return _Engine(
        n_agents=N,
        n_actions=shapes["avail_actions"].shape[-1],
        obs_dim=shapes["obs"].shape[-1],
        state_dim=shapes["state"].shape[-1],
        full_health=np.asarray(game.unit_type_health),
        entry_names=_entry_names(N, game.num_enemies, settings.observation_type),
        blank=lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), carry_like),
        reset=jax.jit(reset, donate_argnums=0),
        step=jax.jit(step, donate_argnums=0),
    )


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


class SmaxVectorEnv(VectorEnv):
    """`num_envs` SMAX battles stepped by one compiled call; gymnasium's vector API with autoreset disabled.

    A copy whose episode has ended stays as it is (same observation and flags, reward 0) until it is reset.
    Observations, per copy: obs [N, obs_dim], state [state_dim], avail_actions [N, A] (a dead unit can only
    stop, and observes zeros), alive [N]. Actions: [num_envs, N] integers; 0-3 move north, east, south,
    west, 4 stops, 5 + j shoots at enemy j: `action_classes` are move, stop and attack.

    Raises:
        UserError: JaxMARL or JAX is missing.
        ValueError: fewer than one copy.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 - gymnasium's attribute

    def __init__(self, settings: SmaxSettings, num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs} must be at least 1.")
        self.num_envs = num_envs
        self.episode_limit = settings.max_steps
        self._engine = _engine(settings, num_envs)
        self._carry: Any = None
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        N, A = self._engine.n_agents, self._engine.n_actions
        self.entry_names = self._engine.entry_names
        stop = N_MOVES - 1
        self.action_classes = {"move": list(range(stop)), "stop": [stop], "attack": list(range(N_MOVES, A))}
        self.single_observation_space = spaces.Dict(
            obs=spaces.Box(-np.inf, np.inf, (N, self._engine.obs_dim), np.float32),
            state=spaces.Box(-np.inf, np.inf, (self._engine.state_dim,), np.float32),
            avail_actions=spaces.MultiBinary([N, A]),
            alive=spaces.MultiBinary(N),
        )
        self.single_action_space = spaces.MultiDiscrete([A] * N)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start new episodes in all copies, or in those of `options["reset_mask"]` (bool [num_envs]).

        Args:
            seed: one per copy, or one for all (copy i gets seed + i). None: on with the copy's stream.
            options: `reset_mask` as above; other keys are ignored.

        Returns:
            Observations of all copies (an untouched copy's is its last), and an empty info.

        Raises:
            ValueError: a seed list or a mask of the wrong size, or copies left out of the first reset.
        """
        mask = reset_mask(options or {}, self.num_envs)
        if self._carry is None:
            if not mask.all():
                raise ValueError("The first reset must reset every copy: options['reset_mask'] leaves some out.")
            self._carry = self._engine.blank()
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
        self._carry, out = self._engine.reset(self._carry, keys, mask)
        return self._observation(out), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every running copy under `actions` [num_envs, N].

        Returns:
            Observations, team rewards [num_envs] (float64), terminated and truncated [num_envs] (bool), and
            infos: where an episode just ended, `battle_won` (0 or 1), `dead_allies` and `dead_enemies`
            (counts), each with its mask `_key`. terminated: a side is dead (both dead is no win);
            truncated: the time limit came first.

        Raises:
            ValueError: actions of the wrong shape.
            RuntimeError: no reset yet.
        """
        if self._carry is None:
            raise RuntimeError("reset() must come before the first step().")
        actions = np.asarray(actions, dtype=np.int32)
        if actions.shape != (self.num_envs, self._engine.n_agents):
            expected = (self.num_envs, self._engine.n_agents)
            raise ValueError(f"step() needs actions of shape {expected}, not {actions.shape}.")
        self._carry, out = self._engine.step(self._carry, actions)
        observation = self._observation(out)
        infos: dict[str, Any] = {}
        ended = np.array(out["just_ended"])
        if ended.any():
            dead_allies = np.where(ended, np.asarray(out["dead_allies"]), 0)
            dead_enemies = np.where(ended, np.asarray(out["dead_enemies"]), 0)
            n_enemies = self._engine.n_actions - N_MOVES
            won = ended & (dead_enemies == n_enemies) & (dead_allies < self._engine.n_agents)
            for key, value in (
                ("battle_won", won.astype(np.int64)),
                ("dead_allies", dead_allies.astype(np.int64)),
                ("dead_enemies", dead_enemies.astype(np.int64)),
            ):
                infos[key], infos[f"_{key}"] = value, ended.copy()
        reward = np.array(out["reward"], dtype=np.float64)
        return observation, reward, np.array(out["terminated"]), np.array(out["truncated"]), infos

    def units(self) -> list[tuple[float, float, float, bool]]:
        """Living units of copy 0: x, y (map units), share of full health, whether it is an enemy."""
        if self._carry is None:
            raise RuntimeError("reset() must come before units().")
        battle = self._carry["battle"].state
        full = np.asarray(self._engine.full_health)[np.asarray(battle.unit_types[0])]
        rows = zip(
            np.asarray(battle.unit_positions[0]).tolist(),
            (np.asarray(battle.unit_health[0]) / full).tolist(),
            np.asarray(battle.unit_teams[0]).tolist(),
            np.asarray(battle.unit_alive[0]).tolist(),
            strict=True,
        )
        return [(x, y, health, team > 0) for (x, y), health, team, alive in rows if alive]

    def _observation(self, out: dict[str, Any]) -> dict[str, np.ndarray]:
        # Copied out: JAX's own memory is read-only, and on a CPU it would be aliased.
        return {key: np.array(out[key]) for key in self.single_observation_space.spaces}  # type: ignore[attr-defined]


class SmaxEnv(gymnasium.Env):
    """SMAX: StarCraft-like battles in JAX (JaxMARL), stepped in batches.

    One copy of `SmaxVectorEnv`, which see for shapes, actions and the meaning of the flags. The team's
    reward is the share of the enemy's health taken in the step (at most 1 over an episode) plus
    `won_battle_bonus` on winning.

    Raises:
        UserError: JaxMARL or JAX is missing.
    """

    Settings = SmaxSettings
    own_randomness = True  # draws from nothing global
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012 - gymnasium's attribute
    render_mode = "rgb_array"

    def __init__(self, settings: SmaxSettings) -> None:
        self._battle = SmaxVectorEnv(settings, 1)
        self._map_size = settings.map_width, settings.map_height
        self.observation_space = self._battle.single_observation_space
        self.action_space = self._battle.single_action_space
        self.episode_limit = self._battle.episode_limit
        self.action_classes = self._battle.action_classes
        self.entry_names = self._battle.entry_names

    @classmethod
    def make_vector(cls, settings: SmaxSettings, num_envs: int) -> VectorEnv:
        """`num_envs` copies behind one compiled step."""
        return SmaxVectorEnv(settings, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` determines (`options` are ignored) -> observation, empty info."""
        super().reset(seed=seed)
        observation, _ = self._battle.reset(seed=[seed])
        return {key: value[0] for key, value in observation.items()}, {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Step under `action` [N] -> observation, reward, terminated, truncated, info (at the end only)."""
        observation, reward, terminated, truncated, infos = self._battle.step(np.asarray(action)[None])
        info = {key: value[0].item() for key, value in infos.items() if not key.startswith("_")}
        first = {key: value[0] for key, value in observation.items()}
        return first, float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray:
        """The battle seen from above, uint8 ``[height, width, 3]``: own units blue, enemies red, health as filling."""
        from PIL import Image, ImageDraw

        pixels = 12
        width, height = (side * pixels for side in self._map_size)
        image = Image.new("RGB", (width, height), "white")
        canvas = ImageDraw.Draw(image)
        for x, y, health, enemy in self._battle.units():
            colour, r = ("firebrick" if enemy else "royalblue"), 0.6 * pixels
            box = [x * pixels - r, height - y * pixels - r, x * pixels + r, height - y * pixels + r]
            canvas.ellipse(box, outline=colour, width=2)
            canvas.pieslice(box, -90, -90 + 360 * health, fill=colour)
        return np.asarray(image)
