"""The one-step game of modes: what fixed policies are paid, seeds, and its copies."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from shoal.envs.team import corners
from shoal.envs.toy_modes import MODES, ToyModesEnv, ToyModesSettings, ToyModesVectorEnv, team_reward
from shoal.utils.errors import UserError

CONTEXTS = np.arange(4)


@pytest.mark.parametrize("mode", [None, "continuous", "bang_bang"])
def test_check_env(mode):
    env = ToyModesEnv(ToyModesSettings(action_mode=mode))
    check_env(env, skip_render_check=True)
    assert isinstance(env.action_space, spaces.MultiDiscrete) == (mode == "bang_bang")


def test_what_fixed_policies_are_paid():
    """Numbers computed independently of this code."""
    best = np.moveaxis(MODES, 0, 1)
    np.testing.assert_allclose(team_reward(CONTEXTS, best), 1.0)
    np.testing.assert_allclose(team_reward(CONTEXTS, -best), 0.5)
    assert team_reward(CONTEXTS, np.zeros((4, 2, 2))).mean() == pytest.approx(0.187, abs=5e-4)
    uniform = np.random.default_rng(0).uniform(-1, 1, (100_000, 4, 2, 2))
    assert team_reward(CONTEXTS, uniform).mean() == pytest.approx(0.189, abs=2e-3)
    pairs = corners(2)[np.indices((4, 4)).reshape(2, -1).T]  # [16, N, d]
    paid = np.stack([team_reward(np.full(16, context), pairs) for context in CONTEXTS])
    assert paid.max(1).mean() == pytest.approx(0.0146, abs=5e-5)
    agents = np.array([[0.0164, 0.0556, 0.0164, 0.0117], [0.0071, 0.0007, 0.0046, 0.0046]])
    np.testing.assert_allclose(paid.max(1), agents.mean(0), atol=1e-4)


def test_the_context_is_its_seed_and_every_copy_has_its_own():
    one = ToyModesEnv(ToyModesSettings())
    drawn = [int(one.reset(seed=seed)[0]["state"].argmax()) for seed in range(200)]
    assert drawn == [int(one.reset(seed=seed)[0]["state"].argmax()) for seed in range(200)]
    assert min(np.bincount(drawn, minlength=4)) > 30
    copies = ToyModesVectorEnv(ToyModesSettings(), 200)
    seen, _ = copies.reset(seed=list(range(200)))
    assert min(np.bincount(seen["state"].argmax(1), minlength=4)) > 30
    np.testing.assert_array_equal(seen["obs"], np.stack([seen["state"]] * 2, axis=1))
    np.testing.assert_array_equal(copies.reset(seed=0)[0]["state"], seen["state"])


def test_an_episode_is_one_step_and_pays_once():
    copies = ToyModesVectorEnv(ToyModesSettings(), 3)
    seen, _ = copies.reset(seed=[5, 6, 7])
    best = np.moveaxis(MODES, 0, 1)[seen["state"].argmax(1)]
    _, rewards, terminated, truncated, _ = copies.step(best)
    np.testing.assert_allclose(rewards, 1.0)
    assert terminated.all()
    assert not truncated.any()
    np.testing.assert_array_equal(copies.step(best)[1], 0.0)
    again = copies.reset(seed=[None, 8, None], options={"reset_mask": np.array([False, True, False])})[0]
    np.testing.assert_array_equal(again["state"][[0, 2]], seen["state"][[0, 2]])
    assert (copies.step(best)[1] > 0).tolist() == [False, True, False]


def test_corners_are_paid_as_their_vectors():
    free, bound = (ToyModesVectorEnv(ToyModesSettings(mode, 3), 50) for mode in ("continuous", "bang_bang"))
    free.reset(seed=0)
    bound.reset(seed=0)
    actions = np.random.default_rng(1).integers(9, size=(50, 2))
    np.testing.assert_array_equal(bound.step(actions)[1], free.step(corners(2, 3)[actions])[1])
    # What lies outside the box is worth no more than its edge.
    free.reset(seed=0)
    beyond = free.step(np.full((50, 2, 2), 3.0))[1]
    free.reset(seed=0)
    np.testing.assert_array_equal(beyond, free.step(np.ones((50, 2, 2)))[1])


def test_its_actions_are_continuous():
    with pytest.raises(UserError, match="action_mode=discrete does not fit env=toy_modes"):
        ToyModesEnv(ToyModesSettings(action_mode="discrete"))
