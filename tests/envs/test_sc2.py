"""The real smac and smacv2 against the stand-in for StarCraft II: sizes, whole battles, faults, the command line."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from sc2_stand_in.install import install
from shoal.envs.sc2 import SC2Env, SC2Settings
from shoal.envs.team import EPISODE_FAILED
from shoal.runners.workers import WorkerVectorEnv
from support.launch import TESTS, all_gone, curves, environment, read_json, start, wait_until

PLAY = TESTS / "support" / "play_sc2.py"


def needs(package):
    missing = [name for name in (package, "pysc2", "websockets") if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: see docs/starcraft.md")


needs_smac, needs_smacv2, needs_smac_hard = needs("smac"), needs("smacv2"), needs("smac_hard")


@pytest.fixture(autouse=True)
def game(tmp_path, monkeypatch):
    """A folder with the stand-in, which SC2PATH names; afterwards none of its servers may be left."""
    folder = install(tmp_path / "StarCraftII")
    monkeypatch.setenv("SC2PATH", str(folder))
    monkeypatch.setenv("SC2_STAND_IN_LOG", str(tmp_path / "launches.txt"))
    yield folder
    assert wait_until(lambda: not servers(), 15, "the end of all games")


def servers():
    """The stand-ins that run out of this test's folder."""
    folder = os.environ["SC2PATH"]
    return [p for p in psutil.process_iter(["cmdline"]) if any(folder in part for part in p.info["cmdline"] or [])]


def played(suite, maps, episodes=1, max_steps=10_000, seed=5, **variables):
    """map -> what play_sc2.py tells of it."""
    command = [sys.executable, str(PLAY), suite, str(episodes), str(max_steps), str(seed), *maps]
    result = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    facts = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return {fact["map"]: fact for fact in facts}


SIZES = {  # state, obs, actions: tables E.1, E.3 and E.4 of the S2Q paper
    "5m_vs_6m": (98, 55, 12),
    "MMM2": (322, 176, 18),
    "27m_vs_30m": (1170, 285, 36),
    "corridor": (282, 156, 30),
    "3s5z_vs_3s6z": (230, 136, 15),
    "6h_vs_8z": (140, 78, 14),
    "1o_2r_vs_4r": (68, 49, 10),
    "1o_10b_vs_1r": (148, 84, 7),
    "5z_vs_1ul": (63, 35, 7),
    "bane_vs_hM": (52, 35, 8),
}
V2_SIZES = {"terran_5_vs_5": (120, 82, 11), "zerg_5_vs_5": (120, 82, 11), "protoss_5_vs_5": (130, 92, 11)}


def size(fact):
    return fact["state"], fact["obs"], fact["actions"]


@needs_smac
def test_sizes_are_the_papers():
    facts = played("sc2", [*SIZES, "3m"], episodes=0)
    assert {name: size(facts[name]) for name in SIZES} == SIZES
    assert size(facts["3m"]) == (48, 30, 9)
    assert {fact["first_attack"] for fact in facts.values()} == {6}


@needs_smacv2
def test_sizes_of_smacv2_are_the_papers():
    facts = played("sc2v2", [*V2_SIZES, "zerg_10_vs_11", "terran_20_vs_23"], episodes=0)
    assert {name: size(facts[name]) for name in V2_SIZES} == V2_SIZES
    assert [facts[name]["agents"] for name in ("zerg_10_vs_11", "terran_20_vs_23")] == [10, 20]
    assert facts["terran_20_vs_23"]["actions"] == 6 + 23


@needs_smac_hard
def test_sizes_of_smac_hard_are_the_papers(game):
    sizes = {"2s3z_Hard": (120, 80, 11), "3s_vs_5z_Hard": (68, 48, 11), "5m_vs_6m_Hard": (98, 55, 12)}
    (game / "Maps" / "SMAC_HARD_maps").mkdir()
    for name in sizes:
        (game / "Maps" / "SMAC_HARD_maps" / f"{name.removesuffix('_Hard')}.SC2Map").touch()
    facts = played("sc2hard", list(sizes), episodes=0)  # its two players need two games in one battle, as the real one
    assert {name: size(facts[name]) for name in sizes} == sizes


