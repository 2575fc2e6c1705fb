"""SMAX: the compiled vector environment and its single copy."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import nn

from shoal.components.batch import PackedSteps, transition_mask
from shoal.envs.smax import COOLDOWN, MAPS, N_MOVES, SmaxEnv, SmaxSettings
from shoal.learners.value_learner import chosen
from shoal.runners.runner import ParallelRunner, ParallelRunnerSettings
from shoal.utils.errors import UserError

pytest.importorskip("jaxmarl", reason="SMAX needs jaxmarl")

OWN_FEATURES = 10  # the last ones of an observation: health, x, y, cooldown, six bits of the type
NORTH, EAST, SOUTH, WEST, STOP = range(N_MOVES)


def random_actions(rng, observation):
    """Uniform over the available actions: [..., N, A] -> [..., N]."""
    available = observation["avail_actions"]
    return np.argmax(available * rng.uniform(0.1, 1.0, available.shape), axis=-1)


def attack(observation):
    """Shoot at the first enemy in range, else walk east, where the enemy comes from."""
    shots = observation["avail_actions"][..., N_MOVES:]
    walk_or_stop = np.where(observation["avail_actions"][..., EAST], EAST, STOP)
    return np.where(shots.any(-1), N_MOVES + shots.argmax(-1), walk_or_stop)


def play(env, policy, seeds, steps):
    """The steps of a vector episode; each is (obs dict, reward, terminated, truncated, infos)."""
    observation, _ = env.reset(seed=seeds)
    trajectory = [(observation, None, None, None, {})]
    for _ in range(steps):
        trajectory.append(env.step(policy(trajectory[-1][0])))
    return trajectory


@pytest.fixture(scope="module")
def env4():
    return SmaxEnv.make_vector(SmaxSettings(), 4)


def test_import_needs_no_jax_and_building_prints_nothing():
    code = (
        "import sys, io, shoal.envs.smax as s; assert not {'jax', 'torch'} & set(sys.modules);"
        "mine = sys.stdout = io.StringIO(); s.SmaxSettings(); s.SmaxEnv(s.SmaxSettings());"
        "assert sys.stdout is mine and mine.getvalue() == '', mine.getvalue()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_missing_jaxmarl_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    with pytest.raises(UserError, match=r"'jaxmarl', which is not installed: run pip install .*\[smax\]"):
        SmaxEnv(SmaxSettings(time_limit=99))  # settings that no other test has cached


def test_check_env():
    check_env(SmaxEnv(SmaxSettings()), skip_render_check=True)


def test_known_maps_are_jaxmarls():
    from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO

    assert set(MAPS) == set(MAP_NAME_TO_SCENARIO)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"map_name": "2s3Z"}, "did you mean '2s3z'.*smacv2_20_units"),
        ({"time_limit": 0}, "time_limit"),
        ({"sight_range": 0.0}, "sight_range"),
        ({"attack_mode": "weakest"}, "closest, random"),
        ({"observation_type": "image"}, "unit_list, conic"),
        ({"time_per_step": 0.0}, "time_per_step"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(UserError, match=message):
        SmaxSettings(**settings)


def test_vector_api(env4):
    assert env4.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert env4.episode_limit == 100
    observation, infos = env4.reset(seed=0)
    assert infos == {}
    assert observation in env4.observation_space
    observation, reward, terminated, truncated, infos = env4.step(np.full((4, 3), STOP))
    assert observation in env4.observation_space
    assert reward.shape == terminated.shape == truncated.shape == (4,)
    assert terminated.dtype == truncated.dtype == np.bool_
    assert infos == {}
    observation["obs"][:] = 0  # the caller's own memory
    assert env4.step(np.full((4, 3), STOP))[0]["obs"].any()


def test_kinds_of_action(env4):
    """The same alone and side by side."""
    assert env4.action_classes == {"move": [NORTH, EAST, SOUTH, WEST], "stop": [STOP], "attack": [5, 6, 7]}
    assert SmaxEnv(SmaxSettings()).action_classes == env4.action_classes
    assert env4.single_action_space.nvec.tolist() == [8] * 3


@pytest.mark.parametrize("observation_type", ["unit_list", "conic"])
def test_every_entry_has_a_name(observation_type):
    env = SmaxEnv.make_vector(SmaxSettings(observation_type=observation_type), 1)
    observation, _ = env.reset(seed=0)
    for key in ("obs", "state"):
        assert len(env.entry_names[key]) == len(set(env.entry_names[key])) == observation[key].shape[-1]
    named = dict(zip(env.entry_names["state"], observation["state"][0].tolist(), strict=True))
    assert named["enemy_2 health"] == named["enemy_2 team"] == named["ally_0 unit_type_bit_0"] == 1
    assert named["ally_1 team"] == named["ally_1 weapon_cooldown"] == 0
    assert named["ally_0 position_x"] < 12 < 20 < named["enemy_0 position_x"]
    assert dict(zip(env.entry_names["obs"], observation["obs"][0, 0].tolist(), strict=True))["own health"] == 1


def test_vector_refuses_wrong_shapes(env4):
    with pytest.raises(RuntimeError, match="reset"):
        SmaxEnv.make_vector(SmaxSettings(), 4).step(np.zeros((4, 3), int))
    env4.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        env4.step(np.zeros((3, 4), int))
    with pytest.raises(ValueError, match="seeds"):
        env4.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="reset_mask"):
        env4.reset(options={"reset_mask": np.ones(3, dtype=bool)})
    with pytest.raises(ValueError, match="first reset"):
        SmaxEnv.make_vector(SmaxSettings(), 4).reset(options={"reset_mask": np.array([True, False, True, True])})


def test_same_seed_and_actions_same_episode_and_nothing_recompiles(env4):
    def policy(seed):
        rng = np.random.default_rng(seed)
        return lambda observation: random_actions(rng, observation)

    first, again = (play(env4, policy(0), [5, 6, 7, 8], 30) for _ in range(2))
    for (obs_a, *rest_a), (obs_b, *rest_b) in zip(first[1:], again[1:], strict=True):
        for key in obs_a:
            np.testing.assert_array_equal(obs_a[key], obs_b[key])
        for a, b in zip(rest_a[:3], rest_b[:3], strict=True):
            np.testing.assert_array_equal(a, b)
    other = play(env4, policy(0), [15, 16, 17, 18], 1)
    assert not np.array_equal(first[0][0]["state"], other[0][0]["state"])
    assert len({state.tobytes() for state in first[0][0]["state"]}) == 4  # each copy its own battle
    assert env4.compiled.step._cache_size() == env4.compiled.reset._cache_size() == 1


def test_t_env_is_ignored_and_unseeded_resets_differ(env4):
    a, _ = env4.reset(seed=3, options={"t_env": 1})
    b, _ = env4.reset(seed=3, options={"t_env": 10_000})
    c, _ = env4.reset()
    np.testing.assert_array_equal(a["obs"], b["obs"])
    assert not np.array_equal(b["obs"], c["obs"])


def test_single_env_plays_the_vector_envs_episode(env4):
    single = SmaxEnv(SmaxSettings())
    vector = play(env4, attack, [0, 1, 2, 3], 60)
    for copy in (0, 3):
        observation, _ = single.reset(seed=copy)
        over = False
        for t, (batch, reward, terminated, truncated, infos) in enumerate(vector[1:]):
            if over:
                break
            observation, r, term, trunc, info = single.step(attack(observation))
            for key in observation:
                np.testing.assert_allclose(observation[key], batch[key][copy], atol=1e-4, err_msg=f"{key} at {t}")
            assert r == pytest.approx(reward[copy], abs=1e-5)
            assert (term, trunc) == (terminated[copy], truncated[copy])
            over = term or trunc
            assert info == ({k: infos[k][copy] for k in ("battle_won", "dead_allies", "dead_enemies")} if over else {})
        assert over


def test_reset_mask_leaves_the_others(env4):
    before = play(env4, attack, [0, 1, 2, 3], 10)[-1][0]
    mask = np.array([False, True, False, True])
    after, _ = env4.reset(seed=[None, 11, None, 13], options={"reset_mask": mask})
    fresh = SmaxEnv.make_vector(SmaxSettings(), 4).reset(seed=[10, 11, 12, 13])[0]
    for key in before:
        np.testing.assert_array_equal(after[key][~mask], before[key][~mask])
        np.testing.assert_array_equal(after[key][mask], fresh[key][mask])
    # ... and the untouched go on as if nothing had happened: randomness included.
    whole = play(env4, attack, [0, 1, 2, 3], 20)[-1][0]
    play(env4, attack, [0, 1, 2, 3], 10)
    observation, _ = env4.reset(seed=[None, 11, None, 13], options={"reset_mask": mask})
    for _ in range(10):
        observation = env4.step(attack(observation))[0]
    np.testing.assert_array_equal(observation["state"][~mask], whole["state"][~mask])


def test_win_is_terminated_loss_too_and_the_end_freezes(env4):
    trajectory = play(env4, attack, [0, 1, 2, 3], 99)
    ends = []
    for t, (_, _, terminated, truncated, infos) in enumerate(trajectory[1:], start=1):
        for copy in np.flatnonzero(infos.get("_battle_won", np.zeros(4, bool))):
            ends.append(copy)
            won, allies, enemies = (infos[k][copy] for k in ("battle_won", "dead_allies", "dead_enemies"))
            assert terminated[copy]
            assert not truncated[copy]
            assert won == (enemies == 3 and allies < 3)
            assert (enemies == 3) or (allies == 3)
            total = sum(step[1][copy] for step in trajectory[1:])
            assert (total > 1.0) == bool(won)  # damage is worth at most 1, the win another 1
            assert total == pytest.approx(2.0, abs=1e-4) if won else total < 1.0
            last = trajectory[t][0]
            for later, reward, still_terminated, still_truncated, _ in trajectory[t + 1 :]:
                assert reward[copy] == 0.0
                assert still_terminated[copy]
                assert not still_truncated[copy]
                for key in last:
                    np.testing.assert_array_equal(later[key][copy], last[key][copy])
    assert sorted(ends) == [0, 1, 2, 3]  # each exactly once
    wins = sum(step[4]["battle_won"].sum() for step in trajectory[1:] if "battle_won" in step[4])
    assert wins >= 1


def test_standing_still_loses():
    env = SmaxEnv(SmaxSettings())
    env.reset(seed=0)
    terminated = truncated = False
    alive = np.ones(3, dtype=np.int8)
    while not (terminated or truncated):
        observation, _, terminated, truncated, info = env.step(np.full(3, STOP))
        assert (observation["alive"] <= alive).all()
        alive = observation["alive"]
        dead = alive == 0
        # A dead unit sees nothing and can only stop; a living one can always move.
        assert not observation["obs"][dead].any()
        np.testing.assert_array_equal(observation["avail_actions"][dead].sum(-1), 1)
        assert observation["avail_actions"][dead, STOP].all()
        assert observation["avail_actions"][~dead, :N_MOVES].all()
    assert terminated
    assert not truncated
    assert info == {"battle_won": 0, "dead_allies": 3, "dead_enemies": info["dead_enemies"]}
    assert info["dead_enemies"] < 3


class WestUntilDead(nn.Module):
    """Walks into the wall; the dead stop, which is all that they can."""

    extra_fields = {}  # noqa: RUF012
    reads_state = False

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def initial_state(self, batch_size):
        return TensorDict({}, batch_size=[batch_size])

    def select_actions(self, step, state, t_env, test_mode=False):
        actions = torch.where(step["avail_actions"][..., WEST], WEST, STOP)
        return TensorDict({"actions": actions}, batch_size=step.batch_size), state


def test_the_actions_of_the_dead_are_in_no_share():
    runner = ParallelRunner(ParallelRunnerSettings(batch_size_run=4), SmaxEnv, SmaxSettings(), seed=0)
    rollout = runner.run(WestUntilDead(), 0)
    acted = transition_mask(rollout.batch).bool()
    assert (~rollout.batch["alive"][:, :-1][acted]).any()  # some acted on after one of theirs had died
    assert rollout.stats["action_move"] == [1.0] * 4
    assert rollout.stats["action_stop"] == rollout.stats["action_attack"] == [0.0] * 4


class Flee(WestUntilDead):
    """Walks away from the enemy, into the west of the map, and stays there."""

    def select_actions(self, step, state, t_env, test_mode=False):
        x = step["obs"][..., 1 - OWN_FEATURES]  # in map widths
        actions = torch.where((x > 0.15) & step["avail_actions"][..., WEST], WEST, STOP)
        return TensorDict({"actions": actions}, batch_size=step.batch_size), state


def fleeing_episode(**settings):
    """One in which nobody shoots or dies, so that it lasts for all of its 100 steps; and the sizes of its game."""
    settings = SmaxSettings(enemy_shoots=False, walls_cause_death=False, reward_scale=10, **settings)
    runner = ParallelRunner(ParallelRunnerSettings(batch_size_run=2), SmaxEnv, settings, seed=0)
    rollout = runner.run(Flee(), 0)
    assert rollout.stats["ep_length"] == [100.0] * 2
    return runner.spec, rollout.batch


def fresh_q_tot(make_learner, spec, batch):
    """Values that freshly initialised QMIX networks give to the episode: [B, T+1]."""
    learner = make_learner(spec, learner="q_learner", rnn_hidden_dim=64)
    steps = PackedSteps.of(batch)
    with torch.no_grad():
        values, _ = learner.controller.unroll_packed(batch, steps)
        taken = chosen(values, steps.pack(batch["actions"]))
        return steps.unpack(learner.mixer(taken, steps.pack(batch["state"])))[0]


SOME_MAPS = ("2s3z", "3m")
ALL_MAPS = [*SOME_MAPS, *(pytest.param(name, marks=pytest.mark.slow) for name in MAPS if name not in SOME_MAPS)]


@pytest.mark.parametrize("map_name", ALL_MAPS)
def test_a_fresh_mixer_values_a_fleeing_team_within_what_returns_can_be(map_name, make_learner):
    """With JaxMARL's cooldowns, which fall while nobody shoots, its values grow with time to ten times what can be."""
    spec, batch = fleeing_episode(map_name=map_name, scale_state=True)
    assert batch["state"].abs().max() <= 2  # a cooldown's seconds; all else is within [0, 1]
    assert batch["obs"].abs().max() <= 1.1
    for seed in range(3):
        torch.manual_seed(seed)
        q_tot = fresh_q_tot(make_learner, spec, batch)
        assert q_tot.abs().max() < 10  # the largest return is 20
        assert q_tot[:, 50:].mean() == pytest.approx(q_tot[:, :50].mean(), abs=2)


