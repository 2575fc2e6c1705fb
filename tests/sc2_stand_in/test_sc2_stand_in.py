"""The stand-in for StarCraft II, played by the real SMAC and SMACv2 through the real pysc2."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from sc2_stand_in.battle import KINDS, MAPS, Battle, Unit
from sc2_stand_in.install import install

pytest.importorskip("websockets", reason="the stand-in listens with websockets")
play: Any = pytest.importorskip("sc2_stand_in.play", reason="the stand-in is played through pysc2")

LONGEST_S = 600.0
"""More than a call into a client takes on a machine that is busy with other things."""
GAMES = [
    (race, n, m) for race in ("terran", "protoss", "zerg") for n, m in ((5, 5), (10, 10), (10, 11), (20, 20), (20, 23))
]

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def sc2path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-in installed."""
    return install(tmp_path_factory.mktemp("sc2") / "StarCraftII")


def stand_ins(sc2path: Path) -> list[psutil.Process]:
    """The running servers of an install, whoever launched them."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(word.startswith(str(sc2path)) for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(autouse=True)
def _none_is_left(sc2path: Path) -> Iterator[None]:
    yield
    _, left = psutil.wait_procs(stand_ins(sc2path), timeout=5)
    for process in left:
        process.kill()
    assert not left


def _caller(sc2path: Path) -> Iterator[Call]:
    """Calls functions in one other process, which ends with the tests that need it."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(1, context, initializer=play.prepare, initargs=(str(sc2path),))
    worker = psutil.Process(executor.submit(os.getpid).result(LONGEST_S))

    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return executor.submit(function, *args, **kwargs).result(LONGEST_S)

    try:
        yield call
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        if psutil.wait_procs([worker], timeout=60)[1]:
            for process in [*worker.children(recursive=True), worker]:
                process.kill()


@pytest.fixture(scope="module")
def with_pysc2(sc2path: Path) -> Iterator[Call]:
    """Calls functions where nothing but pysc2 need be installed."""
    yield from _caller(sc2path)


@pytest.fixture(scope="module")
def with_smac(with_pysc2: Call) -> Call:
    """Calls functions where SMAC can be imported."""
    pytest.importorskip("smac", reason="SMAC is not installed")
    return with_pysc2


@pytest.fixture(scope="module")
def with_smacv2(sc2path: Path) -> Iterator[Call]:
    """Calls functions where SMACv2 can be imported."""
    pytest.importorskip("smacv2", reason="SMACv2 is not installed")
    yield from _caller(sc2path)


def test_every_map_of_smac_resets_twice(with_smac: Call) -> None:
    found = with_smac(play.smac_resets)
    for name, (entry, allies, enemies) in found.items():
        assert (len(allies), len(enemies)) == (entry["n_agents"], entry["n_enemies"]), name
        assert allies == sorted(allies), name
        assert set(allies) == set(range(1970, 1970 + max(1, len(set(allies))))), name
        assert set(enemies) <= {kind.number for kind in KINDS.values()}, name
    assert len(found) == 23


def test_smac_plays_episodes_of_random_actions(with_smac: Call) -> None:
    found = with_smac(play.smac_episodes, {"3m": 99, "MMM2": 999, "corridor": 999, "27m_vs_30m": 20})
    assert all(game["over"] for name, game in found.items() if name != "27m_vs_30m")
    assert found["27m_vs_30m"]["steps"] == 20
    assert not any(game["info"]["battle_won"] for game in found.values())


@pytest.mark.slow
def test_smac_plays_episodes_of_random_actions_in_crowds(with_smac: Call) -> None:
    found = with_smac(play.smac_episodes, {"bane_vs_bane": 999, "2c_vs_64zg": 999})
    assert all(game["over"] and "battle_won" in game["info"] for game in found.values())


def test_maps_of_smac_comm(with_pysc2: Call) -> None:
    overseer = (1971, True)
    expected = {
        "1o_10b_vs_1r": ({(1970, False): 10, overseer: 1}, {(110, False): 1}),
        "1o_2r_vs_4r": ({overseer: 1, (1972, False): 2}, {(49, False): 4}),
        "5z_vs_1ul": ({(1970, False): 5}, {(109, False): 1}),
        "bane_vs_hM": ({(1970, False): 3}, {(107, False): 1, (54, True): 1}),
    }
    found = with_pysc2(play.protocol_units, list(expected))
    assert {name: (units["allies"], units["enemies"]) for name, units in found.items()} == expected
    assert [units["types"] for units in found.values()] == [1972, 1973, 1971, 1971]
    assert all(units["replay"] for units in found.values())


