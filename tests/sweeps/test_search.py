"""A search: its space, its trials, what they are worth, and going on with it."""

import json
import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from shoal.config import files
from shoal.sweeps.folder import SweepFolder
from shoal.sweeps.plan import Cell, planned
from shoal.sweeps.pool import Job
from shoal.sweeps.search import Search, example_of, read_settings, read_space
from shoal.utils.errors import UserError

SPACE = {"lr": FloatDistribution(1e-4, 1e-2, log=True), "mixing_embed_dim": CategoricalDistribution([8, 16])}


def test_what_stands_behind_optuna_is_read():
    s = read_settings(["trials=40", "space=space.yaml", "metric=test_return_mean", "last=3", "direction=minimize"])
    assert (s.trials, s.space.name, s.metric, s.last, s.direction) == (
        40,
        "space.yaml",
        "test_return_mean",
        3,
        "minimize",
    )
    s = read_settings(["trials=4", "space=a=b.yaml"])
    assert (str(s.space), s.metric, s.last, s.direction, s.seed) == ("a=b.yaml", "", 5, "maximize", 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trials=4"], "space"),
        (["space=x"], "trials"),
        (["trials=4", "space=x", "sampler=tpe"], "'sampler'"),
        (["trials=many", "space=x"], "whole numbers"),
        (["trials=0", "space=x"], "at least 1"),
        (["trials=1", "space=x", "direction=up"], "maximize or minimize"),
        (["trials=1", "space=x", "seed=-1"], "seed=-1"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, told):
    with pytest.raises(UserError, match=told):
        read_settings(words)


def test_a_space_holds_choices_and_ranges(tmp_path):
    (tmp_path / "space.yaml").write_text(
        "lr: {low: 1e-4, high: 1e-2, log: true}\ntd_lambda: {low: 0, high: 0.9, step: 0.3}\n"
        "batch_size: {low: 16, high: 64, step: 16}\nmixer: [vdn, qmix, null]\nenv_args: {reward_scale: [10, 20]}\n"
    )
    assert read_space(tmp_path / "space.yaml") == {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "td_lambda": FloatDistribution(0.0, 0.9, step=0.3),
        "batch_size": IntDistribution(16, 64, step=16),
        "mixer": CategoricalDistribution(["vdn", "qmix", None]),
        "env_args.reward_scale": CategoricalDistribution([10, 20]),
    }
    assert example_of(SPACE) == {"lr": 1e-4, "mixing_embed_dim": 8}


@pytest.mark.parametrize(
    "text", ["", "lr: 0.1", "lr: []", "lr: [[1]]", "lr: {low: 1}", "lr: {low: 2, high: 1}", "lr: {low: a, high: 1}"]
)
def test_another_space_is_refused(tmp_path, text):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError, match=r"space\.yaml"):
        read_space(tmp_path / "space.yaml")


class Trials:
    """A search whose runs are played by hand."""

    def __init__(self, folder, *words, space=SPACE):
        self.folder = SweepFolder(folder)
        self.asked = []
        settings = read_settings(["trials=3", "space=x", *words])
        self.search = Search(folder, settings, space, self.jobs_of)

    def jobs_of(self, changes, tag):
        given = [files.Layer("command line", {"batch_size": 4, "buffer_size": 40})]
        runs = [planned(Cell("qmix", "matrix_game", s, None, changes, tag), given, self.folder.runs) for s in (0, 1)]
        self.asked.append((tag, changes))
        return [Job(run, self.folder.of(run)) for run in runs]


def series(values):
    return {"steps": list(range(len(values))), "values": values, "timestamps": ["2026-01-01T00:00:00"] * len(values)}


def finish(job, values, metric="test_return_mean"):
    path = job.folder.path / "sacred" / "1"
    path.mkdir(parents=True)
    (path / "run.json").write_text("{}")
    (path / "config.json").write_text("{}")
    (path / "metrics.json").write_text(json.dumps({metric: series(values)}))
    job.record, job.state = path, "finished"


def test_a_trial_is_worth_the_mean_of_its_runs_last_tests(tmp_path):
    trials = Trials(tmp_path, "last=2")
    jobs = trials.search.more()
    assert [job.run.name for job in jobs] == [f"qmix_matrix_game_trial000_seed{s}" for s in (0, 1)]
    assert jobs[0].run.values["lr"] == trials.asked[0][1]["lr"]
    finish(jobs[0], [9.0, 1.0, 3.0])
    assert trials.search.settle() == []
    finish(jobs[1], [5.0, 7.0])
    (line,) = trials.search.settle()
    assert line.startswith("trial 0: test_return_mean 4 with lr=")
    assert trials.search.best() == [(0, 4.0, trials.asked[0][1])]
    path = trials.search.write_best(tmp_path)
    assert files.read(path) == trials.asked[0][1]