def test_an_unscaled_state_is_jaxmarls_own(make_learner):
    spec, batch = fleeing_episode(map_name="2s3z", scale_state=False)
    rows = batch["state"][:, :, : 10 * OWN_FEATURES].unflatten(-1, (10, OWN_FEATURES))
    assert rows[:, 90, :, COOLDOWN].max() < -40  # seconds since the weapon was ready
    assert rows[..., 1:3].max() > 20  # map units
    assert fresh_q_tot(make_learner, spec, batch).abs().max() > 40


def test_time_limit_is_truncated():
    env = SmaxEnv(SmaxSettings(time_limit=3))
    assert env.episode_limit == 3
    env.reset(seed=0)
    flags = [env.step(np.full(3, STOP))[2:] for _ in range(3)]
    assert flags[0] == flags[1] == (False, False, {})
    assert flags[2] == (False, True, {"battle_won": 0, "dead_allies": 0, "dead_enemies": 0})


@pytest.mark.slow
def test_settings_take_effect():
    """Each setting changes the first steps of the same battle (reward, observation or outcome)."""

    def fingerprint(**kwargs):
        env = SmaxEnv(SmaxSettings(**kwargs))
        observation, _ = env.reset(seed=2)  # a battle that `attack` wins
        obs, rewards = [observation["obs"]], []
        terminated = truncated = False
        while not (terminated or truncated):
            observation, reward, terminated, truncated, _ = env.step(attack(observation))
            obs.append(observation["obs"])
            rewards.append(reward)
        return np.concatenate([o.reshape(-1) for o in obs]), np.array(rewards)

    base_obs, base_rewards = fingerprint()
    obs, _ = fingerprint(sight_range=2.0)
    assert np.count_nonzero(obs) / obs.size < np.count_nonzero(base_obs) / base_obs.size
    assert not np.array_equal(fingerprint(see_enemy_actions=False)[0], base_obs)
    assert fingerprint(won_battle_bonus=5.0)[1].sum() == pytest.approx(base_rewards.sum() + 4.0)
    assert np.count_nonzero(fingerprint(use_self_play_reward=True)[1]) == 1
    assert len(fingerprint(world_steps_per_env_step=4)[1]) > len(base_rewards)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kwargs",
    [
        {"attack_mode": "random"},
        {"enemy_shoots": False},
        {"time_per_step": 1.0 / 32},
        {"map_width": 24},
        {"map_height": 24},
    ],
)
def test_more_settings_take_effect(kwargs):
    def states(settings):
        env = SmaxEnv.make_vector(settings, 4)
        return np.stack([step[0]["state"] for step in play(env, attack, [0, 1, 2, 3], 40)])

    assert not np.array_equal(states(SmaxSettings(**kwargs)), states(SmaxSettings()))


@pytest.mark.slow
def test_walls_kill_or_not():
    for walls_cause_death, deaths in ((True, 3), (False, 0)):
        env = SmaxEnv(SmaxSettings(walls_cause_death=walls_cause_death, enemy_shoots=False, time_limit=15))
        env.reset(seed=0)
        for _ in range(15):
            _, _, terminated, truncated, info = env.step(np.full(3, WEST))
            if terminated or truncated:
                break
        assert info["dead_allies"] == deaths
        assert terminated == walls_cause_death


@pytest.mark.slow
@pytest.mark.parametrize(("map_name", "observation_type"), [*((name, "unit_list") for name in MAPS), ("3m", "conic")])
def test_all_scenarios(map_name, observation_type):
    env = SmaxEnv.make_vector(SmaxSettings(map_name=map_name, observation_type=observation_type), 2)
    rng = np.random.default_rng(0)
    for observation, reward, *_ in play(env, lambda o: random_actions(rng, o), 0, 5)[1:]:
        assert observation in env.observation_space
        assert observation["avail_actions"].any(-1).all()
        assert np.isfinite(observation["obs"]).all()
        assert np.isfinite(observation["state"]).all()
        assert np.isfinite(reward).all()
