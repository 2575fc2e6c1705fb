"""The payoff game's commands: what is counted, what is drawn, what is trained once and what again."""

import json
from pathlib import Path

import numpy as np
import pytest

from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.experiment import ExperimentSettings
from shoal.reproduce import payoff_exploration, payoff_game, payoff_runs
from shoal.reproduce.payoff_game import METHODS, counted, draw, shares, table, typical
from shoal.reproduce.payoff_runs import OUR_S2Q, Method, PayoffRun, Record, name_of, plan, settings_of, train

PNG = b"\x89PNG\r\n"
GAME = files.load("envs", "matrix_game_shift")["env_args"]
TINY = {"t_max": 48, "env_args": {"shift_at": 24}, "test_interval": 8, "batch_size": 8, "buffer_size": 16}


def content(path, copies=1, settings=None, **more):
    """A run's file whose copies are all greedy at path[i] in test i; the move is at 4,000 of 8,000 steps."""
    steps = np.linspace(0, 8000, len(path)).astype(int).tolist()
    values = np.arange(9.0).reshape(3, 3).tolist()
    tests = [
        {"t_env": t, "greedy": [name] * copies, "q": [values] * copies, "q_star": values if copies > 1 else None}
        for t, name in zip(steps, path, strict=True)
    ]
    whole = {"settings": settings or {"env_args": GAME}, "behaviour_episodes": 0, "commit": "c0ffee", "seconds": 1.5}
    return whole | {"tests": tests, "behaviour": np.zeros((3, 3)).tolist()} | more


def record(*path, **more):
    return Record(content(path, **more))


def test_names_of_joint_actions():
    assert name_of((0, 2)) == "AC"


def test_outcomes_are_read_when_the_table_moves_and_at_the_end():
    run = record("BB", "AA", "AB", "CC", "CA")
    assert run.steps[run.shift] == 4000
    assert (run.before, run.after) == ("AB", "CA")


def test_a_game_that_does_not_move_has_one_outcome():
    still = record("BB", "AA", "AB", settings={"env_args": {"payoff": GAME["payoff"]}})
    assert still.before == still.after == "AB"


def test_outcomes_are_counted_most_frequent_first():
    assert counted(["BB", "AA", "AA"]) == "AA 2, BB 1"


def test_shares_of_the_seeds():
    runs = [record("AA", "AA", "CC"), record("BB", "AA", "CC"), record("AB", "AA", "AA"), record("AA", "AA", "CC")]
    assert {name: values.tolist() for name, values in shares(runs).items()} == {
        "AA": [0.5, 1.0, 0.25],
        "BB": [0.25, 0.0, 0.0],
        "CC": [0.0, 0.0, 0.75],
        "other": [0.25, 0.0, 0.0],
    }


def test_the_typical_run_has_the_most_frequent_outcome():
    runs = [record("AA", "AA", "AA"), record("BB", "AA", "CC"), record("AA", "AA", "CC")]
    assert typical(runs) is runs[1]


@pytest.fixture
def records():
    """Every method with two runs, all at AA but S2Q with K=2, which moves to CC in one of them."""
    by_name = {}
    for method in METHODS:
        copies = 3 if method.name == "s2q" else 1
        ends = ("CC", "AA") if method.name == "s2q" else ("AA", "AA")
        by_name[method.name] = [record("BB", "AA", end, copies=copies) for end in ends]
    return by_name


def test_the_table_has_a_line_for_each_method(records):
    lines = table(records).splitlines()
    assert len(lines) == 2 + len(METHODS)
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[3:-1]] for line in lines[2:]}
    assert cells["QMIX"] == ["AA -> AA 2", "", "0 of 2"]
    assert cells["S2Q, K=2"] == ["AA -> CC 1, AA -> AA 1", "AA/AA/AA 2", "1 of 2"]


