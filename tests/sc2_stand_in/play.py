"""What the tests of the stand-in have SMAC and SMACv2 play, in processes of their own.

The two cannot share a process: both register their maps with pysc2 by the same names, which it refuses.
"""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
from absl import flags
from pysc2 import run_configs
from pysc2.lib import remote_controller
from s2clientprotocol import common_pb2, sc2api_pb2

TEAMS: dict[str, dict[str, Any]] = {
    "terran": {"marine": 0.45, "marauder": 0.45, "medivac": 0.1},
    "protoss": {"stalker": 0.45, "zealot": 0.45, "colossus": 0.1},
    "zerg": {"zergling": 0.45, "baneling": 0.1, "hydralisk": 0.45},
}


def prepare(sc2path: str) -> None:
    """Readies this process for playing with the stand-in installed in a folder."""
    os.environ["SC2PATH"] = sc2path
    flags.FLAGS(["play"])
    # pysc2 sleeps for a second between two attempts to connect, and makes as many of them as the timeout has seconds.
    remote_controller.time = SimpleNamespace(sleep=lambda _: _until_all_listen())


def _until_all_listen(timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        time.sleep(0.05)
        with contextlib.suppress(psutil.Error):
            children = psutil.Process().children()
            if all(any(c.status == "LISTEN" for c in child.net_connections("tcp")) for child in children):
                return


@contextlib.contextmanager
def switches(**values: Any) -> Iterator[None]:
    """Environment variables of the stand-ins that are launched inside, by their names' last parts."""
    names = {f"SC2_STAND_IN_{name}": str(value) for name, value in values.items()}
    os.environ.update(names)
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


class OneServer:
    """A run config of pysc2 that answers every launch with the same running server."""

    def __init__(self) -> None:
        self._config = run_configs.get()
        self._process = self._config.start(want_rgb=False)
        self.controller = self._process.controller

    def start(self, **_: Any) -> "OneServer":
        """What launches."""
        return self

    def close(self) -> None:
        """What ends a game, but not the server."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)

    def end(self) -> None:
        """Ends the server."""
        self._process.close()


@contextlib.contextmanager
def one_server() -> Iterator[OneServer]:
    """Inside, all environments play in one server, one after another: a launch costs more than most games."""
    server, get = OneServer(), run_configs.get
    run_configs.get = lambda version=None: server
    try:
        yield server
    finally:
        run_configs.get = get
        server.end()


@contextlib.contextmanager
def smac(map_name: str, **settings: Any) -> Iterator[Any]:
    """SMAC on a map."""
    from smac.env import StarCraft2Env

    env = StarCraft2Env(map_name=map_name, **settings)
    try:
        yield env
    finally:
        env.close()


@contextlib.contextmanager
def smacv2(race: str, n_units: int, n_enemies: int) -> Iterator[Any]:
    """SMACv2 with teams drawn as in its examples."""
    from smacv2.env import StarCraftCapabilityEnvWrapper

    team = {"dist_type": "weighted_teams", "unit_types": list(TEAMS[race]), "weights": list(TEAMS[race].values())}
    alone_useless = [kind for kind in TEAMS[race] if kind in ("medivac", "baneling")]
    places = {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": 32, "map_y": 32}
    env = StarCraftCapabilityEnvWrapper(
        map_name=f"10gen_{race}",
        obs_own_pos=True,
        use_unit_ranges=True,
        capability_config={
            "n_units": n_units,
            "n_enemies": n_enemies,
            "team_gen": {**team, "exception_unit_types": alone_useless, "observe": True},
            "start_positions": places,
        },
    )
    try:
        yield env
    finally:
        env.close()


def episode(env: Any, max_steps: int = 10**6, seed: int = 0) -> dict[str, Any]:
    """Steps of random available actions: how many, whether the episode ended, and the last info."""
    rng, steps, over, info = np.random.default_rng(seed), 0, False, {}
    sizes = env.get_env_info()
    while not over and steps < max_steps:
        available = np.array(env.get_avail_actions())
        assert available.shape == (sizes["n_agents"], sizes["n_actions"])
        _, over, info = env.step([int(rng.choice(np.flatnonzero(row))) for row in available])
        assert np.shape(env.get_obs()) == (sizes["n_agents"], sizes["obs_shape"])
        assert np.shape(env.get_state()) == (sizes["state_shape"],)
        steps += 1
    return {"steps": steps, "over": over, "info": info}


def teams(env: Any) -> tuple[list[int], list[int]]:
    """The unit types on both sides, as the environment holds them."""
    return [u.unit_type for u in env.agents.values()], [u.unit_type for u in env.enemies.values()]


def smac_resets() -> dict[str, tuple[dict[str, Any], list[int], list[int]]]:
    """Map of SMAC's registry -> its entry, and the types of the units after a second reset."""
    from smac.env.starcraft2.maps.smac_maps import map_param_registry

    found = {}
    with one_server():
        for name, entry in map_param_registry.items():
            with smac(name) as env:
                env.reset()
                env.step([int(np.flatnonzero(row)[-1]) for row in env.get_avail_actions()])
                env._episode_count = 1  # so that the next reset kills the units instead of launching the game again
                env.reset()
                assert all(unit.health == unit.health_max for unit in env.agents.values())
                found[name] = (entry, *teams(env))
    return found


def smac_episodes(max_steps: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Map -> how an episode of at most so many steps went, after which there was a reset."""
    found = {}
    with one_server():
        for name, most in max_steps.items():
            with smac(name) as env:
                env.reset()
                found[name] = episode(env, most)
                env.reset()
    return found


def smacv2_episodes(games: list[tuple[str, int, int]], max_steps: int) -> list[dict[str, Any]]:
    """How an episode of at most so many steps went in each game. A reset and two more steps follow."""
    found = []
    with one_server():
        for game in games:
            with smacv2(*game) as env:
                env.reset()
                assert [len(team) for team in teams(env)] == [*game[1:]]
                found.append(episode(env, max_steps))
                env.env._episode_count = 1  # so that the next reset kills the units instead of launching the game again
                env.reset()
                assert [len(team) for team in teams(env)] == [*game[1:]]
                episode(env, 2)
    return found


def protocol_units(names: list[str]) -> dict[str, dict[str, Any]]:
    """What one server shows of each map to whoever speaks its protocol through pysc2."""
    config, found = run_configs.get(), {}
    with config.start(want_rgb=False) as controller:
        for name in names:
            path = f"SMAC_Maps/{name}.SC2Map"
            local_map = sc2api_pb2.LocalMap(map_path=path, map_data=config.map_data(path))
            create = sc2api_pb2.RequestCreateGame(local_map=local_map, random_seed=3)
            create.player_setup.add(type=sc2api_pb2.Participant)
            create.player_setup.add(type=sc2api_pb2.Computer, race=common_pb2.Zerg, difficulty=sc2api_pb2.VeryHard)
            controller.create_game(create)
            controller.save_map(path, local_map.map_data)
            options = sc2api_pb2.InterfaceOptions(raw=True, score=False)
            controller.join_game(sc2api_pb2.RequestJoinGame(race=common_pb2.Zerg, options=options))
            units = controller.observe().observation.raw_data.units
            found[name] = {
                "allies": Counter((u.unit_type, u.is_flying) for u in units if u.owner == 1),
                "enemies": Counter((u.unit_type, u.is_flying) for u in units if u.owner == 2),
                "types": len(controller.data().units),
                "replay": controller.save_replay(),
            }
    return found


def launch_s(**values: Any) -> float:
    """Seconds that a launch takes."""
    begin = time.monotonic()
    with switches(**values), run_configs.get().start(want_rgb=False):
        return time.monotonic() - begin


def smac_fault(timeout_s: int, at_step: int, **values: Any) -> dict[str, Any]:
    """SMAC's 3m with a first server that fails: what that step returned, how long it took, and what came after."""
    before, flags.FLAGS.sc2_timeout = flags.FLAGS.sc2_timeout, timeout_s
    try:
        with smac("3m") as env:
            with switches(**values):
                env.reset()
            for _ in range(at_step - 1):
                assert env.step([1, 1, 1])[1:] != (True, {})
            first, begin = env._sc2_proc.pid, time.monotonic()
            result = env.step([1, 1, 1])
            took = time.monotonic() - begin
            env.reset()
            return {
                "first": first,
                "result": result,
                "took": took,
                "restarts": env.force_restarts,
                "after": episode(env),
            }
    finally:
        flags.FLAGS.sc2_timeout = before


def smac_fault_file(file: Path) -> list[list[bool]]:
    """Which of three games of SMAC break, in three rounds of a step each: a file orders a crash before the second."""
    with contextlib.ExitStack() as stack, switches(FAULT_FILE=file):
        envs = [stack.enter_context(smac("3m")) for _ in range(3)]
        for env in envs:
            env.reset()
        rounds = []
        for order in (None, "crash", None):
            if order is not None:
                file.write_text(f"{order}\n")
            rounds.append([env.step([1, 1, 1])[1:] == (True, {}) for env in envs])
        return rounds