@needs_smac
def test_battles_of_smac_comm_and_whom_they_show():
    maps = ["1o_2r_vs_4r", "1o_10b_vs_1r", "5z_vs_1ul", "bane_vs_hM", "3m"]
    facts = played("sc2", maps, episodes=2)
    for fact in facts.values():
        for episode in fact["episodes"]:
            assert episode["over"]
            assert set(episode["info"]) == {"battle_won", "dead_allies", "dead_enemies", "timeouts"}
            assert 0 <= episode["return"] <= 20.001
    roach, overseer = [1.0, 0.0], [0.0, 1.0]
    assert sorted(facts["1o_2r_vs_4r"]["episodes"][0]["last_of_own"]) == [overseer, roach, roach]
    overseer, baneling = [1.0, 0.0], [0.0, 1.0]
    assert sorted(facts["1o_10b_vs_1r"]["episodes"][0]["last_of_own"]) == [baneling] * 10 + [overseer]


@needs_smacv2
def test_battles_of_smacv2_start_where_the_seed_says():
    facts, again = (played("sc2v2", ["terran_5_vs_5", "zerg_5_vs_5"], episodes=3, max_steps=12) for _ in range(2))
    for name, fact in facts.items():
        starts = [episode["start"] for episode in fact["episodes"]]
        assert len(set(starts)) == 3
        assert starts == [episode["start"] for episode in again[name]["episodes"]]


@needs_smac
def test_killing_the_hydralisk_wins_whoever_is_left():
    env = SC2Env(SC2Settings(map_name="bane_vs_hM"))
    try:
        env.reset(seed=1)
        game = env._game
        hydralisk = next(unit for unit in game.enemies.values() if unit.unit_type == 107)
        units = game._obs.observation.raw_data.units
        for unit in [unit for unit in units if unit.owner == 1 or unit.tag == hydralisk.tag]:
            units.remove(unit)
        assert game.update_units() == 1
    finally:
        env.close()


@needs_smac
def test_a_short_sight_hides_the_enemy():
    seen = {}
    for sight in (None, 2.0):
        env = SC2Env(SC2Settings(sight_range=sight, shoot_range=sight))
        try:
            observation, _ = env.reset(seed=1)
            for _ in range(5):  # east, towards the enemy
                observation, *_ = env.step(np.array([4, 4, 4]))
            seen[sight] = bool(observation["obs"][:, 4:19].any())
        finally:
            env.close()
    assert seen == {None: True, 2.0: False}


@needs_smac
def test_a_crash_ends_the_episode_and_the_next_one_is_played_in_a_new_game(monkeypatch, tmp_path):
    env = SC2Env(SC2Settings())
    try:
        monkeypatch.setenv("SC2_STAND_IN_CRASH_AT", "6")
        env.reset(seed=1)
        monkeypatch.delenv("SC2_STAND_IN_CRASH_AT")
        best = env._game.max_reward
        step = None
        for _ in range(10):
            step = env.step(np.array([1, 1, 1]))
            if step[2] or step[3]:
                break
        assert step is not None
        assert step[1:] == (0.0, False, True, {EPISODE_FAILED: 1})
        env.reset(seed=2)
        assert env._game.max_reward == best
        assert len(servers()) == 1
        assert len((tmp_path / "launches.txt").read_text().splitlines()) == 2
        observation, *_ = env.step(np.array([1, 1, 1]))
        assert observation["alive"].all()
    finally:
        env.close()


def in_a_worker(**limits):
    return WorkerVectorEnv(SC2Env, SC2Settings(), 1, **limits)


@needs_smac
def test_a_game_that_hangs_is_killed_with_its_worker(monkeypatch):
    monkeypatch.setenv("SC2_STAND_IN_HANG_AT", "6")
    env = in_a_worker(step_timeout_s=4.0)
    try:
        env.reset(seed=[1])
        (hanging,) = servers()
        for _ in range(10):
            _, _, _, truncated, infos = env.step(np.ones((1, 3), dtype=int))
            if truncated[0]:
                break
        assert infos[EPISODE_FAILED] == [1.0]
        assert "did not answer within 4 seconds" in env.last_failure
        assert all_gone([hanging])
    finally:
        env.close()


@needs_smac
def test_a_game_that_starts_slowly_is_waited_for(monkeypatch):
    monkeypatch.setenv("SC2_STAND_IN_START_DELAY_MS", "4000")
    env = in_a_worker(step_timeout_s=60.0)
    try:
        before = time.monotonic()
        observation, _ = env.reset(seed=[1])
        assert time.monotonic() - before > 4
        assert env.last_failure == ""
        assert observation["alive"].all()
    finally:
        env.close()


