"""StarCraft II: SMAC and SMAC-Comm, SMACv2 and SMAC-Hard, over their own Python packages."""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np

from shoal.declare import Checked, Range, Role
from shoal.envs.pymarl import PyMARLEnv, PyMARLSettings
from shoal.envs.sc2_folder import game_folder
from shoal.envs.team import EPISODE_FAILED
from shoal.utils.errors import EnvironmentCrashedError, UserError

INSTALL = "./install_sc2.sh"


@dataclass(frozen=True)
class BattleSettings(Checked):
    """What SMAC, SMACv2 and SMAC-Hard share: PyMARL's names and PyMARL's defaults."""

    map_name: Annotated[str, "scenario", Role.TASK] = "3m"
    difficulty: Annotated[str | int, "strength of the game's own AI: 1 (very easy) to 9, or A"] = "7"
    game_version: Annotated[str | None, "version of StarCraft II; null: the newest that is installed"] = None
    step_mul: Annotated[int, "game steps per environment step", Range(1)] = 8
    move_amount: Annotated[float, "how far a unit is sent by one move, in map units", Range(above=0)] = 2
    continuing_episode: Annotated[bool, "the time limit is no true end: learners bootstrap through it"] = False
    obs_all_health: Annotated[bool, "observe the health of all units in sight"] = True
    obs_own_health: Annotated[bool, "observe one's own health (always with obs_all_health)"] = True
    obs_last_action: Annotated[bool, "observe the last actions of the allies in sight"] = False
    obs_pathing_grid: Annotated[bool, "observe which points around can be walked on"] = False
    obs_terrain_height: Annotated[bool, "observe the height of the points around"] = False
    obs_instead_of_state: Annotated[bool, "all observations in a row as the state"] = False
    obs_timestep_number: Annotated[bool, "observe the time step"] = False
    state_last_action: Annotated[bool, "all agents' last actions in the state"] = True
    state_timestep_number: Annotated[bool, "the time step in the state"] = False
    reward_sparse: Annotated[bool, "1 for a victory, -1 for a defeat and nothing else"] = False
    reward_only_positive: Annotated[bool, "no penalty for the team's own losses"] = True
    reward_death_value: Annotated[float, "reward for an enemy's death, penalty for an ally's"] = 10
    reward_win: Annotated[float, "reward for winning"] = 200
    reward_defeat: Annotated[float, "reward for losing"] = 0
    reward_negative_scale: Annotated[float, "factor on the penalties"] = 0.5
    reward_scale: Annotated[bool, "divide rewards so that the largest return is reward_scale_rate"] = True
    reward_scale_rate: Annotated[float, "the largest return, with reward_scale", Range(above=0)] = 20
    replay_dir: Annotated[str, "folder for save_replay; empty: the game's own Replays folder", Role.RECORD] = ""
    replay_prefix: Annotated[str, "how replay files' names begin; empty: the map's name", Role.RECORD] = ""
    heuristic_ai: Annotated[bool, "a script plays for the team; what the agents choose is ignored"] = False
    heuristic_rest: Annotated[bool, "restrict that script to the actions that agents have"] = False
    debug: Annotated[bool, "the package logs observations, actions and rewards", Role.RECORD] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [*"123456789", "A"]
        if str(self.difficulty) not in known:
            raise UserError(f"env_args.difficulty={self.difficulty} does not exist: choose from {', '.join(known)}.")


@dataclass(frozen=True)
class SC2Settings(BattleSettings):
    """Settings of SMAC."""

    sight_range: Annotated[
        float | None, "sight radius of every ally, in map units; null: SMAC's own, 9", Range(above=0)
    ] = None
    shoot_range: Annotated[
        float | None, "shooting range of every ally, in map units; null: SMAC's own, 6", Range(above=0)
    ] = None


def _crashed() -> None:
    raise EnvironmentCrashedError("StarCraft II crashed, or did not answer")


