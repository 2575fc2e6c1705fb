"""The verdicts on the papers' claims, from runs made of numbers: as the paper says, and not."""

import numpy as np
import pytest

from shoal.config import files
from shoal.reproduce import cadp, codebook, lan, lan_pictures, payoff_exploration, payoff_game, smax
from shoal.reproduce.declaration import Verdict
from shoal.reproduce.judging import higher
from shoal.reproduce.sisl_baselines import COLUMNS, FORAGE, IDLE, UNIFORM
from support.made import payoff_run, run, trained

SHIFT = files.load("envs", "matrix_game_shift")["env_args"]
STILL = files.load("envs", "matrix_game")["env_args"]


def holds(verdicts):
    return [verdict.holds for verdict in verdicts]


def test_words():
    assert [Verdict("c", "f", x).word for x in (True, False, None)] == ["holds", "does not hold", "not judged"]


# One method above another.


def test_higher_everywhere_holds():
    verdict = higher("claim", "A", {"A": np.array([0.7, 0.8, 0.9]), "B": np.array([0.1, 0.2, 0.3])}, "B")
    assert verdict.holds is True
    assert verdict.found == "A 0.8, B 0.2; probability of improvement 1.00 [1.00, 1.00], 3 runs each"


def test_lower_does_not_hold():
    assert higher("claim", "A", {"A": np.array([0.1, 0.2, 0.3]), "B": np.array([0.7, 0.8, 0.9])}, "B").holds is False


def test_what_cannot_be_told_apart_is_open():
    verdict = higher("claim", "A", {"A": np.array([0.1, 0.5, 0.95]), "B": np.array([0.2, 0.4, 0.6])}, "B")
    assert verdict.holds is None
    assert "too few runs" in verdict.found


def test_two_runs_are_too_few():
    verdict = higher("claim", "A", {"A": np.array([0.9, 0.9, 0.9]), "B": np.array([0.1, 0.1])}, "B")
    assert verdict.holds is None
    assert "2 runs each, 3 are the fewest" in verdict.found


# S2Q on the payoff games.


def matrix(tmp_path, qmix, wqmix, s2q):
    """Two runs each, whose copies are where the paths say before and after the move."""
    runs = {arm.name: [payoff_run([["BB", "BB", "BB"]], SHIFT)] for arm in payoff_game.METHODS}
    runs["qmix"] = [payoff_run([["BB", *qmix]], SHIFT)] * 2
    runs["cw_qmix"] = runs["ow_qmix"] = [payoff_run([["BB", *wqmix]], SHIFT, star=True)] * 2
    runs["s2q"] = [payoff_run([["BB", *path] for path in s2q], SHIFT, star=True)] * 2
    return trained(tmp_path, runs)


def test_figure_1_as_in_the_paper(tmp_path):
    s2q = (("AA", "CC"), ("BB", "AA"), ("CC", "BB"))
    verdicts = payoff_game.judge(matrix(tmp_path, ("BB", "BB"), ("AA", "AA"), s2q))
    assert holds(verdicts) == [True] * 4
    assert verdicts[0].found == "2 of 2 runs (BB -> BB 2)"
    assert verdicts[1].found == "4 of 4 runs (AA -> AA 4)"
    assert verdicts[3].found == "2 of 2 runs (AA/BB/CC 2)"


def test_figure_1_otherwise(tmp_path):
    s2q = (("AA", "AA"), ("BB", "BB"), ("BB", "CC"))
    assert holds(payoff_game.judge(matrix(tmp_path, ("AA", "AA"), ("AA", "CC"), s2q))) == [False] * 4


def test_half_of_the_runs_are_not_most(tmp_path):
    runs = dict(matrix(tmp_path, ("BB", "BB"), ("AA", "AA"), (("AA", "CC"), ("BB", "BB"), ("CC", "CC"))).runs)
    runs["qmix"] = [payoff_run([["BB", end, end]], SHIFT) for end in ("AA", "BB")]
    verdict = payoff_game.judge(trained(tmp_path, runs))[0]
    assert (verdict.holds, verdict.found) == (False, "1 of 2 runs (AA -> AA 1, BB -> BB 1)")


def exploration(tmp_path, greedy, one, two):
    shares = {"qmix": greedy, "ow_qmix": greedy, "s2q_T0.1": one, "s2q": one, "s2q_T2": two}
    paths = {name: ["AA", "AA"] for name in shares}
    return trained(
        tmp_path, {name: [payoff_run([paths[name]], STILL, behaviour=table)] for name, table in shares.items()}
    )


def shares(aa, bb, cc):
    table = np.full((3, 3), (1 - aa - bb - cc) / 6)
    np.fill_diagonal(table, [aa, bb, cc])
    return table


def test_figure_d1_as_in_the_paper(tmp_path):
    made = exploration(tmp_path, shares(0.93, 0.0003, 0.0003), shares(0.78, 0.11, 0.04), shares(0.7, 0.14, 0.09))
    assert holds(payoff_exploration.judge(made)) == [True, True, True]


