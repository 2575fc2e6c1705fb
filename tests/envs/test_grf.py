"""Google Research Football: the real engine, where it is built (./install_grf.sh)."""

import importlib.util
import os

import numpy as np
import pytest

from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.envs.grf import N_ACTIONS, GRFEnv, GRFSettings
from shoal.envs.grf_scenarios import SCENARIOS, known_scenario
from shoal.envs.team import EPISODE_FAILED
from shoal.experiment import ExperimentSettings
from shoal.runners.workers import WorkerVectorEnv
from shoal.utils.errors import UserError
from support.launch import curves, in_process, wait_until, workers_of

built = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gfootball", "gfootball_engine", "gym")),
    reason="Google Research Football is not built: ./install_grf.sh",
)
LEFT, RIGHT = 1, 5


@pytest.fixture(params=["academy_3_vs_2", "academy_4_vs_3"])
def env(request):
    env = GRFEnv(GRFSettings(map_name=request.param))
    yield env
    env.close()


def episode(env, seed, actions):
    """(observation, reward, terminated, truncated, info) of every step, the start first."""
    steps = [(env.reset(seed=seed)[0], 0.0, False, False, {})]
    for action in actions:
        steps.append(env.step(action))
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


def moved_in(env):
    """Whom each agent moves, as the engine says it: indices into its list of the left team."""
    return [one["active"] for one in env._engine.unwrapped.observation()]


def random_actions(n_agents, seed, length=400):
    return np.random.default_rng(seed).integers(N_ACTIONS, size=(length, n_agents))


@built
@pytest.mark.parametrize(
    ("name", "agents", "size"),
    [
        ("academy_3_vs_2", 3, 26),
        ("academy_3_vs_1_with_keeper", 3, 26),
        ("academy_4_vs_3", 4, 34),
        ("academy_counterattack_easy", 4, 30),
        ("academy_counterattack_hard", 4, 34),
        ("academy_2_vs_2", 2, 22),
        ("academy_corner", 10, 90),
        ("5_vs_5", 4, 42),
    ],
)
def test_sizes_are_the_papers(name, agents, size):
    env = GRFEnv(GRFSettings(map_name=name))
    assert env.observation_space["obs"].shape == (agents, size)
    assert env.observation_space["state"].shape == (size,)
    assert env.action_space.nvec.tolist() == [19] * agents
    assert env.episode_limit == (300 if name == "5_vs_5" else 150)


@built
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_plays(name):
    env = GRFEnv(GRFSettings(map_name=name))
    try:
        steps = episode(env, 3, random_actions(known_scenario(name).n_agents, 3, length=25))
        assert all(env.observation_space.contains(step[0]) for step in steps)
        assert len(steps) > 3
    finally:
        env.close()


@built
def test_numbers_are_where_the_documentation_says(env):
    observation, _ = env.reset(seed=1)
    observation, *_ = env.step(np.full(env.action_space.shape, RIGHT))
    N, K, raw = env._scenario.n_agents, env._scenario.n_opponents, env._raw
    obs, state, moved = observation["obs"], observation["state"], moved_in(env)
    mine = raw["left_team"][moved]
    for i, row in enumerate(obs):
        others = [j for j in range(N) if j != i]
        np.testing.assert_allclose(row[:2], mine[i], rtol=1e-6)
        np.testing.assert_allclose(row[2 : 2 * N].reshape(-1, 2) + row[:2], mine[others], atol=1e-6)
        np.testing.assert_allclose(row[2 * N : 2 * N + 2], raw["left_team_direction"][moved[i]], atol=1e-7)
        theirs = row[4 * N : 4 * N + 2 * K].reshape(-1, 2) + row[:2]
        np.testing.assert_allclose(theirs, raw["right_team"][:K], atol=1e-6)
        np.testing.assert_allclose(row[-6:-4] + row[:2], raw["ball"][:2], atol=1e-6)
        np.testing.assert_allclose(row[-4], raw["ball"][2], atol=1e-6)
        np.testing.assert_allclose(row[-3:], raw["ball_direction"], atol=1e-7)
    np.testing.assert_allclose(state[: 2 * N].reshape(-1, 2), mine, rtol=1e-6)
    np.testing.assert_allclose(state[4 * N : 4 * N + 2 * K].reshape(-1, 2), raw["right_team"][:K], rtol=1e-6)
    np.testing.assert_allclose(state[-6:-3], raw["ball"], rtol=1e-6)
    assert raw["right_team"][0][0] > 0.9  # the keeper is the first of the opponents