class _StarCraftEnv(PyMARLEnv):
    """One battle over one of the three packages, which share their methods.

    The packages answer a crash in mid-episode with reward 0, an end and an empty info, as if the battle had been lost,
    after starting the game anew with half of their own state left over (SMAC launches it a second time when the first
    episode crashed, and adds the enemies' health to its largest reward once more). Here a crash ends the episode
    with ``EPISODE_FAILED`` in its info, and the next episode is played in a new game by a new object.

    The game takes a seed at its launch only, so which battles follow in one process depends on what was played before:
    two runs with the same seed are alike, not identical.
    """

    own_process = True
    suite = ""
    """What Shoal calls it, for messages."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        check_game(self.suite, self._map_file())
        super().__init__(PyMARLSettings(key=settings.map_name), env=self._make(None))
        self._last: dict[str, np.ndarray] = {}
        self._used = False  # nothing was played in this object yet: its game can still be given a seed
        self.observation_space = self._team.observation_space(self._state_dim, alive=True)
        A = self._team.n_actions
        first = int(self._game.n_actions_no_attack)
        # 0 is what the dead do; SMACv2's turns of a cone of sight come before the attacks.
        self.action_classes = {"stop": [1], "move": [2, 3, 4, 5], "attack": list(range(first, A))}
        if first > 6:
            self.action_classes["look"] = list(range(6, first))

    @property
    def _game(self) -> Any:
        """The package's StarCraft2Env (SMACv2 wraps it)."""
        return self._env.env if hasattr(self._env, "env_key_to_distribution_map") else self._env

    def _map_file(self) -> str:
        """The map's file below the game's folder Maps, any folder of it.

        Raises:
            UserError: there is no such scenario.
        """
        raise NotImplementedError

    def _make(self, seed: int | None) -> Any:
        """A new environment of the package, whose game is launched with ``seed``."""
        raise NotImplementedError

    def _arguments(self) -> dict[str, Any]:
        """What the package's constructor takes."""
        arguments = asdict(self._settings)
        return arguments | {"difficulty": str(arguments["difficulty"])}

    def _observation(self, last: bool = False) -> dict[str, np.ndarray]:
        observation = super()._observation(last)
        # The dead, and only they, may do nothing at all.
        self._last = observation | {"alive": 1 - observation["avail_actions"][:, 0]}
        return self._last

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode, launching a game where none runs -> observation, empty info.

        Raises:
            EnvironmentCrashedError: the game crashed; the next call launches a new one.
        """
        self._replace_game(seed)
        if not self._used:
            self._game._seed = seed
        self._game.full_restart = _crashed
        self._used = True
        try:
            return super().reset(seed=seed, options=options)
        except EnvironmentCrashedError:
            self._discard()
            raise

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One step -> as in :class:`PyMARLEnv`; the last info also says whether the time ran out (``timeouts``)."""
        timeouts, before = self._game.timeouts, self._last
        try:
            observation, reward, terminated, truncated, info = super().step(action)
        except EnvironmentCrashedError:
            self._discard()
            return before, 0.0, False, True, {EPISODE_FAILED: 1}
        if terminated or truncated:
            info["timeouts"] = self._game.timeouts - timeouts
        return observation, reward, terminated, truncated, info

    def save_replay(self) -> str:
        """Have the game save what was played since its launch. Returns the file's path."""
        game = self._game
        return str(
            game._run_config.save_replay(
                game._controller.save_replay(),
                replay_dir=self._settings.replay_dir,
                prefix=self._settings.replay_prefix or self._settings.map_name,
            )
        )

    def render(self) -> np.ndarray:
        """The battle from above, allies blue and enemies red, pale where health is lost: uint8 ``[480, 480, 3]``.

        Drawn here: pysc2's own pictures need a Python older than 3.11.
        """
        from PIL import Image, ImageDraw

        game, size = self._game, 480
        scale = size / max(game.map_x, game.map_y)
        image = Image.new("RGB", (size, size), "white")
        draw = ImageDraw.Draw(image)
        for team, hue in zip(self._units(), (220, 0), strict=True):
            for unit in team:
                if unit.health <= 0:
                    continue
                x, y = unit.pos.x * scale, size - unit.pos.y * scale
                r = max(3.0, unit.radius * scale)
                paleness = 50 + 45 * (1 - unit.health / unit.health_max)
                draw.ellipse((x - r, y - r, x + r, y + r), fill=f"hsl({hue}, 80%, {paleness:.0f}%)", outline="black")
        return np.asarray(image)

    def _units(self) -> tuple[Iterable[Any], Iterable[Any]]:
        """The allied units and the enemy's."""
        return self._game.agents.values(), self._game.enemies.values()

    def _replace_game(self, seed: int | None) -> None:
        """Make a new object where the last one's game crashed."""
        if self._env is None:
            with self._random.entered():
                self._env, self._used = self._make(seed), False

    def _discard(self) -> None:
        self._env.close()
        self._env = None

    def close(self) -> None:
        """Close the game."""
        if self._env is not None:
            super().close()


