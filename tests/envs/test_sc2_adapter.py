"""The adapter over smac, with a recorded battle in place of the package and the game: runs everywhere."""

import sys

import numpy as np
import pytest

from shoal.envs.sc2 import SC2Env, SC2Settings
from shoal.envs.sc2v2 import SC2v2Settings, capability_config
from shoal.envs.team import EPISODE_FAILED
from shoal.utils.errors import EnvironmentCrashedError, UserError
from support import fake_smac


@pytest.fixture
def smac(monkeypatch, tmp_path):
    return fake_smac.install(monkeypatch, tmp_path)


def play(env, seed=None, actions=None):
    """An episode of the recorded actions -> observations, rewards, the last flags and info."""
    observation, _ = env.reset(seed=seed)
    seen, rewards = [observation], []
    for action in np.load(fake_smac.RECORD)["actions"] if actions is None else actions:
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            return seen, rewards, (terminated, truncated), info
        assert info == {}
    raise AssertionError("the battle did not end")


def test_a_battle_comes_through_as_it_was_recorded(smac):
    env = SC2Env(SC2Settings())
    assert env.episode_limit == 60
    assert env.action_space.nvec.tolist() == [9, 9, 9]
    assert env.action_classes == {"stop": [1], "move": [2, 3, 4, 5], "attack": [6, 7, 8]}
    record = np.load(fake_smac.RECORD)
    for seed in (3, 4):
        seen, rewards, flags, info = play(env, seed)
        assert flags == (True, False)
        assert info == {"battle_won": 0, "dead_allies": 3, "dead_enemies": 0, "timeouts": 1}
        np.testing.assert_allclose(rewards, record["reward"])
        for t, observation in enumerate(seen):
            assert env.observation_space.contains(observation)
            np.testing.assert_array_equal(observation["obs"], record["obs"][t])
            np.testing.assert_allclose(observation["state"], record["state"][t].astype(np.float32))
            np.testing.assert_array_equal(observation["avail_actions"], record["avail_actions"][t])
            np.testing.assert_array_equal(observation["alive"], record["avail_actions"][t][:, 0] == 0)
        assert not seen[-1]["alive"].any()
    (game,) = smac.built
    assert game.seeds_at_launch == [3]  # the game takes a seed when it is launched, not again
    env.close()
    assert game.closed


def test_the_package_gets_pymarls_arguments(smac):
    SC2Env(SC2Settings(difficulty=5, reward_sparse=True, sight_range=4.0))
    (game,) = smac.built
    assert game.arguments.pop("seed") is None
    assert game.arguments == {
        "map_name": "3m",
        "difficulty": "5",
        "game_version": None,
        "step_mul": 8,
        "move_amount": 2,
        "continuing_episode": False,
        "obs_all_health": True,
        "obs_own_health": True,
        "obs_last_action": False,
        "obs_pathing_grid": False,
        "obs_terrain_height": False,
        "obs_instead_of_state": False,
        "obs_timestep_number": False,
        "state_last_action": True,
        "state_timestep_number": False,
        "reward_sparse": True,
        "reward_only_positive": True,
        "reward_death_value": 10,
        "reward_win": 200,
        "reward_defeat": 0,
        "reward_negative_scale": 0.5,
        "reward_scale": True,
        "reward_scale_rate": 20,
        "replay_dir": "",
        "replay_prefix": "",
        "heuristic_ai": False,
        "heuristic_rest": False,
        "debug": False,
    }


def test_a_crash_in_a_battle_is_no_defeat_and_the_next_one_has_a_new_game(smac):
    env = SC2Env(SC2Settings())
    smac.crash_at = 5
    seen, rewards, flags, info = play(env, seed=1)
    assert (len(rewards), rewards[-1], flags, info) == (6, 0.0, (False, True), {EPISODE_FAILED: 1})
    assert all((seen[-1][key] == seen[-2][key]).all() for key in seen[-1])
    _, rewards, flags, info = play(env, seed=2)
    assert len(rewards) == 34
    assert info["dead_allies"] == 3
    crashed, fresh = smac.built
    assert crashed.closed
    assert not fresh.closed
    assert (crashed.launches, fresh.launches) == (1, 1)  # smac's own second launch of a crashed game did not happen
    assert fresh.seeds_at_launch == [2]


def test_a_game_that_crashes_at_the_start_is_launched_again_at_the_next_reset(smac):
    env = SC2Env(SC2Settings())
    smac.crash_at_reset = 1
    with pytest.raises(EnvironmentCrashedError):
        env.reset(seed=1)
    play(env, seed=2)
    assert [game.closed for game in smac.built] == [True, False]
    env.close()
    assert all(game.closed for game in smac.built)


def test_the_worlds_random_numbers_are_left_alone(smac):
    np.random.seed(0)
    expected = np.random.random(2)
    np.random.seed(0)
    env = SC2Env(SC2Settings())
    first = np.random.random()
    play(env, seed=1)
    assert [first, np.random.random()] == expected.tolist()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"map_name": "5m_vs_7m"}, "Unknown map_name '5m_vs_7m': did you mean '5m_vs_6m'"),
        ({"map_name": "6h_vs_8z"}, "has no map 6h_vs_8z.SC2Map: run ./install_sc2.sh --maps-only"),
    ],
)
def test_a_map_that_is_not_there(smac, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        SC2Env(SC2Settings(**settings))


def test_without_the_game(smac, monkeypatch, tmp_path):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"needs StarCraft II, which is not in .*nowhere: run ./install_sc2.sh"):
        SC2Env(SC2Settings())


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "smac", None)
    with pytest.raises(UserError, match=r"needs the Python package smac: run ./install_sc2.sh"):
        SC2Env(SC2Settings())


@pytest.mark.parametrize("settings", [{"difficulty": "B"}, {"step_mul": 0}, {"sight_range": -1.0}])
def test_impossible_settings(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        SC2Settings(**settings)


def test_smacv2_scenarios_by_name():
    config = capability_config("zerg_10_vs_11")
    assert (config["n_units"], config["n_enemies"]) == (10, 11)
    assert config["team_gen"] == {
        "dist_type": "weighted_teams",
        "unit_types": ["zergling", "hydralisk", "baneling"],
        "weights": [0.45, 0.45, 0.1],
        "exception_unit_types": ["baneling"],
        "observe": True,
    }
    assert "exception_unit_types" not in capability_config("protoss_5_vs_5")["team_gen"]
    assert SC2v2Settings().capability_config == {}