def test_figure_d1_otherwise(tmp_path):
    made = exploration(tmp_path, shares(0.5, 0.1, 0.1), shares(0.78, 0.11, 0.001), shares(0.2, 0.6, 0.1))
    assert holds(payoff_exploration.judge(made)) == [False, False, False]


# S2Q on SMAX.


def battles(tmp_path, **wins):
    """Three seeds of each method; the win rate of each goes up to ``wins`` in even steps."""
    runs = {}
    for name, end in wins.items():
        runs[name] = [
            run(
                {
                    "test_battle_won_mean": np.linspace(0, end + 0.01 * seed, 9).tolist(),
                    "test_return_mean": np.linspace(0, 20 * end, 9).tolist(),
                },
                name=name,
                seed=seed,
                env="smax",
                env_args={"map_name": "3s5z"},
            )
            for seed in (1, 2, 3)
        ]
    return trained(tmp_path, runs)


def test_learning_curves_as_in_the_paper(tmp_path):
    made = battles(tmp_path, s2q=0.9, ow_qmix=0.5, qplex=0.4, qmix=0.3)
    assert holds(smax.COMPARISON.judge(made)) == [True] * 6
    table = smax.COMPARISON.tabulate(made)
    assert len(table) == 12
    assert table.iloc[0].to_dict() == pytest.approx(
        {
            "method": "S2Q",
            "seed": 1,
            "steps": 800,
            "last test": 0.91,
            "mean of the last tests": 0.6825,
            "best test": 0.91,
        }
    )


def test_learning_curves_otherwise(tmp_path):
    verdicts = smax.COMPARISON.judge(battles(tmp_path, s2q=0.3, ow_qmix=0.5, qplex=0.3, qmix=0.1))
    assert holds(verdicts) == [False, False, None, None, True, True]


def hits(tmp_path, attacks, q_tot, sub_value):
    metrics = {"test_action_attack_mean": attacks, "test_action_move_mean": [1 - x for x in attacks]}
    metrics |= {"test_action_stop_mean": [0.0] * len(attacks)}
    for k, values in enumerate((q_tot, sub_value)):
        metrics |= {f"candidate_attack_{k}": values, f"candidate_move_{k}": [1 - x for x in values]}
        metrics |= {f"candidate_stop_{k}": [0.0] * len(values)}
    return trained(tmp_path, {"s2q": [run(metrics, name="s2q", env="smax")]})


def test_trajectory_analysis_as_in_the_paper(tmp_path):
    made = hits(tmp_path, [0.1, 0.3, 0.7], [0.1, 0.1, 0.5, 0.8], [0.4, 0.4, 0.3, 0.2])
    assert holds(smax.ACTIONS.judge(made)) == [True, True]
    table = smax.ACTIONS.tabulate(made).set_index("share")
    assert table.loc["test_action_attack_mean"].tolist() == pytest.approx([0.1, 0.7])
    assert table.loc["candidate_attack_1"].tolist() == pytest.approx([0.4, 0.2])


def test_trajectory_analysis_otherwise(tmp_path):
    made = hits(tmp_path, [0.7, 0.3, 0.1], [0.5, 0.1, 0.5, 0.8], [0.4, 0.4, 0.3, 0.9])
    assert holds(smax.ACTIONS.judge(made)) == [False, False]


# CADP.


def advised(tmp_path, own, alone, helped, qmix, seeds=3):
    def wins(end):
        return [0.0, 0.0, *[end] * 5]

    runs = {"qmix": [], "qmix_cadp": []}
    for seed in range(seeds):
        steps = {"test_return_mean": [1.0] * 7}
        runs["qmix"].append(run({**steps, "test_battle_won_mean": wins(qmix)}, name="qmix", seed=seed))
        metrics = {"test_battle_won_mean": wins(alone), "test_teacher_battle_won_mean": wins(helped)}
        metrics |= {"confidence_self": [0.4, 0.5, own, own]}
        runs["qmix_cadp"].append(run({**steps, **metrics}, name="qmix", seed=seed, breakpoint=100))
    return trained(tmp_path, runs)


def test_pruning_as_in_the_paper(tmp_path):
    made = advised(tmp_path, own=0.99, alone=0.8, helped=0.82, qmix=0.5)
    assert holds(cadp.judge(made)) == [True, True, True]
    row = cadp.tabulate(made).iloc[-1]
    assert (row["alone (D)"], row["with advice (C)"]) == pytest.approx((0.8, 0.82))
    assert (row["confidence in oneself before pruning"], row["at the end"]) == pytest.approx((0.5, 0.99))


def test_pruning_otherwise(tmp_path):
    assert holds(cadp.judge(advised(tmp_path, own=0.8, alone=0.7, helped=0.85, qmix=0.8))) == [False, False, False]
    assert holds(cadp.judge(advised(tmp_path, own=0.8, alone=0.8, helped=0.8, qmix=0.8, seeds=1))) == [
        False,
        None,
        None,
    ]