@built
def test_an_episode_is_a_function_of_its_seed_and_its_actions(env):
    actions = random_actions(env._scenario.n_agents, 1)
    first = episode(env, 7, actions)
    episode(env, 8, actions)
    fresh = GRFEnv(env._settings)
    try:
        for other in (episode(env, 7, actions), episode(fresh, 7, actions)):
            assert len(other) == len(first)
            for one, two in zip(first, other, strict=True):
                for key in one[0]:
                    np.testing.assert_array_equal(one[0][key], two[0][key])
                assert one[1:] == two[1:]
    finally:
        fresh.close()


@built
@pytest.mark.parametrize("name", ["academy_3_vs_2", "academy_4_vs_3", "academy_counterattack_easy"])
def test_a_row_stays_the_row_of_the_player_whom_the_action_moves(name):
    """The engine hands agents other players, the keeper among them; the released wrappers' rows stay where they are."""
    env = GRFEnv(GRFSettings(map_name=name, end_behind_line="never"))
    try:
        others, handed_over = 0, set()
        for seed in range(5):
            observation, _ = env.reset(seed=seed)
            for action in random_actions(env._scenario.n_agents, seed, length=90):
                moved, team = moved_in(env), env._raw["left_team"]
                np.testing.assert_allclose(observation["obs"][:, :2], team[moved], rtol=1e-6)
                others += moved != list(range(len(team)))[-len(moved) :]
                handed_over.add(tuple(moved))
                observation, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated or len(handed_over) > 2:
                    break
        assert others > 0
        assert len(handed_over) > 1
    finally:
        env.close()


@built
def test_it_is_the_rows_player_whom_the_action_moves():
    """Two plays that differ in one agent's actions alone: that agent's own position differs most."""
    env = GRFEnv(GRFSettings(map_name="academy_counterattack_easy", end_behind_line="never"))
    N = env._scenario.n_agents
    try:
        for agent in range(N):
            ends = []
            for action in (0, RIGHT):
                env.reset(seed=0)
                for _ in range(6):
                    joint = np.zeros(N, dtype=int)
                    joint[agent] = action
                    observation, *_ = env.step(joint)
                ends.append(observation["obs"][:, :2])
            assert np.abs(ends[1] - ends[0]).sum(1).argmax() == agent
    finally:
        env.close()


def test_an_agent_that_moves_nobody_for_now_keeps_its_player():
    env = object.__new__(GRFEnv)
    env._moved = np.array([5, 6, 7])
    env._see([{"active": index} for index in (8, -1, 7)])
    assert env._moved.tolist() == [8, 6, 7]


@built
@pytest.mark.parametrize("who", ["ball_or_players", "ball", "never"])
def test_the_ball_or_an_attacker_behind_the_line_ends_the_episode(who):
    """One of three runs back while the ball stays for a while at 0.61."""
    env = GRFEnv(GRFSettings(end_behind_line=who, line_x=0.6))
    try:
        env.reset(seed=2)
        for _ in range(40):
            action = np.zeros(3, dtype=int)
            action[env._moved == 2] = LEFT
            *_, terminated, truncated, info = env.step(action)
            assert not truncated
            if terminated:
                break
            if who != "never":
                assert env._raw["ball"][0] >= 0.6
        assert terminated is (who != "never")
        ball, players = env._raw["ball"][0], env._raw["left_team"][-3:, 0]
        if who != "never":
            assert info == {"score_reward": 0.0, "win_rate": 0.0}
            assert bool(ball < 0.6) is (who == "ball")
        assert players.min() < 0.6
        assert env._raw["left_team"][0, 0] < 0  # the keeper is no attacker, nor is who is moved instead of one
    finally:
        env.close()


@built
def test_time_cuts_an_episode():
    env = GRFEnv(GRFSettings(time_limit=4))
    try:
        idle = episode(env, 2, np.zeros((150, 3), dtype=int))
        assert len(idle) == 5
        assert idle[-1][1:4] == (0.0, False, True)
        assert idle[-1][4] == {"score_reward": 0.0, "win_rate": 0.0}
    finally:
        env.close()


@pytest.mark.parametrize(
    ("name", "line"), [("academy_3_vs_2", 0.0), ("academy_corner", -0.1), ("5_vs_5", -0.15), ("academy_4_vs_3", 0.0)]
)
def test_lines_are_the_released_ones(name, line):
    assert known_scenario(name).line == line


