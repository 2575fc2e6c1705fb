"""StarCraft II: what SMAC, SMACv2 and SMAC-Hard have in common, over their own Python packages."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from shoal.declare import Checked, OneOf, Range, Role
from shoal.envs.pymarl import PyMARLEnv, PyMARLSettings
from shoal.envs.sc2_folder import game_folder
from shoal.envs.team import EPISODE_FAILED
from shoal.utils.errors import EnvironmentCrashedError, UserError

INSTALL = "./install_sc2.sh"


@dataclass(frozen=True)
class BattleSettings(Checked):
    """What SMAC, SMACv2 and SMAC-Hard share: PyMARL's names and defaults."""

    map_name: Annotated[str, "SMAC or SMAC-Comm map (3m, 2s3z, ..., 5z_vs_1ul)", Role.TASK] = "3m"
    difficulty: Annotated[
        str | int, "strength of the built-in AI: 1 (very easy) to 9, or A", OneOf(tuple("123456789A"))
    ] = "7"
    game_version: Annotated[str | None, "StarCraft II version; null: the newest one installed"] = None
    step_mul: Annotated[int, "game steps per environment step", Range(1)] = 8
    move_amount: Annotated[float, "distance of one move, in map units", Range(above=0)] = 2
    continuing_episode: Annotated[
        bool, "treat the time limit as a truncation, through which learners bootstrap, instead of a true end"
    ] = False
    obs_all_health: Annotated[bool, "observe the health of all units in sight"] = True
    obs_own_health: Annotated[bool, "observe one's own health (implied by obs_all_health)"] = True
    obs_last_action: Annotated[bool, "observe the last actions of the allies in sight"] = False
    obs_pathing_grid: Annotated[bool, "observe which surrounding points are walkable"] = False
    obs_terrain_height: Annotated[bool, "observe the height of surrounding points"] = False
    own_state: Annotated[bool, "use the game's own state vector; off: the state is all observations in a row"] = True
    obs_timestep_number: Annotated[bool, "observe the time step"] = False
    state_last_action: Annotated[bool, "include all agents' last actions in the state"] = True
    state_timestep_number: Annotated[bool, "include the time step in the state"] = False
    reward_sparse: Annotated[bool, "sparse reward: 1 for a win, -1 for a loss, otherwise 0"] = False
    reward_only_positive: Annotated[bool, "drop the penalties for the team's own losses"] = True
    reward_death_value: Annotated[float, "reward for an enemy's death and penalty for an ally's"] = 10
    reward_win: Annotated[float, "reward for winning the battle"] = 200
    reward_defeat: Annotated[float, "reward for losing the battle"] = 0
    reward_negative_scale: Annotated[float, "factor on penalties"] = 0.5
    reward_scale: Annotated[bool, "scale rewards so that the largest return is reward_scale_rate"] = True
    reward_scale_rate: Annotated[float, "largest return, with reward_scale", Range(above=0)] = 20
    replay_dir: Annotated[
        str, "folder of the game's replay files (save_replay); empty: the game's Replays folder", Role.RECORD
    ] = ""
    replay_prefix: Annotated[str, "prefix of replay file names; empty: the map's name", Role.RECORD] = ""
    heuristic_ai: Annotated[bool, "a script plays for the team; the agents' actions are ignored"] = False
    heuristic_rest: Annotated[bool, "limit the heuristic_ai script to the agents' actions"] = False
    debug: Annotated[bool, "log the package's observations, actions and rewards", Role.RECORD] = False


def _crashed() -> None:
    raise EnvironmentCrashedError("StarCraft II crashed, or did not answer")


class StarCraftEnv(PyMARLEnv):
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
        own_state = arguments.pop("own_state")
        return arguments | {"difficulty": str(arguments["difficulty"]), "obs_instead_of_state": not own_state}

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


def module_of(name: str) -> Any:
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
        UserError: something is missing; the sentence names the command that fixes it.
    """
    folder = game_folder()
    if not any((folder / "Versions").glob("Base*/SC2*")):
        raise UserError(
            f"env={suite} needs StarCraft II, which is not in {folder}: run {INSTALL}, or set SC2PATH to the folder "
            "that holds it."
        )
    if not any((folder / "Maps").glob(f"**/{map_file}")):
        raise UserError(f"StarCraft II in {folder} has no map {map_file}: run {INSTALL} --maps-only.")