COMM_MAPS: dict[str, dict[str, Any]] = {
    "1o_10b_vs_1r": {"n_agents": 11, "n_enemies": 1, "limit": 50, "races": "ZZ", "bits": 2, "type": "overload_bane"},
    "1o_2r_vs_4r": {"n_agents": 3, "n_enemies": 4, "limit": 50, "races": "ZZ", "bits": 2, "type": "overload_roach"},
    "5z_vs_1ul": {"n_agents": 5, "n_enemies": 1, "limit": 150, "races": "PZ", "bits": 0, "type": "zealots"},
    "bane_vs_hM": {"n_agents": 3, "n_enemies": 2, "limit": 30, "races": "ZT", "bits": 2, "type": "bZ_hM"},
}
"""SMAC-Comm (table E.3 of the S2Q paper), as NDQ registered the maps; only 5z_vs_1ul's type is another one:
NDQ calls its zealots stalkers, which gives their shields the wrong scale."""

HYDRALISK, MEDIVAC = 107, 54  # the game's numbers of unit types
OVERSEER = 1971  # in the maps that have one, whose allied units have types of their own


def _register_comm_maps() -> None:
    """Make SMAC and pysc2 know the SMAC-Comm maps (once a process)."""
    smac_maps = _module("smac.env.starcraft2.maps.smac_maps")
    registry = smac_maps.get_smac_map_registry()
    for name, m in COMM_MAPS.items():
        if name in registry:
            continue
        registry[name] = {
            "n_agents": m["n_agents"],
            "n_enemies": m["n_enemies"],
            "limit": m["limit"],
            "a_race": m["races"][0],
            "b_race": m["races"][1],
            "unit_type_bits": m["bits"],
            "map_type": m["type"],
        }
        # pysc2 finds maps among the subclasses of its own class.
        setattr(smac_maps, name, type(name, (smac_maps.SMACMap,), {"filename": name}))


def _smac_game(settings: SC2Settings, arguments: dict[str, Any]) -> Any:
    """A StarCraft2Env that knows SMAC-Comm's units and the ranges that the settings ask for."""
    base = _module("smac.env").StarCraft2Env

    class Game(base):  # type: ignore[valid-type,misc]  # smac has no types
        def unit_sight_range(self, agent_id: int) -> float:
            own: float = super().unit_sight_range(agent_id)
            return own if settings.sight_range is None else settings.sight_range

        def unit_shoot_range(self, agent_id: int) -> float:
            own: float = super().unit_shoot_range(agent_id)
            return own if settings.shoot_range is None else settings.shoot_range

        def get_unit_type_id(self, unit: Any, ally: bool) -> int:
            match self.map_type, ally:
                case "overload_roach", True:
                    return int(unit.unit_type == OVERSEER)
                case "overload_bane", True:
                    return int(unit.unit_type != OVERSEER)
                case "overload_roach" | "overload_bane", False:
                    return 0
                case "bZ_hM", False:
                    return int(unit.unit_type != HYDRALISK)
            own: int = super().get_unit_type_id(unit, ally)
            return own

        def _init_ally_unit_types(self, min_unit_type: int) -> None:
            super()._init_ally_unit_types(min_unit_type)
            if self.map_type == "bZ_hM":
                self.baneling_id = min_unit_type

        def only_medivac_left(self, ally: bool) -> bool:
            if self.map_type == "bZ_hM":
                # Banelings die as they attack: to kill the hydralisk with the last of them is to win.
                alive = [unit for unit in self.enemies.values() if unit.health > 0]
                return not ally and all(unit.unit_type == MEDIVAC for unit in alive)
            own: bool = super().only_medivac_left(ally)
            return own

        def update_units(self) -> int | None:
            code: int | None = super().update_units()
            return 1 if self.map_type == "bZ_hM" and self.only_medivac_left(ally=False) else code

    return Game(**arguments)