def records(tmp_path):
    record = tmp_path / "results" / "sacred" / "1"
    return read_json(record / "run.json"), curves(record)


SMALL = ["batch_size_run=2", "batch_size=4", "test_nepisode=2", "runner_log_interval=50", "seed=3", "lr=0.0005"]


@needs_smac
@pytest.mark.parametrize("fault", ["crash", "hang"])
def test_a_run_outlives_games_that_crash_and_hang(fault, monkeypatch, tmp_path):
    monkeypatch.setenv("SC2_STAND_IN_FAULT_FILE", str(tmp_path / "fault"))
    sizes = ["t_max=500", "test_interval=250", "learner_log_interval=50", "env_timeout_s=5", *SMALL]
    process = start(tmp_path, "--config=s2q", "--env-config=sc2", "with", "env_args.map_name=3m", *sizes)
    try:
        wait_until(lambda: "test at t_env 0" in (tmp_path / "out.txt").read_text() or process.poll(), 120, "a test")
        (tmp_path / "fault").write_text(fault)
        assert process.wait(240) == 0, (tmp_path / "err.txt").read_text()
    finally:
        process.kill()
    run, points = records(tmp_path)
    assert run["status"] == "COMPLETED"
    assert points["env_restarts"][-1][1] == 1
    assert {"test_battle_won_mean", "test_dead_enemies_mean", "test_timeouts_mean", "loss_td"} <= points.keys()
    assert max(value for _, value in points["ep_length_mean"]) <= 60
    errors = (tmp_path / "err.txt").read_text()
    assert re.search(r"Environment \d (is restarted|could not finish)", errors)
    assert "Traceback" not in errors


@needs_smac
def test_no_game_outlives_a_run_that_is_killed(tmp_path):
    process = start(tmp_path, "--config=qmix", "--env-config=sc2", "with", "env_args.map_name=3m", *SMALL)
    try:
        wait_until(lambda: len(servers()) == 2 or process.poll(), 120, "two games")
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: not servers(), 15, "the games' end")


@needs_smac
def test_a_replay_and_a_picture_of_it(tmp_path, game):
    common = ["--config=vdn", "--env-config=sc2", "with", "env_args.map_name=3m", *SMALL]
    trained = start(tmp_path, *common, "t_max=60")
    assert trained.wait(240) == 0
    (models,) = (tmp_path / "results" / "models").iterdir()
    evaluated = start(tmp_path, *common, "evaluate=True", "save_replay=True", f"checkpoint_path={models}")
    assert evaluated.wait(240) == 0, (tmp_path / "err.txt").read_text()
    assert len(list((tmp_path / "results" / "replays").glob("*.gif"))) == 1
    (replay,) = game.rglob("*.SC2Replay")
    assert replay.stat().st_size
    assert str(replay) in (tmp_path / "out.txt").read_text()


@needs_smac
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["6h_vs_8z", "MMM2", "27m_vs_30m", "corridor", "3s5z_vs_3s6z", "5m_vs_6m", "1o_2r_vs_4r", "1o_10b_vs_1r"]
)
def test_s2q_trains_on_smac(name, tmp_path):
    train(tmp_path, "s2q", "sc2", name)


@needs_smac
@pytest.mark.slow
@pytest.mark.parametrize("name", ["5z_vs_1ul", "bane_vs_hM"])
def test_s2q_comm_trains_on_smac_comm(name, tmp_path):
    train(tmp_path, "s2q_comm", "sc2", name)


@needs_smacv2
@pytest.mark.slow
@pytest.mark.parametrize("name", list(V2_SIZES))
def test_s2q_trains_on_smacv2(name, tmp_path):
    train(tmp_path, "s2q", "sc2v2", name)


def train(tmp_path, algorithm, suite, name):
    args = [f"env_args.map_name={name}", "t_max=150", "test_interval=100", "learner_log_interval=20", *SMALL]
    args = [arg.replace("batch_size=4", "batch_size=2") for arg in args]
    process = start(tmp_path, f"--config={algorithm}", f"--env-config={suite}", "with", *args)
    try:
        assert process.wait(400) == 0, (tmp_path / "err.txt").read_text()
    finally:
        process.kill()
    run, points = records(tmp_path)
    assert run["status"] == "COMPLETED"
    assert {"test_battle_won_mean", "loss_td"} <= points.keys()
    assert os.environ["SC2PATH"]
