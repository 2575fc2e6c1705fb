"""The payoff games' reproductions: what runs record, what is counted and drawn, and what the formulas say."""

from typing import Any, ClassVar

import numpy as np
import pytest

from shoal.analysis.starts import read_runs
from shoal.callbacks.callback import Callback
from shoal.config import files
from shoal.reproduce import payoff_exploration, payoff_game, payoff_watch, running
from shoal.reproduce.__main__ import main
from shoal.reproduce.payoff_game import METHODS, counted, shares, typical
from shoal.reproduce.payoff_methods import BEHAVIOUR_WATCHER, COMMON, OUR_S2Q, WATCHER, method
from shoal.reproduce.payoff_record import PayoffRecord, joint_actions, name_of, records_of
from shoal.utils.errors import UserError
from support.launch import in_process
from support.made import payoff_run, trained, watched
from support.record import PNG

GAME = files.load("envs", "matrix_game_shift")["env_args"]
STILL = files.load("envs", "matrix_game")["env_args"]
TINY = {"env_args.shift_at": 24, "test_interval": 8, "batch_size": 8, "buffer_size": 16}


def record(*path, copies=1, env_args=GAME):
    """A run whose copies are all greedy at path[i] in test i; the move is at 4,000 of 8,000 steps."""
    return PayoffRecord(payoff_run([path] * copies, env_args, star=copies > 1))


def test_names_of_joint_actions():
    assert name_of((0, 2)) == "AC"
    assert joint_actions(2, 3) == ["AA", "AB", "AC", "BA", "BB", "BC", "CA", "CB", "CC"]


def test_outcomes_are_read_when_the_table_moves_and_at_the_end():
    run = record("BB", "AA", "AB", "CC", "CA")
    assert run.steps[run.shift] == 4000
    assert (run.before, run.after) == ("AB", "CA")


def test_a_game_that_does_not_move_has_one_outcome():
    still = record("BB", "AA", "AB", env_args=STILL)
    assert still.before == still.after == "AB"


def test_a_run_that_was_not_watched_is_refused():
    unwatched = payoff_run([["AA"]], STILL)
    unwatched.metrics.clear()
    with pytest.raises(UserError, match=r"callbacks=\[shoal.reproduce.payoff_watch:Watcher\]"):
        PayoffRecord(unwatched)


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
def made(tmp_path):
    """Every method with two runs, all at AA but S2Q with K=2, which moves to CC in one of them."""
    runs = {}
    for arm in METHODS:
        copies = 3 if arm.name == "s2q" else 1
        ends = ("CC", "AA") if arm.name == "s2q" else ("AA", "AA")
        runs[arm.name] = [payoff_run([["BB", "AA", end]] * copies, GAME, star=copies > 1) for end in ends]
    return trained(tmp_path, runs)


def test_the_table_has_a_line_for_each_method(made):
    table = payoff_game.tabulate(made).set_index("method")
    assert table.index.tolist() == [arm.label for arm in METHODS]
    assert table.loc["QMIX"].tolist() == ["wrong before and after", "AA -> AA 2", "", "0 of 2"]
    assert table.loc["S2Q, K=2"].tolist()[1:] == ["AA -> CC 1, AA -> AA 1", "AA/AA/AA 2", "1 of 2"]


