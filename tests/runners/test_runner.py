"""Collecting episodes: what is stored, what is left out, what is replaced."""

import math
import os
import re

import numpy as np
import pytest
import torch

from shoal.components.batch import episode_lengths, transition_mask
from shoal.components.replay import ReplayBuffer, ReplaySettings
from shoal.config.settings import RunSettings
from shoal.envs.team import EPISODE_FAILED
from shoal.experiment import ExperimentSettings, summary
from shoal.runners.runner import EpisodeRunner, ParallelRunner, ParallelRunnerSettings, Runner, RunnerSettings
from shoal.runners.supervised import EnvironmentsFailedError
from shoal.utils.errors import NonFiniteError, UserError
from support.launch import workers_of
from support.reflex import Reflex
from support.team_env import (
    FAILED_REWARD,
    NamedTeamEnv,
    SortedTeamEnv,
    TeamEnv,
    TeamEnvSettings,
    VectorisedTeamEnv,
    in_this_process,
    is_unlucky,
)

ALL = TeamEnvSettings(fail_share=1.0)


class SideBySide(Runner):
    """Four copies, all in this process."""

    n_copies = 4

    def make_env(self, env_class, env_settings):
        return in_this_process(env_class, env_settings, self.n_copies)


class Pair(SideBySide):
    """Two copies."""

    n_copies = 2


def runner_of(kind=SideBySide, settings=None, env_settings=None, seed=3):
    return kind(settings or RunnerSettings(), TeamEnv, env_settings or TeamEnvSettings(), seed)


class BoxedTeamEnv(TeamEnv):
    """Its last info holds arrays and tensors of no dimension."""

    def _extra(self):
        return {"battle_won": np.array(self._seed % 2 == 0), "left": torch.tensor(2.0), "table": np.zeros(3)}


def test_a_number_in_an_array_of_no_dimension_is_recorded():
    runner = Pair(RunnerSettings(), BoxedTeamEnv, TeamEnvSettings(), 3)
    stats = runner.run(Reflex(), 0).stats
    assert stats["battle_won"] == [1.0 - seed % 2 for seed in stats["seed"]]
    assert stats["left"] == [2.0, 2.0]
    assert "table" not in stats


@pytest.mark.parametrize(
    "attribute",
    [None, ["a"], "names", 3, {"state": None}, {"state": 5}, {"state": "abcde"}, {"state": [1] * 5}, {"items": ["a"]}],
)
def test_another_thing_of_the_name_entry_names_is_left_alone(attribute):
    kind = type("Other", (TeamEnv,), {"entry_names": attribute})
    assert Pair(RunnerSettings(), kind, TeamEnvSettings(), 3).entry_names == {}


def test_names_are_as_many_as_entries():
    kind = type("Short", (TeamEnv,), {"entry_names": {"state": ["a", "b"]}})
    with pytest.raises(UserError, match="'state' has 5 entries and 2 names"):
        Pair(RunnerSettings(), kind, TeamEnvSettings(), 3)


def replay(seed, actions, env_settings=None):
    """The episode of ``seed`` under the recorded actions, stepped by hand."""
    env = TeamEnv(env_settings or TeamEnvSettings())
    observation, _ = env.reset(seed=seed)
    rows = [{**observation}]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        rows[-1] |= {"reward": reward, "terminated": terminated, "truncated": truncated}
        rows.append({**observation})
        if terminated or truncated:
            return rows, info
    raise AssertionError("the recorded actions end before the episode does")


def assert_holds_what_happened(batch, stats, env_settings=None, time_limit_ends=False):
    lengths = episode_lengths(batch).tolist()
    assert len(set(stats["seed"])) == len(lengths)
    for b, length in enumerate(lengths):
        actions = batch["actions"][b].numpy()
        rows, info = replay(int(stats["seed"][b]), actions, env_settings)
        assert len(rows) - 1 == length == stats["ep_length"][b]
        assert stats["score"][b] == info["score"]
        assert stats["return"][b] == pytest.approx(sum(row["reward"] for row in rows[:-1]), abs=1e-5)
        for t, row in enumerate(rows):
            assert batch["filled"][b, t]
            for key in set(row) & {"obs", "state", "avail_actions"}:
                np.testing.assert_array_equal(batch[key][b, t].numpy(), row[key])
            if t < length:
                assert batch["reward"][b, t].item() == pytest.approx(row["reward"], abs=1e-6)
                ends = row["terminated"] or (time_limit_ends and row["truncated"])
                assert batch["terminated"][b, t].item() == ends
        assert batch["reward"][b, length:].eq(0).all()
        assert not batch["terminated"][b, length:].any()
        for value in batch.values():
            assert value[b, length + 1 :].eq(0).all()