def test_the_pictures_are_drawn(records, tmp_path):
    draw(records, tmp_path)
    for name in ("figure1.png", "greedy_over_time.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
        assert (tmp_path / name).stat().st_size > 10_000


# What is trained.


def test_the_plan_has_all_seeds_of_the_main_methods_and_a_third_of_the_others():
    runs = plan(METHODS, "matrix_game_shift", 8000, seeds=5)
    seeds = {m.name: [run.seed for run in runs if run.name == m.name] for m in METHODS}
    assert seeds["s2q"] == seeds["qmix"] == [0, 1, 2, 3, 4]
    assert seeds["s2q_K0"] == seeds["vdn"] == [0, 1]
    assert len({run.file(Path("x")) for run in runs}) == len(runs)


@pytest.mark.parametrize("method", [*METHODS, *payoff_exploration.METHODS], ids=lambda m: m.label)
def test_every_method_is_a_run_that_can_start(method):
    (run, *_) = plan([method], "matrix_game_shift", 8000, seeds=1)
    settings = RunSettings(run.settings, ExperimentSettings)
    for key, value in {**payoff_runs.QUICK, **method.changes, "t_max": 8000}.items():
        assert settings.values[key] == value


@pytest.mark.parametrize(("alg", "copies"), [("vdn", 1), ("qmix", 1), ("cw_qmix", 1), ("s2q", 3)])
def test_a_run_notes_joint_values_and_greedy_actions(alg, copies):
    changes = OUR_S2Q if alg == "s2q" else {}
    run = Record(train(PayoffRun(alg, settings_of("matrix_game_shift", alg, 1, **TINY, **changes), 20)))
    assert run.steps == [0, 8, 16, 24, 32, 40, 48]
    assert run.steps[run.shift] == 24
    assert run.q.shape == (7, copies, 3, 3)
    for names, values in zip(run.greedy, run.q, strict=True):
        assert names == [name_of(np.unravel_index(q.argmax(), q.shape)) for q in values]
    assert not np.array_equal(run.q[0], run.q[-1])
    if alg == "vdn":  # a sum of utilities
        q = run.q[-1, 0]
        np.testing.assert_allclose(q - q[:, :1] - q[:1, :] + q[0, 0], np.zeros((3, 3)), atol=3e-4)
    assert (run.q_star is None) == (alg in ("vdn", "qmix"))
    if run.q_star is not None:
        assert run.q_star.shape == (7, 3, 3)
    assert run.behaviour.sum() == pytest.approx(1.0)
    assert (run.behaviour * 24 % 1 == 0).all()  # three rollouts of eight


def test_joint_values_are_those_that_training_sees():
    """The noted value of a joint action is the learner's own for an episode in which it was taken."""
    seen = []

    class Spy(payoff_runs.Watcher):
        def on_test(self, experiment, metrics):
            super().on_test(experiment, metrics)
            if experiment.progress.t_env == 48:
                batch = experiment.memory.sample(8)
                one = batch[:1].expand(8, *batch.shape[1:]).contiguous()
                _, metrics = experiment.learner.loss(one)
                seen.append((one["actions"][0, 0].tolist(), float(metrics["q_taken_mean"])))
                seen.append(float(metrics["central_q_taken_mean"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payoff_runs, "Watcher", Spy)
        run = Record(train(PayoffRun("cw_qmix", settings_of("matrix_game_shift", "cw_qmix", 1, **TINY))))
    (actions, q), q_star = seen
    assert run.q[-1, 0][tuple(actions)] == pytest.approx(q, abs=1e-4)
    assert run.q_star[-1][tuple(actions)] == pytest.approx(q_star, abs=1e-4)


@pytest.fixture
def trained(monkeypatch):
    """Runs that were trained, which here takes no time."""
    names = []

    def at_once(run):
        names.append((run.name, run.seed))
        return content(("BB", "AA", "CC"), settings=run.settings)

    monkeypatch.setattr(payoff_runs, "train", at_once)
    return names


def three_runs(**changes):
    return plan([Method("vdn", "VDN", "vdn", changes)], "matrix_game_shift", 8000, seeds=3)


def test_finished_runs_are_not_trained_again(trained, tmp_path, capsys):
    payoff_runs.train_missing(three_runs()[:2], tmp_path, jobs=1)
    assert trained == [("vdn", 0), ("vdn", 1)]
    records = payoff_runs.train_missing(three_runs(), tmp_path, jobs=1)
    assert trained[2:] == [("vdn", 2)]
    assert [run.settings["seed"] for run in records["vdn"]] == [0, 1, 2]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "[2/2] vdn seed 1: AA -> CC in 2 s",
        "3 runs, 2 of them finished before",
        "[3/3] vdn seed 2: AA -> CC in 2 s",
    ]


def test_runs_with_other_settings_are_trained_again(trained, tmp_path):
    payoff_runs.train_missing(three_runs(), tmp_path, jobs=1)
    payoff_runs.train_missing(three_runs(lr=0.001), tmp_path, jobs=1)
    assert len(trained) == 6


def test_a_broken_file_is_replaced(trained, tmp_path):
    first = three_runs()[:1]
    payoff_runs.train_missing(first, tmp_path, jobs=1)
    first[0].file(tmp_path).write_text('{"settings": ')
    payoff_runs.train_missing(first, tmp_path, jobs=1)
    assert len(trained) == 2
    assert json.loads(first[0].file(tmp_path).read_text())["settings"] == first[0].settings


def test_an_interrupted_command_keeps_what_it_has(trained, tmp_path, monkeypatch, capsys):
    at_once = payoff_runs.train

    def interrupted(run):
        if run.seed == 1:
            raise KeyboardInterrupt
        return at_once(run)

    monkeypatch.setattr(payoff_game, "METHODS", METHODS[1:2])
    monkeypatch.setattr(payoff_runs, "train", interrupted)
    assert payoff_game.main(["--seeds", "3", "--out", str(tmp_path)]) == 130
    assert "trains the missing runs" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["qmix_seed0.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0"], ["--seeds 0", "at least one"]),
        (["--jobs", "0"], ["--jobs 0", "at least one"]),
        (["--out", "a_file"], ["--out a_file", "cannot be written"]),
    ],
)
@pytest.mark.parametrize("command", [payoff_game, payoff_exploration])
def test_wrong_options_are_refused_in_one_sentence(command, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    assert command.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words)