class SC2Env(_StarCraftEnv):
    """StarCraft II: SMAC's maps and SMAC-Comm's (1o_2r_vs_4r, 1o_10b_vs_1r, 5z_vs_1ul, bane_vs_hM)."""

    Settings = SC2Settings
    suite = "sc2"

    def _map_file(self) -> str:
        _register_comm_maps()
        registry = _module("smac.env.starcraft2.maps.smac_maps").get_smac_map_registry()
        return f"{known_map(self._settings.map_name, list(registry))}.SC2Map"

    def _make(self, seed: int | None) -> Any:
        _register_comm_maps()
        arguments = {k: v for k, v in self._arguments().items() if k not in ("sight_range", "shoot_range")}
        return _smac_game(self._settings, arguments | {"seed": seed})


RACES: dict[str, dict[str, Any]] = {
    "terran": {"unit_types": ["marine", "marauder", "medivac"], "exception_unit_types": ["medivac"]},
    "protoss": {"unit_types": ["stalker", "zealot", "colossus"]},
    "zerg": {"unit_types": ["zergling", "hydralisk", "baneling"], "exception_unit_types": ["baneling"]},
}
"""SMACv2's units; a team of exceptional ones alone is drawn again."""
SIZES = ("5_vs_5", "10_vs_10", "10_vs_11", "20_vs_20", "20_vs_23")


@dataclass(frozen=True)
class SC2v2Settings(BattleSettings):
    """Settings of SMACv2: its names, and the values of its example configurations."""

    map_name: Annotated[
        str, "RACE_N_vs_M: terran, protoss or zerg, and 5_vs_5, 10_vs_10, 10_vs_11, 20_vs_20, ...", Role.TASK
    ] = "terran_5_vs_5"
    obs_own_pos: Annotated[bool, "observe one's own position"] = True
    use_unit_ranges: Annotated[bool, "each type's own ranges of sight and attack"] = True
    min_attack_range: Annotated[float, "the least range of attack, with use_unit_ranges", Range(0)] = 2
    conic_fov: Annotated[bool, "see a cone only, which actions turn"] = False
    num_fov_actions: Annotated[int, "directions that the cone can be turned to", Range(1)] = 12
    fully_observable: Annotated[bool, "see all enemies, wherever they are"] = False
    prob_obs_enemy: Annotated[float, "probability of seeing an enemy that another ally saw first", Range(0, 1)] = 1.0
    action_mask: Annotated[bool, "mask attacks on enemies that the agent does not see"] = True
    kill_unit_step_mul: Annotated[int, "game steps given to kill units, with stochastic health", Range(1)] = 2
    capability_config: Annotated[
        dict[str, Any], "SMACv2's distributions of teams and positions; empty: those that map_name stands for"
    ] = field(default_factory=dict)