def test_a_batch_holds_exactly_what_happened():
    runner = runner_of()
    ends, lengths = set(), set()
    for _ in range(3):
        rollout = runner.run(Reflex(), 0)
        assert_holds_what_happened(rollout.batch, rollout.stats)
        assert rollout.env_steps == transition_mask(rollout.batch).sum() == sum(rollout.stats["ep_length"])
        ends |= set(rollout.batch["terminated"].flatten(1).any(1).tolist())
        lengths |= set(rollout.stats["ep_length"])
    assert ends == {True, False}  # both true ends and time limits were among them
    assert len(lengths) > 2


def test_time_limits_become_true_ends_only_where_asked():
    runner = runner_of(settings=RunnerSettings(time_limit_is_terminal=True))
    for _ in range(3):
        rollout = runner.run(Reflex(), 0)
        assert_holds_what_happened(rollout.batch, rollout.stats, time_limit_ends=True)
        assert rollout.batch["terminated"].sum((1, 2)).tolist() == [1] * 4


def test_the_batch_is_cut_to_the_longest_episode():
    rollout = runner_of().run(Reflex(), 0)
    assert rollout.batch.batch_size == (4, max(rollout.stats["ep_length"]) + 1)


def test_only_live_environments_go_through_the_network():
    controller = Reflex()
    rollout = runner_of().run(controller, 0)
    lengths = np.array(rollout.stats["ep_length"])
    assert controller.rows == [int((lengths > t).sum()) for t in range(int(lengths.max()))]
    assert controller.rows[-1] < 4
    for t, seen in enumerate(controller.seen):
        live = torch.as_tensor(lengths > t)
        assert seen["obs"].equal(rollout.batch["obs"][live, t])
        assert seen["avail_actions"].equal(rollout.batch["avail_actions"][live, t])


def test_the_controller_is_told_step_and_mode():
    controller = Reflex()
    runner = runner_of()
    runner.run(controller, 17)
    runner.run(controller, 23, test_mode=True)
    assert set(zip(controller.t_env, controller.modes, strict=True)) == {(17, False), (23, True)}


def test_one_copy_and_many_collect_the_same_episodes():
    many = runner_of().run(Reflex(), 0)
    one = runner_of(EpisodeRunner)
    for b in range(4):
        alone = one.run(Reflex(), 0)
        assert {key: values[0] for key, values in alone.stats.items()} == {
            key: values[b] for key, values in many.stats.items()
        }
        rows = alone.batch.shape[1]
        assert all(value[0].equal(many.batch[key][b, :rows]) for key, value in alone.batch.items())


def test_tests_have_seeds_of_their_own():
    def seeds(tests_between):
        runner = runner_of()
        found = []
        for _ in range(3):
            found += runner.run(Reflex(), 0).stats["seed"]
            for _ in range(tests_between):
                tested = runner.run(Reflex(), 0, test_mode=True).stats["seed"]
                assert not set(tested) & set(found)
        return found

    assert seeds(0) == seeds(2)
    assert len(set(seeds(0))) == 12


def test_another_run_seed_gives_other_episodes():
    first, second = (runner_of(seed=s).run(Reflex(), 0).stats["seed"] for s in (3, 4))
    assert not set(first) & set(second)


def test_the_state_of_a_runner_continues_its_episodes():
    runner, other = runner_of(), runner_of()
    runner.run(Reflex(), 0)
    runner.run(Reflex(), 0, test_mode=True)
    other.load_state_dict(runner.state_dict())
    for test_mode in (False, True):
        ours = runner.run(Reflex(), 0, test_mode).stats["seed"]
        assert ours == other.run(Reflex(), 0, test_mode).stats["seed"]


