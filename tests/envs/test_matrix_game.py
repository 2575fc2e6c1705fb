"""The payoff game: its tables, its shift, and what it refuses."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from shoal.envs.matrix_game import MatrixGameEnv, MatrixGameSettings
from shoal.utils.errors import UserError

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
    env = MatrixGameEnv(MatrixGameSettings(payoff=table, episode_limit=4))
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
        ({"episode_limit": 0}, "episode_limit"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(UserError, match=message):
        MatrixGameSettings(**settings)
