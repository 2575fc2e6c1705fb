"""The trajectory analysis of recorded runs: which lines are drawn of which metric, and what cannot be drawn."""

import pytest

from shoal.analysis.records import read_run
from shoal.reproduce.actions import draw, main, panels
from shoal.utils.errors import UserError
from support.record import PNG, record

TESTS = {
    "test_action_attack_mean": ([0, 100], [0.1, 0.8]),
    "test_action_move_mean": ([0, 100], [0.9, 0.2]),
    "test_ep_length_mean": ([0, 100], [20.0, 30.0]),
    "test_return_mean": ([0, 100], [1.0, 9.0]),
}
WON = {"test_battle_won_mean": ([0, 100], [0.0, 0.5])}
SUB_VALUES = {
    name: ([50, 90], [0.3, 0.7])
    for k in (0, 1)
    for name in (f"candidate_attack_{k}", f"candidate_move_{k}", f"sub_index_{k}")
}


@pytest.fixture
def run(tmp_path):
    def make(metrics, name="s2q", seed=1):
        return read_run(record(tmp_path / f"{name}_{seed}", metrics, name=name, seed=seed))

    return make


def metrics_of(panel):
    return {label: metric for label, (metric, _) in panel.lines.items()}


def test_tests_stand_above_sub_values(run):
    tests, sub_values = panels([run(TESTS | WON | SUB_VALUES)])
    actions, won, length = tests
    assert metrics_of(actions) == {"attack": "test_action_attack_mean", "move": "test_action_move_mean"}
    assert metrics_of(won) == {"win rate": "test_battle_won_mean"}
    assert metrics_of(length) == {"steps": "test_ep_length_mean"}
    *candidates, followed = sub_values
    assert [metrics_of(panel) for panel in candidates] == [
        {"attack": f"candidate_attack_{k}", "move": f"candidate_move_{k}"} for k in (0, 1)
    ]
    assert list(metrics_of(followed).values()) == ["sub_index_0", "sub_index_1"]
    colours = [{label: colour for label, (_, colour) in panel.lines.items()} for panel in [actions, *candidates]]
    assert colours[0] == colours[1] == colours[2]  # a class looks the same everywhere
    assert len(set(colours[0].values())) == 2


def test_without_sub_values_there_are_tests_alone(run):
    (tests,) = panels([run(TESTS | WON, name="qmix")])
    assert len(tests) == 3


def test_without_a_win_rate_the_return_is_drawn(run):
    (tests,) = panels([run(TESTS)])
    assert metrics_of(tests[1]) == {"return": "test_return_mean"}
    assert not tests[1].is_share


def drawn_lines(monkeypatch, runs, out):
    """label of a line -> its number of seeds, for every call."""
    lines = []
    monkeypatch.setattr(
        "shoal.reproduce.actions.plot_mean", lambda axes, curves, label, **style: lines.append((label, len(curves)))
    )
    draw(runs, out)
    return lines


def test_seeds_are_one_line_and_algorithms_are_blocks(run, monkeypatch, tmp_path):
    runs = [run(TESTS | WON | SUB_VALUES, seed=seed) for seed in (1, 2)] + [run(TESTS | WON, name="qmix")]
    lines = drawn_lines(monkeypatch, runs, tmp_path / "actions.png")
    tests = ["attack", "move", "win rate", "steps"]
    sub_values = ["attack", "move"] * 2 + ["$Q^{tot}$", "$Q_{1}$"]
    assert lines == [(label, 2) for label in tests + sub_values] + [(label, 1) for label in tests]


def test_the_command_line_draws_and_says_where(run, tmp_path, capsys):
    folders = [str(run(TESTS | WON | SUB_VALUES, seed=seed).folder) for seed in (1, 2)]
    out = tmp_path / "mine.png"
    assert main([*folders, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)
    assert out.stat().st_size > 20_000
    assert capsys.readouterr().out.strip() == str(out)


@pytest.mark.parametrize("metrics", [WON, {"test_action_move_mean": ([], [])}])
def test_a_run_without_classes_is_refused_by_name(run, metrics, tmp_path):
    good, bad = run(TESTS), run(metrics, seed=2)
    with pytest.raises(UserError, match=r"s2q_2 recorded no test_action_<class>_mean: .*action_classes"):
        draw([good, bad], tmp_path / "actions.png")
    assert not (tmp_path / "actions.png").exists()


def test_the_command_line_refuses_in_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {tmp_path} is not a recorded run")