def test_failed_episodes_are_dropped_replaced_and_counted():
    settings = TeamEnvSettings(fail_share=0.4)
    runner = runner_of(settings=RunnerSettings(max_env_restarts=100), env_settings=settings)
    restarts = 0
    for _ in range(4):
        rollout = runner.run(Reflex(), 0)
        assert rollout.batch.shape[0] == 4
        assert EPISODE_FAILED not in rollout.stats
        assert all(len(values) == 4 for values in rollout.stats.values())
        assert max(rollout.stats["return"]) < FAILED_REWARD / 2
        assert rollout.batch["reward"].max() < FAILED_REWARD / 2
        assert_holds_what_happened(rollout.batch, rollout.stats, settings)
        assert rollout.env_steps == sum(rollout.stats["ep_length"])
        restarts += rollout.env_restarts
    assert restarts > 0
    assert runner.state_dict()["train"] == 16 + restarts  # every failure cost one more seed


class OnceGood(TeamEnv):
    """Every episode but the first fails."""

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed, options=options)
        self._fails = hasattr(self, "good_before")
        self.good_before = True
        return result


@pytest.mark.parametrize("most", [1, 3])
def test_gives_up_on_an_environment_that_fails_again_and_again(most):
    runner = EpisodeRunner(RunnerSettings(max_env_restarts=most), OnceGood, TeamEnvSettings(), 3)
    runner.run(Reflex(), 0)
    with pytest.raises(UserError, match=f"failed {most} times.*doctor"):
        runner.run(Reflex(), 0)
    assert runner.state_dict()["train"] == 1 + most


@pytest.mark.parametrize("kind", [EpisodeRunner, SideBySide])
def test_what_never_begins_an_episode_is_tried_twice(kind):
    runner = runner_of(kind, RunnerSettings(), ALL)
    with pytest.raises(UserError, match=r"could not begin an episode, 2 times.*doctor"):
        runner.run(Reflex(), 0)
    assert runner.state_dict()["train"] == 2 * runner.n


def test_copies_that_fail_once_each_are_not_one_that_fails_many_times():
    class FirstFour(TeamEnv):
        """Fails in every copy's first episode only."""

        def reset(self, *, seed=None, options=None):
            result = super().reset(seed=seed, options=options)
            self._fails = not getattr(self, "failed_before", False)
            self.failed_before = True
            return result

    runner = SideBySide(RunnerSettings(max_env_restarts=3), FirstFour, TeamEnvSettings(), 3)
    rollout = runner.run(Reflex(), 0)
    assert rollout.env_restarts == 4
    assert_holds_what_happened(rollout.batch, rollout.stats)


@pytest.mark.parametrize("late", [False, True])
def test_a_mistake_that_shows_late_is_worth_a_checkpoint_and_one_at_once_is_not(late):
    class Mistaken(TeamEnv):
        played = 0

        def step(self, action):
            Mistaken.played += 1
            observation, reward, *rest = super().step(action)
            return observation, None if Mistaken.played > 20 * late else reward, *rest

    runner = EpisodeRunner(RunnerSettings(), Mistaken, TeamEnvSettings(), 3)
    with pytest.raises(UserError, match="the reward is None") as end:
        [runner.run(Reflex(), 0) for _ in range(30)]
    assert isinstance(end.value, EnvironmentsFailedError) == late


def test_without_an_action_nobody_plays_on_even_where_no_guard_stands():
    class Idle(VectorisedTeamEnv):
        @classmethod
        def make_vector(cls, settings, num_envs):
            env = in_this_process(TeamEnv, settings, num_envs)
            start = env.reset

            def reset(**kwargs):
                observation, info = start(**kwargs)
                observation["avail_actions"][1, 0] = 0
                return observation, info

            env.reset = reset
            return env

    runner = ParallelRunner(ParallelRunnerSettings(batch_size_run=2), Idle, TeamEnvSettings(), 3)
    with pytest.raises(UserError, match="agent 0 has no available action"):
        runner.run(Reflex(), 0)