@pytest.mark.slow
def test_every_team_of_smacv2_plays(with_smacv2: Call) -> None:
    found = with_smacv2(play.smacv2_episodes, GAMES, 20)
    assert len(found) == len(GAMES)
    assert all(game["over"] or game["steps"] == 20 for game in found)


def test_smacv2_plays_episodes_to_their_ends(with_smacv2: Call) -> None:
    found = with_smacv2(play.smacv2_episodes, [game for game in GAMES if game[1:] == (5, 5)], 999)
    assert all(game["over"] and "battle_won" in game["info"] for game in found)


def test_smac_goes_on_after_a_crash(with_smac: Call, sc2path: Path, tmp_path: Path) -> None:
    log = tmp_path / "launches"
    found = with_smac(play.smac_fault, 360, 3, CRASH_AT=3, LOG=log)
    assert found["result"] == (0, True, {})
    assert found["restarts"] == 1
    assert found["after"]["over"]
    [line] = log.read_text().splitlines()  # of the launch with a log to write
    assert line.startswith(f"pid={found['first']} -listen 127.0.0.1 -port ")


def test_smac_goes_on_after_a_crash_by_chance(with_smac: Call) -> None:
    assert with_smac(play.smac_fault, 360, 1, CRASH_P=1)["result"] == (0, True, {})


@pytest.mark.slow
@pytest.mark.parametrize("switch", [{"HANG_AT": 2}, {"HANG_P": 1}])
def test_smac_goes_on_after_a_hang(with_smac: Call, switch: dict[str, int]) -> None:
    found = with_smac(play.smac_fault, 6, switch.get("HANG_AT", 1), **switch)
    assert found["result"] == (0, True, {})
    assert found["took"] >= 6
    assert found["restarts"] == 1
    assert found["after"]["over"]


def test_one_server_carries_out_the_fault_file(with_smac: Call, tmp_path: Path) -> None:
    file = tmp_path / "fault"
    assert with_smac(play.smac_fault_file, file) == [[False] * 3, [True, False, False], [False] * 3]
    assert not list(tmp_path.iterdir())


def test_a_slow_start_is_waited_for(with_pysc2: Call) -> None:
    assert with_pysc2(play.launch_s, START_DELAY_MS=1500) >= 1.5


def test_a_server_ends_with_its_client(sc2path: Path, tmp_path: Path) -> None:
    playing = f"""
import time
from sc2_stand_in import play
play.prepare({str(sc2path)!r})
game = play.OneServer()
print("playing", flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(tmp_path)}
    client = subprocess.Popen([sys.executable, "-c", playing], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "playing\n"
        assert stand_ins(sc2path)
    finally:
        client.kill()
        client.wait()
    end = time.monotonic() + 20
    while stand_ins(sc2path) and time.monotonic() < end:
        time.sleep(0.05)
    assert not stand_ins(sc2path)


def test_the_command_line_installs(tmp_path: Path) -> None:
    script = Path(__file__).with_name("install.py")
    out = subprocess.run([sys.executable, script, tmp_path / "here"], capture_output=True, text=True, check=True).stdout
    assert out == f"export SC2PATH={tmp_path / 'here'}\n"
    assert {path.stem for path in (tmp_path / "here/Maps/SMAC_Maps").iterdir()} == set(MAPS)
    assert os.access(tmp_path / "here/Versions/Base75689/SC2_x64", os.X_OK)


def duel(map_name: str) -> tuple[Battle, list[Unit], list[Unit]]:
    """A battle, and the units on both sides."""
    battle = Battle(map_name, 0)
    units = list(battle.units.values())
    return battle, [u for u in units if u.owner == 1], [u for u in units if u.owner == 2]


def test_a_baneling_dies_of_its_attack() -> None:
    battle, banelings, (hydralisk, _) = duel("bane_vs_hM")
    for baneling in banelings:
        baneling.order = "attack", hydralisk.tag
    battle.step(200)
    assert not {unit.tag for unit in (*banelings, hydralisk)} & set(battle.units)


def test_an_overseer_neither_attacks_nor_is_attacked_from_the_ground() -> None:
    battle, (overseer, *roaches), reapers = duel("1o_2r_vs_4r")
    overseer.order = "attack", reapers[0].tag
    battle.step(1)
    assert overseer.order is None
    for roach in roaches:
        battle.kill(roach.tag)
    battle.step(100)
    assert overseer.health == 200
    assert all(reaper.health == 60 for reaper in reapers)


def test_the_same_seed_and_orders_give_the_same_battle() -> None:
    def outcome() -> list[tuple[float, float, float]]:
        battle, allies, enemies = duel("MMM")
        for unit in allies:
            unit.order = "attack", enemies[0].tag
        battle.step(80)
        return [(unit.x, unit.y, unit.health) for unit in battle.units.values()]

    assert outcome() == outcome()