@built
@pytest.mark.parametrize(
    ("settings", "goal", "total"),
    [
        ({}, 3, 3),
        ({"reward_aggregation": "mean"}, 1, 1),
        ({"rewards": "scoring,checkpoints"}, 3, 6),
        ({"rewards": "scoring,checkpoints", "reward_aggregation": "mean"}, 1, 2),
        ({"rewards": "outcome"}, 100, 100),
        ({"rewards": "outcome", "reward_aggregation": "mean"}, 100, 100),
    ],
)
def test_what_a_goal_pays(settings, goal, total):
    """Run at the goal and shoot from near: with this seed it goes in. Checkpoints pay as much as the goal again."""
    SHOT = 12
    env = GRFEnv(GRFSettings(**settings))
    try:
        env.reset(seed=20)
        paid, over = [], False
        while not over:
            near = env._raw["ball"][0] > 0.85
            _, reward, terminated, truncated, info = env.step(np.full(3, SHOT if near else RIGHT))
            paid.append(reward)
            over = terminated or truncated
        assert (terminated, truncated) == (True, False)
        assert info == {"score_reward": 1.0, "win_rate": 1.0}
        assert sum(paid) == pytest.approx(total, abs=1e-4)
        assert paid[-1] >= goal
    finally:
        env.close()


@built
@pytest.mark.parametrize("limit", [2, 150])
def test_cadps_reward_is_for_the_outcome_alone(limit):
    """The end without a goal costs 1, by the line or by the clock, and nothing else is paid."""
    env = GRFEnv(GRFSettings(rewards="outcome", line_x=0.6, time_limit=limit))
    try:
        play = episode(env, 2, np.full((150, 3), LEFT))
        assert play[-1][2:4] == (limit > 2, limit == 2)
        assert [step[1] for step in play] == [0.0] * (len(play) - 1) + [-1.0]
    finally:
        env.close()


@built
def test_a_picture_without_a_screen(env):
    env.reset(seed=1)
    picture = env.render()
    assert (picture.shape, picture.dtype) == ((300, 600, 3), np.uint8)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 4


@built
def test_an_engine_that_dies_costs_an_episode():
    env = WorkerVectorEnv(GRFEnv, GRFSettings(), 2, step_timeout_s=60)
    try:
        env.reset(seed=[1, 2])
        env._workers[0].process.kill()
        *_, truncated, infos = env.step(np.zeros((2, 3), dtype=int))
        assert truncated.tolist() == [True, False]
        assert infos[EPISODE_FAILED][0] == 1
        env.reset(seed=[3, None], options={"reset_mask": np.array([True, False])})
        *_, truncated, infos = env.step(np.zeros((2, 3), dtype=int))
        assert truncated.tolist() == [False, False]
    finally:
        env.close()


@built
@pytest.mark.parametrize("algorithm", ["qmix", "s2q", "ow_qmix", "qplex"])
def test_algorithms_train_on_football(algorithm, tmp_path):
    sizes = ["t_max=200", "batch_size_run=2", "batch_size=2", "test_nepisode=2", "rnn_hidden_dim=16", "seed=1"]
    logs = ["learner_log_interval=20", "runner_log_interval=20", "test_interval=100"]
    args = [f"--config={algorithm}", "--env-config=grf", "with", "env_args.map_name=academy_3_vs_2", *sizes, *logs]
    assert in_process(tmp_path, *args) == 0
    points = curves(tmp_path / "results" / "sacred" / "1")
    assert {"test_score_reward_mean", "test_win_rate", "loss_td"} <= points.keys()
    assert wait_until(lambda: not workers_of(os.getpid()), 10, "the workers' end")


def test_an_unknown_scenario_names_the_nearest():
    with pytest.raises(UserError, match="Unknown map_name 'academy_3_vs_4': did you mean 'academy_3_vs_2'"):
        GRFEnv(GRFSettings(map_name="academy_3_vs_4"))


def test_without_the_engine(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"Google Research Football .*: run ./install_grf.sh"):
        GRFEnv(GRFSettings())


@pytest.mark.parametrize("setting", [{"time_limit": 0}, {"line_x": 1.5}, {"line_x": float("inf")}])
def test_impossible_settings(setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        GRFSettings(**setting)


def test_the_old_setting_names_the_new_one():
    raw = files.load("envs", "grf", env="grf") | {"learner": "q_learner"}
    raw["env_args"] = raw["env_args"] | {"end_behind_half_line": None}  # as in checkpoints from then
    with pytest.raises(UserError, match=r"env_args\.end_behind_half_line.*env_args\.end_behind_line"):
        RunSettings(raw, ExperimentSettings)