def test_an_environment_that_goes_on_after_its_limit_is_an_error():
    runner = runner_of(EpisodeRunner, env_settings=TeamEnvSettings(overrun=True, episode_limit=3))
    with pytest.raises(UserError, match=r"Training episode 1 .*seed.*episode_limit of 3"):
        runner.run(Reflex(), 0)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("kind", [EpisodeRunner, SideBySide])
@pytest.mark.parametrize("test_mode", [False, True])
@pytest.mark.parametrize(
    ("wrong", "value", "words"),
    [
        ("obs", NAN, "the observation of agent 1 after step {} is nan (entry 2)"),
        ("obs", -INF, "the observation of agent 1 after step {} is -inf (entry 2)"),
        ("state", INF, "the state after step {} is inf (entry 4)"),
        ("reward", NAN, "the reward of step {} is nan"),
        ("reward", 1e300, "the reward of step {} is 1e+300, more than float32 holds"),
    ],
)
def test_the_first_number_that_is_not_finite_ends_the_run_in_a_sentence(kind, test_mode, wrong, value, words):
    runner = runner_of(kind, env_settings=TeamEnvSettings(wrong=wrong, wrong_value=value))
    with pytest.raises(NonFiniteError, match="drop_nonfinite_episodes") as end:
        runner.run(Reflex(), 0, test_mode)
    found = re.match(r"In (test|training) episode (\d+) \(copy (\d), seed (\d+)\) (.*): correct", str(end.value))
    assert found is not None
    assert found[1] == ("test" if test_mode else "training")
    assert int(found[2]) == int(found[3]) + 1
    env = TeamEnv(TeamEnvSettings())
    env.reset(seed=int(found[4]))
    assert found[5] == words.format(env._length)


def test_an_observation_that_is_not_finite_at_the_start_is_said_to_be_so():
    class Spoilt(TeamEnv):
        def reset(self, **kwargs):
            observation, info = super().reset(**kwargs)
            observation["obs"][0, 1] = NAN
            return observation, info

    runner = EpisodeRunner(RunnerSettings(), Spoilt, TeamEnvSettings(), 3)
    with pytest.raises(NonFiniteError, match=r"the observation of agent 0 at the start is nan \(entry 1\)"):
        runner.run(Reflex(), 0)


def test_rewards_that_overflow_only_together_are_not_finite_either():
    runner = runner_of(EpisodeRunner, env_settings=TeamEnvSettings(wrong="reward", wrong_value=3e38))
    runner.run(Reflex(), 0)  # one of them is a number like any other

    class Rich(TeamEnv):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, 3e38, *rest

    runner = SideBySide(RunnerSettings(), Rich, TeamEnvSettings(), 3)
    with pytest.raises(NonFiniteError, match="add up to more than float32 holds"):
        runner.run(Reflex(), 0)


@pytest.mark.parametrize("kind", [EpisodeRunner, SideBySide])
@pytest.mark.parametrize("wrong", ["obs", "state", "reward"])
def test_episodes_that_are_not_finite_are_dropped_on_request_counted_and_replaced(kind, wrong):
    settings = TeamEnvSettings(wrong=wrong, fault_share=0.5)
    runner = runner_of(kind, RunnerSettings(drop_nonfinite_episodes=True, max_env_restarts=50), settings)
    reflex, dropped = Reflex(), 0
    for _ in range(6):
        rollout = runner.run(reflex, 0)
        dropped += rollout.episodes_dropped
        assert rollout.env_restarts == 0
        assert not any(is_unlucky(int(seed)) for seed in rollout.stats["seed"])
        assert_holds_what_happened(rollout.batch, rollout.stats, TeamEnvSettings(fault_share=0.5))
        assert rollout.env_steps == sum(rollout.stats["ep_length"])
    assert dropped > 0
    assert runner.state_dict()["train"] == 6 * runner.n + dropped
    assert all(step["obs"].isfinite().all() for step in reflex.seen)


def test_an_environment_that_gives_nothing_else_ends_the_run_though_such_episodes_are_dropped():
    settings = RunnerSettings(drop_nonfinite_episodes=True, max_env_restarts=4)
    runner = runner_of(EpisodeRunner, settings, TeamEnvSettings(wrong="state"))
    with pytest.raises(NonFiniteError, match="4 episodes in a row were dropped, the last because the state after"):
        runner.run(Reflex(), 0)
    assert runner.state_dict()["train"] == 4