@pytest.mark.slow
def test_runs_side_by_side_are_the_runs_one_after_the_other(tmp_path):
    runs = [PayoffRun("vdn", settings_of("matrix_game_shift", "vdn", seed, **TINY)) for seed in range(3)]
    (together,) = payoff_runs.train_missing(runs, tmp_path / "two", jobs=2).values()
    (apart,) = payoff_runs.train_missing(runs, tmp_path / "one", jobs=1).values()
    for two, one in zip(together, apart, strict=True):
        np.testing.assert_array_equal(two.q, one.q)


# Exploration.


def test_the_law_of_epsilon_greedy_teams():
    law = payoff_exploration.around("AB", 3)  # s2q.md 8.11
    assert law[0, 1] == pytest.approx(0.934444, abs=1e-6)
    assert law[0, 0] == pytest.approx(0.016111, abs=1e-6)
    assert law[2, 2] == pytest.approx(0.000278, abs=1e-6)
    assert law.sum() == pytest.approx(1.0)


def test_the_law_of_s2q_that_has_learnt_the_game():
    (method,) = [m for m in payoff_exploration.METHODS if m.label == "S2Q, T=1"]
    law = payoff_exploration.expected(method, np.array(GAME["payoff"]), "AA")
    np.testing.assert_allclose(np.diag(law), [0.7781, 0.1146, 0.0423], atol=2e-4)  # s2q.md 9.5
    assert law.sum() == pytest.approx(1.0)


def test_the_exploration_command_counts_draws_and_says_where(trained, tmp_path, monkeypatch, capsys):
    counted_here = {"behaviour": np.diag([6, 3, 1]).tolist(), "behaviour_episodes": payoff_exploration.EPISODES}
    monkeypatch.setattr(payoff_runs, "train", lambda run: content(("BB", "AA"), settings=run.settings, **counted_here))
    assert payoff_exploration.main(["--seeds", "1", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "figure_d1.png").read_bytes().startswith(PNG)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 2 * len(payoff_exploration.METHODS)
    assert lines[2] == "| QMIX | AA | expected | 0.9344 | 0.0003 | 0.0003 | 0.0650 |"
    assert lines[3] == "| | | measured | 0.6000 | 0.3000 | 0.1000 | 0.0000 |"
    assert str(tmp_path / "figure_d1.png") in capsys.readouterr().out