def test_the_pictures_are_drawn(made, tmp_path):
    assert payoff_game.draw(made) == [tmp_path / "figure1.png", tmp_path / "greedy_over_time.png"]
    for name in ("figure1.png", "greedy_over_time.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
        assert (tmp_path / name).stat().st_size > 10_000


# What is trained.


def test_all_seeds_of_the_main_methods_and_a_third_of_the_others(tmp_path):
    runs = running.planned(payoff_game.REPRODUCTION, running.Options(5, 1, tmp_path, tmp_path))
    seeds = {name: [run.values["seed"] for run in of_arm] for name, of_arm in runs.items()}
    assert seeds["s2q"] == seeds["qmix"] == [0, 1, 2, 3, 4]
    assert seeds["s2q_K0"] == seeds["vdn"] == [0, 1]


def test_all_methods_share_their_settings():
    for one, t_max in ((payoff_game.REPRODUCTION, 8000), (payoff_exploration.REPRODUCTION, 4000)):
        for arm in one.arms:
            assert {key: arm.settings[key] for key in COMMON} == COMMON
            assert arm.settings["t_max"] == t_max


@pytest.mark.parametrize(("alg", "copies"), [("vdn", 1), ("qmix", 1), ("cw_qmix", 1), ("s2q", 3)])
def test_a_run_notes_joint_values_and_greedy_actions(alg, copies, tmp_path, monkeypatch):
    monkeypatch.setattr(payoff_watch, "BEHAVIOUR_EPISODES", 20)
    changes = TINY | (OUR_S2Q if alg == "s2q" else {})
    arm = method(alg, alg, alg, changes, env="matrix_game_shift", t_max=48, callback=BEHAVIOUR_WATCHER)
    run = watched(tmp_path, arm, seed=1)
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
    np.testing.assert_allclose(run.behaviour * 24, (run.behaviour * 24).round(), atol=1e-6)  # three rollouts of eight


class Spy(Callback):
    """Notes what training sees in an episode at the end of the run."""

    seen: ClassVar[dict[str, Any]] = {}

    def on_test(self, experiment, metrics):
        if experiment.progress.t_env == 48:
            batch = experiment.memory.sample(8)
            one = batch[:1].expand(8, *batch.shape[1:]).contiguous()
            _, found = experiment.learner.loss(one)
            Spy.seen = {
                "actions": tuple(one["actions"][0, 0].tolist()),
                "q": float(found["q_taken_mean"]),
                "q_star": float(found["central_q_taken_mean"]),
            }


def test_joint_values_are_those_that_training_sees(tmp_path):
    """The noted value of a joint action is the learner's own for an episode in which it was taken."""
    arm = method("cw_qmix", "CW-QMIX", "cw_qmix", TINY, env="matrix_game_shift", t_max=48)
    arm.settings["callbacks"].append(f"{__name__}:Spy")
    run = watched(tmp_path, arm, seed=1)
    assert run.q[-1, 0][Spy.seen["actions"]] == pytest.approx(Spy.seen["q"], abs=1e-4)
    assert run.q_star[-1][Spy.seen["actions"]] == pytest.approx(Spy.seen["q_star"], abs=1e-4)


def test_a_watched_run_is_the_run_that_nobody_watches(tmp_path):
    """Watching draws no random numbers: the metrics of both are the same."""
    found = []
    for callbacks in ([WATCHER], []):
        folder = tmp_path / str(len(callbacks))
        folder.mkdir()
        settings = {**COMMON, **TINY, "t_max": 48, "callbacks": callbacks, "seed": 1}
        settings |= {"learner_log_interval": 8, "runner_log_interval": 8}
        words = [f"{key}={value}" for key, value in settings.items()]
        assert in_process(folder, "--config=s2q", "--env-config=matrix_game_shift", "with", *words) == 0
        found.append(read_runs([folder / "results" / "sacred" / "1"])[0].metrics)
    watched, alone = found
    assert len(watched) > len(alone) > 10
    for name, (steps, values) in alone.items():
        np.testing.assert_array_equal(watched[name][0], steps)
        np.testing.assert_array_equal(watched[name][1], values)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0"], ["--seeds 0", "at least one"]),
        (["--jobs", "0"], ["--jobs 0", "at least one"]),
        (["--out", "a_file"], ["a_file", "cannot be written"]),
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


# Exploration.


def test_the_law_of_epsilon_greedy_teams():
    law = payoff_exploration.around("AB", 3)
    assert law[0, 1] == pytest.approx(0.934444, abs=1e-6)
    assert law[0, 0] == pytest.approx(0.016111, abs=1e-6)
    assert law[2, 2] == pytest.approx(0.000278, abs=1e-6)
    assert law.sum() == pytest.approx(1.0)


def test_the_law_of_s2q_that_has_learnt_the_game():
    (arm,) = [arm for arm in payoff_exploration.METHODS if arm.label == "S2Q, T=1"]
    law = payoff_exploration.expected(arm, np.array(GAME["payoff"]), "AA")
    np.testing.assert_allclose(np.diag(law), [0.7781, 0.1146, 0.0423], atol=2e-4)
    assert law.sum() == pytest.approx(1.0)


def test_the_exploration_command_counts_draws_and_says_where(tmp_path, monkeypatch, capsys):
    runs = {
        arm.name: [payoff_run([["BB", "AA"]], STILL, behaviour=np.diag([6, 3, 1]))]
        for arm in payoff_exploration.METHODS
    }
    monkeypatch.setattr(running, "train", lambda reproduction, options: trained(options.out, runs))
    assert main(["s2q-exploration", "--seeds", "1", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "figure_d1.png").read_bytes().startswith(PNG)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[2] == "| QMIX | AA | expected | 0.9344 | 0.0003 | 0.0003 | 0.0650 |"
    assert lines[3] == "|  |  | measured | 0.6000 | 0.3000 | 0.1000 | 0.0000 |"
    assert len([line for line in lines if line.startswith("|")]) == 2 + 2 * len(payoff_exploration.METHODS)
    assert str(tmp_path / "figure_d1.png") in capsys.readouterr().out


def test_records_of_all_runs(made):
    records = records_of(made)
    assert [record.after for record in records["s2q"]] == ["CC", "AA"]


@pytest.mark.parametrize("command", [payoff_game, payoff_exploration])
def test_the_earlier_names_have_their_own_page(command, capsys):
    """With one run at a time, as they always had."""
    with pytest.raises(SystemExit) as end:
        command.main(["--help"])
    page = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert f"python -m shoal.analysis.{command.__name__.rpartition('.')[2]} [-h]" in page
    assert f"python -m shoal.reproduce {command.REPRODUCTION.id}" in page
    assert "a core each (default: 1)" in page
    assert "[--list]" not in page