def test_an_episode_that_failed_may_end_on_any_number():
    class Broken(TeamEnv):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            if info.get(EPISODE_FAILED):
                observation["obs"][:] = NAN
            return observation, reward, terminated, truncated, info

    settings = TeamEnvSettings(fail_share=0.4)
    runner = SideBySide(RunnerSettings(max_env_restarts=100), Broken, settings, 3)
    restarts = sum(runner.run(Reflex(), 0).env_restarts for _ in range(4))
    assert restarts > 0


def test_a_number_of_the_info_that_is_not_finite_is_said_once_and_recorded(caplog):
    runner = runner_of(env_settings=TeamEnvSettings(wrong="score"))
    for _ in range(2):
        assert all(math.isnan(score) for score in runner.run(Reflex(), 0).stats["score"])
    (line,) = [line for line in caplog.messages if "score" in line]
    assert "score=nan" in line


def shares_by_hand(batch, indices):
    """Each episode's share of choices (more than one action available) among ``indices``; none without a choice."""
    shares = []
    for b, length in enumerate(episode_lengths(batch).tolist()):
        chosen = [
            int(batch["actions"][b, t, i])
            for t in range(length)
            for i in range(TeamEnv.N)
            if batch["avail_actions"][b, t, i].sum() > 1
        ]
        shares += [sum(action in indices for action in chosen) / len(chosen)] if chosen else []
    return shares


def test_every_episode_has_the_share_of_each_declared_kind_of_action():
    runner = SideBySide(RunnerSettings(), SortedTeamEnv, TeamEnvSettings(episode_limit=2), 3)
    assert runner.spec.action_classes == (("low", (0, 1)), ("top", (3,)))
    counts = set()
    for _ in range(30):
        rollout = runner.run(Reflex(), 0)
        low, top = (shares_by_hand(rollout.batch, indices) for indices in ([0, 1], [3]))
        assert rollout.stats["action_low"] == pytest.approx(low)
        assert rollout.stats["action_top"] == pytest.approx(top)
        counts.add(len(low))
        assert "action_low_mean" in summary(rollout.stats)
    assert counts == {3, 4}  # an episode without a choice was among them


def test_an_environment_that_declares_no_kinds_has_no_shares():
    runner = runner_of()
    assert runner.spec.action_classes == ()
    assert not any(key.startswith("action_") for key in runner.run(Reflex(), 0).stats)


def test_no_copies_are_refused():
    with pytest.raises(UserError, match="batch_size_run=0"):
        ParallelRunnerSettings(batch_size_run=0)


def run_settings(**changes):
    raw = {
        "env": "support.team_env:TeamEnv",
        "env_args": {"continuous": True},
        "learner": "q_learner",
        "runner": "episode",
        "action_selector": "gaussian",
        "seed": 3,
    }
    return RunSettings(raw | changes, ExperimentSettings)


def controller_and_runner(settings):
    torch.manual_seed(0)
    runner = settings.make("runner", env_class=TeamEnv, env_settings=settings.of(TeamEnv.Settings), seed=3)
    return settings.make("mac", spec=runner.spec, make=settings.make), runner


def test_continuous_actions_reach_environment_and_buffer_as_they_are():
    controller, runner = controller_and_runner(run_settings(act_noise=0.3))
    buffer = ReplayBuffer(
        ReplaySettings(batch_size=4, buffer_size=4),
        runner.scheme(controller),
        runner.spec.episode_limit,
        torch.device("cpu"),
        seed=0,
    )
    collected = []
    for _ in range(4):
        rollout = runner.run(controller, 0)
        assert_holds_what_happened(rollout.batch, rollout.stats, TeamEnvSettings(continuous=True))
        buffer.insert(rollout.batch)
        collected.append(rollout.batch)
    sample = buffer.sample(4)
    assert sample["actions"].dtype == torch.float32
    assert sample["actions"].abs().max() <= 1
    assert "avail_actions" not in set(sample.keys())
    stored = sorted(sample["actions"].sum((1, 2, 3)).tolist())
    assert stored == pytest.approx(sorted(batch["actions"].sum().item() for batch in collected), abs=1e-5)


