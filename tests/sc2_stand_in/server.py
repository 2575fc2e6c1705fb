"""A stand-in for the StarCraft II game server, for where the game cannot be installed and to inject faults.

It speaks the public SC2 API (protobuf over a WebSocket, ``s2clientprotocol``) well enough for pysc2 and what plays
through it (SMAC, SMAC-Comm's maps, SMACv2) to launch it, create and join a game, observe, act, step, create and kill
units, and save a replay. The battles are those of battle.py.

Environment variables:

- SC2_STAND_IN_LOG=FILE: append one line per launch
- SC2_STAND_IN_START_DELAY_MS=N: wait that long before listening
- SC2_STAND_IN_DELAY_MS=N: wait that long in each step
- SC2_STAND_IN_CRASH_AT=N: end with status 1 at the N-th step of this process's life
- SC2_STAND_IN_HANG_AT=N: stop answering at the N-th step
- SC2_STAND_IN_CRASH_P=P, SC2_STAND_IN_HANG_P=P: do so with this probability in each step, differently in each launch
- SC2_STAND_IN_FAULT_FILE=FILE: whichever server first finds the file in a step removes it and does what its one line
  says: ``crash`` or ``hang``
"""

import argparse
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from battle import MAP_SIZE, MAPS, Battle, GameMap
from s2clientprotocol import sc2api_pb2 as sc
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

HANG_S = 600.0
"""A hanging server ends after this long, so that none outlives the tests for good."""
UNUSED_S = 120.0
"""So does one to which nobody connects."""


class Faults:
    """What goes wrong, as the environment variables say."""

    def __init__(self) -> None:
        self._steps = 0
        self._crash_at, self._hang_at = _number("CRASH_AT"), _number("HANG_AT")
        self._crash_p, self._hang_p = _number("CRASH_P"), _number("HANG_P")
        self._delay_s = _number("DELAY_MS") / 1000
        self._rng = random.Random(f"{os.getpid()} {time.time_ns()}")
        file = os.environ.get("SC2_STAND_IN_FAULT_FILE")
        self._file = Path(file) if file else None

    def step(self) -> None:
        """To be called in each step of the API: may end the process, or not return."""
        self._steps += 1
        fault = self._ordered()
        if fault == "crash" or self._steps == self._crash_at or self._rng.random() < self._crash_p:
            os._exit(1)
        if fault == "hang" or self._steps == self._hang_at or self._rng.random() < self._hang_p:
            time.sleep(HANG_S)
            os._exit(1)
        time.sleep(self._delay_s)

    def _ordered(self) -> str | None:
        """What the file says, if there is one and this process is the one to take it away."""
        if self._file is None or not self._file.exists():
            return None
        mine = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            self._file.rename(mine)
        except FileNotFoundError:  # another server was faster
            return None
        fault = mine.read_text().strip()
        mine.unlink()
        return fault