def test_the_win_rate_counts_where_there_is_one_unless_another_metric_is_named(tmp_path):
    for words, value in (((), 0.5), (("metric=test_return_mean",), 10.0)):
        folder = tmp_path / str(value)
        folder.mkdir()
        trials = Trials(folder, *words)
        jobs = trials.search.more()
        for job in jobs:
            finish(job, [0.5], "test_battle_won_mean")
            content = json.loads((job.record / "metrics.json").read_text())
            content["test_return_mean"] = series([10.0])
            (job.record / "metrics.json").write_text(json.dumps(content))
        assert trials.search.value_of(jobs) == value


def record_a_win(job, value):
    """The share of wins in the last test, for the first time."""
    content = json.loads((job.record / "metrics.json").read_text())
    (tests,) = content.values()
    content["test_win_rate"] = {key: points[-1:] for key, points in tests.items()} | {"values": [value]}
    (job.record / "metrics.json").write_text(json.dumps(content))


def test_all_trials_of_a_search_are_judged_by_one_metric(tmp_path):
    """Also where an environment tells of wins alone: a trial that never won is worth 0, not its return."""
    for first_wins in (True, False):
        folder = tmp_path / str(first_wins)
        folder.mkdir()
        trials = Trials(folder, "last=2")
        for wins in (first_wins, not first_wins):
            for job in trials.search.more():
                finish(job, [5.0, 6.0, 7.0, 8.0])
                if wins:
                    record_a_win(job, 0.5)
            trials.search.settle()
        values = {number: value for number, value, _ in trials.search.best()}
        assert values == ({0: 0.25, 1: 0.0} if first_wins else {0: 7.5, 1: 7.5})


def test_trials_judged_by_nobody_knows_what_are_not_gone_on_with(tmp_path):
    """A search of a version that judged every trial by what it had recorded; a metric that is named is known."""
    for words in ((), ("metric=test_return_mean",)):
        folder = tmp_path / str(len(words))
        folder.mkdir()
        trials = Trials(folder, *words)
        for job in trials.search.more():
            finish(job, [1.0])
        number = trials.search.study.trials[0].number
        trials.search.study.tell(number, 1.0)
        if words:
            assert Trials(folder, *words).search.best()
        else:
            with pytest.raises(UserError, match="another --name"):
                Trials(folder)


def test_a_trial_that_failed_or_tested_nothing_counts_as_failed(tmp_path):
    trials = Trials(tmp_path)
    failed, empty = trials.search.more(), trials.search.more()
    finish(failed[0], [1.0])
    failed[1].state = "failed"
    for job in empty:
        finish(job, [], "other")
    assert math.isnan(trials.search.value_of(empty))
    lines = trials.search.settle()
    assert [line.partition(":")[0] for line in lines] == ["trial 0 failed", "trial 1 failed"]
    assert trials.search.best() == []
    assert trials.search.write_best(tmp_path) is None
    trials.search.more()
    assert not trials.search.wants_more

    later = Trials(tmp_path)  # what made them fail is mended
    for _ in range(3):
        assert later.search.wants_more
        later.search.more()
    assert not later.search.wants_more
    assert [tag for tag, _ in later.asked] == ["trial002", "trial003", "trial004"]


def test_a_search_goes_on_where_it_was_stopped(tmp_path):
    first = Trials(tmp_path)
    for job in first.search.more():
        finish(job, [1.0])
    first.search.settle()
    begun = first.search.more()
    assert first.search.wants_more

    later = Trials(tmp_path)
    again = later.search.more()
    assert later.asked[0] == first.asked[1]
    assert [job.folder.path for job in again] == [job.folder.path for job in begun]
    later.search.more()
    assert later.asked[1] not in first.asked
    assert not later.search.wants_more
    for job in again:
        finish(job, [2.0])
    assert len(later.search.settle()) == 1
    assert [number for number, *_ in later.search.best()] == [1, 0]

    with pytest.raises(UserError, match="another --name"):
        Trials(tmp_path, "last=1")
    with pytest.raises(UserError, match="another --name"):
        Trials(tmp_path, space={"lr": FloatDistribution(0.1, 0.2)})


def test_less_is_better_when_minimized(tmp_path):
    trials = Trials(tmp_path, "direction=minimize")
    for values in ([3.0], [1.0]):
        for job in trials.search.more():
            finish(job, values)
        trials.search.settle()
    assert [number for number, *_ in trials.search.best()] == [1, 0]