def test_gaussian_noise_explores_in_training_only():
    controller, runner = controller_and_runner(run_settings(act_noise=0.3))
    start = runner.state_dict()

    def actions(test_mode, seed):
        torch.manual_seed(seed)
        runner.load_state_dict(start)
        return runner.run(controller, 0, test_mode).batch["actions"][:, 0]

    assert not actions(False, 0).equal(actions(False, 1))
    assert actions(True, 0).equal(actions(True, 1))
    assert controller.metrics(0) == {"act_noise": 0.3}


@pytest.mark.parametrize(
    ("selector", "continuous", "advice"),
    [("epsilon_greedy", True, "use --config=mq_lan"), ("gaussian", False, "use epsilon_greedy")],
)
def test_a_selector_for_the_other_kind_of_actions_is_refused(selector, continuous, advice):
    settings = run_settings(action_selector=selector, env_args={"continuous": continuous})
    with pytest.raises(UserError, match=f"action_selector={selector} does not fit.*{advice}"):
        controller_and_runner(settings)


@pytest.fixture(scope="module")
def in_processes():
    settings = ParallelRunnerSettings(batch_size_run=2, max_env_restarts=50)
    runner = runner_of(ParallelRunner, settings, TeamEnvSettings(fail_share=0.3))
    yield runner
    runner.close()


def test_worker_processes_collect_what_one_process_does(in_processes):
    assert in_processes.spec == runner_of(EpisodeRunner).spec
    many = Reflex()
    both = runner_of(Pair, RunnerSettings(max_env_restarts=50), TeamEnvSettings(fail_share=0.3))
    restarts = 0
    for _ in range(4):
        theirs, ours = in_processes.run(many, 0), both.run(Reflex(), 0)
        assert theirs.stats == ours.stats
        assert theirs.batch.batch_size == ours.batch.batch_size
        assert all(value.equal(theirs.batch[key]) for key, value in ours.batch.items())
        restarts += theirs.env_restarts
        assert theirs.env_restarts == ours.env_restarts
    assert restarts > 0


def test_worker_processes_and_the_episode_runner_collect_the_same_episodes():
    parallel = ParallelRunner(ParallelRunnerSettings(batch_size_run=2), SortedTeamEnv, TeamEnvSettings(), 3)
    try:
        assert parallel.spec.action_classes == (("low", (0, 1)), ("top", (3,)))  # asked of the workers
        both = parallel.run(Reflex(), 0)
        assert_holds_what_happened(both.batch, both.stats)
    finally:
        parallel.close()
    alone = EpisodeRunner(RunnerSettings(), SortedTeamEnv, TeamEnvSettings(), 3)
    for b in range(2):
        one = alone.run(Reflex(), 0)
        assert one.stats == {key: [values[b]] for key, values in both.stats.items()}
        rows = one.batch.shape[1]
        assert all(value[0].equal(both.batch[key][b, :rows]) for key, value in one.batch.items())


def test_an_environment_with_a_vector_step_of_its_own_needs_no_processes():
    before = len(workers_of(os.getpid()))
    runner = ParallelRunner(ParallelRunnerSettings(batch_size_run=3), VectorisedTeamEnv, TeamEnvSettings(), 3)
    assert len(workers_of(os.getpid())) == before
    assert runner.n == 3
    rollout = runner.run(Reflex(), 0)
    assert_holds_what_happened(rollout.batch, rollout.stats)


@pytest.mark.parametrize("kind", ["episode", "parallel"])
def test_the_names_of_an_environments_entries_come_from_wherever_it_runs(kind):
    if kind == "episode":
        runner = EpisodeRunner(RunnerSettings(), NamedTeamEnv, TeamEnvSettings(), 3)
    else:
        runner = ParallelRunner(ParallelRunnerSettings(batch_size_run=1), NamedTeamEnv, TeamEnvSettings(), 3)
    try:
        assert runner.entry_names == {"state": ["a", "b", "c", "d", "cooldown"]}
    finally:
        runner.close()
    assert EpisodeRunner(RunnerSettings(), TeamEnv, TeamEnvSettings(), 3).entry_names == {}
