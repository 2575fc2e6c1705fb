"""The payoff game: its tables, its shift, and what it refuses."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from shoal.envs.matrix_game import MatrixGameEnv, MatrixGameSettings, MatrixGameVectorEnv
from shoal.runners.runner import ParallelRunner, ParallelRunnerSettings
from shoal.utils.errors import UserError
from support.team_env import in_this_process

BEFORE = [[8, 0, -12], [0, 7, 0], [-12, 0, 6]]
AFTER = [[7, 0, -12], [0, 6, 0], [-12, 0, 8]]


def one_episode(env, action, **options):
    env.reset(seed=0, options=options)
    return env.step(np.array(action))


def test_check_env():
    check_env(MatrixGameEnv(MatrixGameSettings()), skip_render_check=True)


def test_values_and_end():
    env = MatrixGameEnv(MatrixGameSettings())
    observation, _ = env.reset(seed=0)
    assert {k: v.shape for k, v in observation.items()} == {
        "obs": (2, 1),
        "state": (1,),
        "avail_actions": (2, 3),
    }
    assert all((v == 1).all() for v in observation.values())
    for i in range(3):
        for j in range(3):
            observation, reward, terminated, truncated, info = one_episode(env, (i, j))
            assert observation in env.observation_space
            assert reward == BEFORE[i][j]
            assert terminated
            assert not truncated
            assert info == {"optimal": float(i == j == 0)}


def test_shift_follows_the_runs_steps():
    env = MatrixGameEnv(MatrixGameSettings(payoff=BEFORE, payoff_after=AFTER, shift_at=10))
    assert [one_episode(env, (2, 2), t_env=t)[1] for t in (0, 9, 10, 10_000, 9)] == [6, 6, 8, 8, 6]
    assert one_episode(env, (2, 2), t_env=10)[4] == {"optimal": 1.0}
    assert one_episode(env, (0, 0), t_env=10)[4] == {"optimal": 0.0}


def test_shift_follows_its_own_steps_without_the_runs():
    env = MatrixGameEnv(MatrixGameSettings(payoff=BEFORE, payoff_after=AFTER, shift_at=3))
    assert [one_episode(env, (2, 2))[1] for _ in range(5)] == [6, 6, 6, 8, 8]


def test_repeated_game_for_three_agents():
    table = np.arange(8).reshape(2, 2, 2).tolist()
    env = MatrixGameEnv(MatrixGameSettings(payoff=table, time_limit=4))
    assert env.episode_limit == 4
    assert list(env.action_space.nvec) == [2, 2, 2]
    env.reset(seed=0)
    steps = [env.step(np.array(a)) for a in ((1, 1, 1), (0, 1, 0), (1, 1, 1), (1, 1, 1))]
    assert [s[1] for s in steps] == [7, 2, 7, 7]
    assert [s[2] for s in steps] == [False, False, False, True]
    assert [s[4] for s in steps] == [{}, {}, {}, {"optimal": 0.75}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"payoff": [[1, 2], [3]]}, "rows equally long"),
        ({"payoff": [[1, 2, 3], [4, 5, 6]]}, r"shape \(2, 3\)"),
        ({"payoff": []}, "shape"),
        ({"payoff": [["a", "b"], ["c", "d"]]}, "numbers"),
        ({"payoff": [[1, float("nan")], [0, 0]]}, "finite"),
        ({"payoff_after": AFTER}, "go together"),
        ({"shift_at": 5}, "go together"),
        ({"payoff_after": [[1, 2], [3, 4]], "shift_at": 5}, r"\(2, 2\).*\(3, 3\)"),
        ({"payoff_after": AFTER, "shift_at": -1}, "shift_at"),
        ({"time_limit": 0}, "time_limit"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(UserError, match=message):
        MatrixGameSettings(**settings)


# Many copies behind one step.

SHIFT = MatrixGameSettings(payoff=BEFORE, payoff_after=AFTER, shift_at=4, time_limit=3)


@pytest.mark.parametrize("tell_steps", [True, False])
def test_copies_are_paid_as_single_games_are(tell_steps):
    n, rng = 4, np.random.default_rng(0)
    together, apart = MatrixGameVectorEnv(SHIFT, n), in_this_process(MatrixGameEnv, SHIFT, n)
    mask, ended = np.ones(n, dtype=bool), 0
    for t in range(40):
        if mask.any():
            options = {"reset_mask": mask} | ({"t_env": t // 5} if tell_steps else {})
            for env in (together, apart):
                env.reset(seed=[0] * n, options=dict(options))
        actions = rng.integers(0, 3, (n, 2)) if t % 4 else np.zeros((n, 2), dtype=int)
        ours, theirs = together.step(actions), apart.step(actions)
        for key, value in theirs[0].items():
            np.testing.assert_array_equal(ours[0][key], value)
        for i in (1, 2, 3):
            np.testing.assert_array_equal(ours[i], theirs[i])
        assert ours[4].keys() == theirs[4].keys()
        for key, value in theirs[4].items():
            np.testing.assert_array_equal(ours[4][key], value)
        ended += ours[2].sum()
        mask = ours[2] & (rng.random(n) < 0.7)  # some wait at their end while others go on
    assert ended > 20


def test_copies_in_different_phases():
    env = MatrixGameVectorEnv(MatrixGameSettings(payoff=BEFORE, payoff_after=AFTER, shift_at=10), 3)
    env.reset(options={"t_env": 0})
    env.reset(options={"t_env": 10, "reset_mask": np.array([False, True, False])})
    _, reward, terminated, truncated, infos = env.step(np.array([[0, 0], [0, 0], [2, 2]]))
    assert reward.tolist() == [8, 7, 6]
    assert terminated.all()
    assert not truncated.any()
    assert infos["optimal"].tolist() == [1, 0, 0]
    assert env.step(np.zeros((3, 2), dtype=int))[1].tolist() == [0, 0, 0]  # waiting at their end


@pytest.mark.parametrize("mask", [[True], [1, 0, 1]])
def test_wrong_masks_are_refused(mask):
    with pytest.raises(ValueError, match="3 booleans"):
        MatrixGameVectorEnv(MatrixGameSettings(), 3).reset(options={"reset_mask": np.array(mask)})


def test_parallel_runner_needs_no_processes():
    runner = ParallelRunner(ParallelRunnerSettings(batch_size_run=5), MatrixGameEnv, SHIFT, seed=0)
    assert isinstance(runner.env, MatrixGameVectorEnv)
    assert (runner.n, runner.spec.episode_limit) == (5, 3)