# MQ-LAN on SISL.


@pytest.fixture
def sisl(tmp_path):
    """Makes runs whose tests end at given returns, three seeds of each method, beside baselines that were played."""
    for task, paid in (
        ("waterworld", {UNIFORM: -50, IDLE: 0, FORAGE: 30}),
        ("multiwalker", {UNIFORM: -100, IDLE: -100}),
    ):
        lines = [
            f"{task},100,{policy},{seed},{value + (-1) ** seed},100"
            for policy, value in paid.items()
            for seed in (0, 1)
        ]
        (tmp_path / f"{task}_baselines.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")

    def make(collapsed=False, **returns):
        runs = {}
        for name, (method, task, end) in returns.items():
            high = [end + 90.0] * 6 if collapsed and method == "mq_lan" else [end] * 6
            runs[name] = [
                run(
                    {"test_return_mean": [-100.0, *high, *[end + seed] * 8]},
                    name=method,
                    seed=seed,
                    env="sisl",
                    env_args={"env_name": task, "time_limit": 100},
                )
                for seed in (1, 2, 3)
            ]
        return trained(tmp_path, runs)

    def both(water, walk, collapsed=False):
        given = {}
        for task, ends in (("waterworld", water), ("multiwalker", walk)):
            for method, end in zip(lan.METHODS, ends, strict=True):
                given[f"{method}_{task}"] = (method, task, float(end))
        return make(collapsed, **given)

    return both


def test_sisl_as_in_the_paper(sisl):
    made = sisl((20, -40, -60), (-30, -25, -20), collapsed=True)
    verdicts = lan.judge(made)
    # MQ-LAN is ahead on one task and behind on the other: its probabilities of improvement are a half.
    assert holds(verdicts) == [True, None, None, True, True, True, True]
    assert "3 of 3 runs lost more than half" in verdicts[-1].found


def test_sisl_otherwise(sisl):
    verdicts = lan.judge(sisl((-60, -10, 20), (-40, -50, -60)))
    assert holds(verdicts) == [False, False, False, False, False, False, False]


def test_the_sisl_table_and_pictures(sisl, tmp_path):
    made = sisl((20, -10, -60), (-40, -30, -20))
    table = lan.tabulate(made).set_index(["map", "policy"])
    assert table.loc[("waterworld", "mq_lan"), "return"] == pytest.approx(22)
    assert table.loc[("waterworld", FORAGE), "return"] == pytest.approx(30)
    written = {path.name for path in lan.draw(made)}
    pictures = {"curves.png", "aggregates.png", "improvements.png"}
    assert written == pictures | {"iqm.csv", "iqm.md", "improvements.csv", "improvements.md"}
    assert all((tmp_path / name).stat().st_size > 10_000 for name in pictures)


def slots(tmp_path, monkeypatch, u):
    one = run({}, name="mq_lan", seed=1)
    usage = np.ones((1, len(u)))
    monkeypatch.setattr(
        codebook, "read_slots", lambda path: codebook.Slots(np.array([u]), usage, np.zeros((1, len(u)), bool), 0)
    )
    return lan_pictures.judge_codebooks(trained(tmp_path, {"mq_lan_waterworld": [one]}))


def test_codebooks_as_in_the_paper_and_otherwise(tmp_path, monkeypatch):
    origin, edge, between = [0.01, 0.02], [0.95, -0.3], [0.5, 0.5]
    assert holds(slots(tmp_path, monkeypatch, [origin] * 4 + [edge] * 3 + [between] * 13)) == [True, True]
    assert holds(slots(tmp_path, monkeypatch, [between] * 20)) == [False, False]


@pytest.mark.parametrize(("spread", "as_in_the_paper"), [((0.3, 0.05), True), ((0.8, 0.8), False)])
def test_actions_as_in_the_paper_and_otherwise(spread, as_in_the_paper, tmp_path):
    rng = np.random.default_rng(0)
    acted = {f"agent_{i}": rng.uniform(-x, x, (4000, 2)) for i, x in enumerate(spread)}
    np.savez(tmp_path / "action_map_seed1.npz", **acted)
    made = trained(tmp_path, {"qf_lan_waterworld": [run({}, name="qf_lan", seed=1)]})
    assert holds(lan_pictures.judge_action_map(made)) == [as_in_the_paper] * 2


@pytest.mark.parametrize(("mq", "bang", "expected"), [(0.92, 0.01, [True, True]), (0.2, 0.3, [False, False])])
def test_the_game_of_modes(mq, bang, expected, tmp_path):
    runs = {
        name: [run({"test_return_mean": [0.1, end]}, seed=1)] for name, end in (("mq_lan", mq), ("bang_bang_lan", bang))
    }
    made = trained(tmp_path, runs)
    assert holds(lan_pictures.judge_toy(made)) == expected
    assert lan_pictures.tabulate_toy(made)["return"].tolist() == pytest.approx([mq, bang])