class Server:
    """Answers the requests of one client."""

    def __init__(self) -> None:
        self._battle: Battle | None = None
        self._status, self._faults = sc.launched, Faults()
        self._map_name, self._seed = "", 0

    def answer(self, request: sc.Request) -> sc.Response:
        """The response to a request."""
        name = request.WhichOneof("request")
        response = sc.Response(id=request.id)
        method = getattr(self, f"_on_{name}", None)
        if method is None:
            response.error.append(f"the stand-in does not answer {name}")
        elif name in {"game_info", "observation", "data", "step", "action", "debug"} and self._status != sc.in_game:
            response.error.append(f"{name} is answered in a game only")
        else:
            method(request, response)
        response.status = self._status
        return response

    @property
    def _map(self) -> GameMap:
        return MAPS[self._map_name]

    @property
    def _game(self) -> Battle:
        assert self._battle is not None
        return self._battle

    def _on_ping(self, request: sc.Request, response: sc.Response) -> None:
        response.ping.game_version, response.ping.data_version = "4.10.0", "stand-in"
        response.ping.data_build = response.ping.base_build = 75689

    def _on_save_map(self, request: sc.Request, response: sc.Response) -> None:
        response.save_map.SetInParent()

    def _on_create_game(self, request: sc.Request, response: sc.Response) -> None:
        name = os.path.basename(request.create_game.local_map.map_path).removesuffix(".SC2Map")
        if name not in MAPS:
            response.create_game.error = sc.ResponseCreateGame.InvalidMapPath
            response.create_game.error_details = name
            return
        self._map_name, self._seed = name, request.create_game.random_seed
        response.create_game.SetInParent()
        self._status = sc.init_game

    def _on_join_game(self, request: sc.Request, response: sc.Response) -> None:
        self._battle, self._status = Battle(self._map_name, self._seed), sc.in_game
        response.join_game.player_id = 1

    def _on_restart_game(self, request: sc.Request, response: sc.Response) -> None:
        self._battle, self._status = Battle(self._map_name, self._seed), sc.in_game
        response.restart_game.SetInParent()

    def _on_game_info(self, request: sc.Request, response: sc.Response) -> None:
        info = response.game_info
        info.map_name = self._map_name
        raw = info.start_raw
        raw.map_size.x = raw.map_size.y = MAP_SIZE
        raw.playable_area.p1.x = raw.playable_area.p1.y = MAP_SIZE
        raw.pathing_grid.bits_per_pixel = 1
        raw.pathing_grid.size.x = raw.pathing_grid.size.y = MAP_SIZE
        raw.pathing_grid.data = b"\xff" * (MAP_SIZE * MAP_SIZE // 8)
        for grid in (raw.terrain_height, raw.placement_grid):
            grid.bits_per_pixel = 8
            grid.size.x = grid.size.y = MAP_SIZE
            grid.data = b"\x7f" * (MAP_SIZE * MAP_SIZE)

    def _on_data(self, request: sc.Request, response: sc.Response) -> None:
        # All unit types there are: SMACv2 counts them to find the map's own, which are the last.
        for number in range(self._map.first_type + len(self._map.allies)):
            response.data.units.add(unit_id=number)

    def _on_observation(self, request: sc.Request, response: sc.Response) -> None:
        observation = response.observation.observation
        observation.game_loop = self._game.loop
        observation.player_common.player_id = 1
        for unit in self._game.units.values():
            kind = unit.kind
            out = observation.raw_data.units.add(
                display_type=1,
                alliance=1 if unit.owner == 1 else 4,
                owner=unit.owner,
                tag=unit.tag,
                unit_type=unit.unit_type,
                radius=kind.radius,
                build_progress=1.0,
                is_flying=kind.flies,
                health=unit.health,
                health_max=kind.health,
                shield=unit.shield,
                shield_max=kind.shield,
                energy=unit.energy,
                energy_max=200 if kind.energy else 0,
                weapon_cooldown=unit.cooldown,
            )
            out.pos.x, out.pos.y, out.pos.z = unit.x, unit.y, 14 if kind.flies else 10

    def _on_step(self, request: sc.Request, response: sc.Response) -> None:
        self._faults.step()
        self._game.step(request.step.count or 1)
        response.step.simulation_loop = self._game.loop

    def _on_action(self, request: sc.Request, response: sc.Response) -> None:
        for action in request.action.actions:
            command = action.action_raw.unit_command
            for tag in command.unit_tags:
                response.action.result.append(1)
                unit = self._game.units.get(tag)
                if unit is None:
                    continue
                if command.HasField("target_world_space_pos"):
                    unit.order = "move", command.target_world_space_pos.x, command.target_world_space_pos.y
                elif command.HasField("target_unit_tag"):
                    target = self._game.units.get(command.target_unit_tag)
                    friend = target is not None and target.owner == unit.owner
                    unit.order = "heal" if friend else "attack", command.target_unit_tag
                else:
                    unit.order = None

    def _on_debug(self, request: sc.Request, response: sc.Response) -> None:
        response.debug.SetInParent()
        for command in request.debug.debug:
            kind = command.WhichOneof("command")
            if kind == "kill_unit":
                for tag in command.kill_unit.tag:
                    self._game.kill(tag)
            elif kind == "create_unit":
                new = command.create_unit
                for _ in range(new.quantity or 1):
                    if not self._game.create(new.unit_type, new.owner, new.pos.x, new.pos.y):
                        response.error.append(f"{self._map_name} has no unit type {new.unit_type}")

    def _on_save_replay(self, request: sc.Request, response: sc.Response) -> None:
        response.save_replay.data = b"stand-in replay\n"

    def _on_leave_game(self, request: sc.Request, response: sc.Response) -> None:
        self._status = sc.launched
        response.leave_game.SetInParent()

    def _on_quit(self, request: sc.Request, response: sc.Response) -> None:
        self._status = sc.quit
        response.quit.SetInParent()


def _number(name: str) -> float:
    return float(os.environ.get(f"SC2_STAND_IN_{name}") or 0)


def main() -> None:
    """Listens on the port given, and ends with the first client."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-listen", default="127.0.0.1")
    parser.add_argument("-port", type=int, required=True)
    options, _ = parser.parse_known_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.environ.get("SC2_STAND_IN_LOG"):
        with open(os.environ["SC2_STAND_IN_LOG"], "a") as log:
            log.write(f"pid={os.getpid()} {' '.join(sys.argv[1:])}\n")
    server = Server()
    unused = threading.Timer(UNUSED_S, os._exit, (1,))
    unused.daemon = True

    def session(socket: ServerConnection) -> None:
        unused.cancel()
        while True:
            try:  # pysc2 sends its protobuf bytes in text frames
                request = sc.Request.FromString(socket.recv(decode=False))
                response = server.answer(request)
                socket.send(response.SerializeToString())
            except ConnectionClosed:
                os._exit(0)
            if response.status == sc.quit:
                os._exit(0)

    time.sleep(_number("START_DELAY_MS") / 1000)
    # No pings: the game sends none, and a client that pauses to train would not answer them.
    with serve(session, options.listen, options.port, max_size=None, compression=None, ping_interval=None) as listener:
        unused.start()
        listener.serve_forever()


if __name__ == "__main__":
    main()