def capability_config(map_name: str) -> dict[str, Any]:
    """The distributions of teams and starting positions of ``RACE_N_vs_M``, as in SMACv2's example configurations."""
    race, _, size = map_name.partition("_")
    n_units, _, n_enemies = size.partition("_vs_")
    return {
        "n_units": int(n_units),
        "n_enemies": int(n_enemies),
        "team_gen": {"dist_type": "weighted_teams", "weights": [0.45, 0.45, 0.1], "observe": True, **RACES[race]},
        "start_positions": {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": 32, "map_y": 32},
    }


class SC2v2Env(_StarCraftEnv):
    """StarCraft II: SMACv2, with teams and positions drawn for every episode (terran_5_vs_5, zerg_10_vs_11, ...)."""

    Settings = SC2v2Settings
    suite = "sc2v2"

    def _map_file(self) -> str:
        known_map(self._settings.map_name, [f"{race}_{size}" for race in RACES for size in SIZES])
        return "32x32_flat.SC2Map"

    def _make(self, seed: int | None) -> Any:
        wrapper = _module("smacv2.env.starcraft2.wrapper").StarCraftCapabilityEnvWrapper
        name = self._settings.map_name
        config = copy.deepcopy(self._settings.capability_config) or capability_config(name)
        arguments = {"map_name": f"10gen_{name.partition('_')[0]}", "capability_config": config, "seed": seed}
        return wrapper(**self._arguments() | arguments)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode whose teams and positions follow from ``seed``."""
        self._replace_game(seed)
        if seed is not None:
            _reseed(self._env.env_key_to_distribution_map.values(), np.random.default_rng(seed))
        return super().reset(seed=seed, options=options)


def _reseed(distributions: Any, rng: np.random.Generator) -> None:
    """Give SMACv2's distributions, and those inside them, generators of their own from ``rng``."""
    for distribution in distributions:
        parts = vars(distribution)
        if "rng" in parts:
            distribution.rng = np.random.default_rng(rng.integers(2**63))
        _reseed([part for part in parts.values() if hasattr(part, "generate")], rng)


@dataclass(frozen=True)
class SC2HardSettings(BattleSettings):
    """Settings of SMAC-Hard."""

    map_name: Annotated[str, "SMAC's name of the scenario, with or without _Hard at its end", Role.TASK] = "2s3z_Hard"
    mode: Annotated[Literal["single"], "the opponent is a script (self-play is not offered)"] = "single"
    strategy_prob: Annotated[
        list[float] | None, "probabilities of the map's opponent scripts; null: all are equally likely", Range(0, 1)
    ] = None


class SC2HardEnv(_StarCraftEnv):
    """StarCraft II: SMAC-Hard, whose opponent draws one of several scripts for every episode."""

    Settings = SC2HardSettings
    suite = "sc2hard"

    def _map_file(self) -> str:
        registry = _module("smac_hard.env.starcraft2.maps.smac_maps").get_smac_map_registry()
        return f"{known_map(self._settings.map_name.removesuffix('_Hard'), list(registry))}.SC2Map"

    def _make(self, seed: int | None) -> Any:
        name = self._settings.map_name.removesuffix("_Hard")
        game = _module("smac_hard.env").StarCraft2Env(**self._arguments() | {"map_name": name, "seed": seed})
        game._sc2_procs = []  # so that one whose games were never launched can be closed
        return game

    def _units(self) -> tuple[Iterable[Any], Iterable[Any]]:
        ours = self._game.agents_dict_list[0]
        return ours["agents"].values(), ours["enemies"].values()


def _module(name: str) -> Any:
    """A module of one of the packages.

    Raises:
        UserError: the package is not installed, or cannot be imported.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = f"{error.name}, which {package} needs" if error.name and not name.startswith(error.name) else package
        raise UserError(f"StarCraft II needs the Python package {missing}: run {INSTALL}.") from error
    except (ImportError, TypeError) as error:  # protobuf of 3.21 and later refuses pysc2's messages with a TypeError
        raise UserError(
            f"The Python package {package} cannot be imported ({str(error).splitlines()[0]}): run {INSTALL}, which "
            "also brings the protobuf that it needs."
        ) from error


def known_map(name: str, known: Sequence[str]) -> str:
    """``name``, if it is known.

    Raises:
        UserError: it is not; the sentence names the nearest ones.
    """
    if name in known:
        return name
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
    raise UserError(f"Unknown map_name {name!r}: did you mean {', '.join(repr(k) for k in nearest)}?")


def check_game(suite: str, map_file: str) -> None:
    """See that the game and the map are there before anything is started.

    Raises:
        UserError: something is missing; the sentence names the command that mends it.
    """
    folder = game_folder()
    if not any((folder / "Versions").glob("Base*/SC2*")):
        raise UserError(
            f"env={suite} needs StarCraft II, which is not in {folder}: run {INSTALL}, or set SC2PATH to the folder "
            "that holds it."
        )
    if not any((folder / "Maps").glob(f"**/{map_file}")):
        raise UserError(f"StarCraft II in {folder} has no map {map_file}: run {INSTALL} --maps-only.")
