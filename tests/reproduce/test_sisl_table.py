"""The table of methods on SISL, from recorded runs and recorded baselines."""

import csv

import numpy as np
import pandas as pd
import pytest

from shoal.analysis.records import read_run
from shoal.analysis.study import study
from shoal.recording.metric_names import TEST_RETURN
from shoal.reproduce import sisl
from shoal.reproduce.sisl_baselines import COLUMNS, FORAGE, IDLE, UNIFORM
from shoal.utils.errors import UserError
from support.record import record

PAID = {("waterworld", UNIFORM): -50, ("waterworld", IDLE): 0, ("waterworld", FORAGE): 30}
PAID |= {("multiwalker", UNIFORM): -104, ("multiwalker", IDLE): -103}


def baselines(folder, task, steps=200):
    path = folder / f"{task}-{steps}.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for (env, policy), paid in PAID.items():
            if env == task:
                table.writerows([env, steps, policy, seed, paid + (-1) ** seed, steps] for seed in range(10))
    return path


@pytest.fixture
def results(tmp_path):
    """Three seeds of two methods on two tasks; the second one loses in Waterworld what it had."""
    number = 0
    for name, task, last in (
        ("mq_lan", "waterworld", [10, 12, 14]),
        ("qmix", "waterworld", [-40, -45, -50]),
        ("mq_lan", "multiwalker", [-60, -50, -40]),
        ("qmix", "multiwalker", [-30, -20, -55]),
    ):
        for seed, end in enumerate(last):
            number += 1
            start = -100.0
            tests = np.linspace(start, end, 6).tolist() + [end] * 14
            if name == "qmix" and task == "waterworld":
                tests[4:10] = [20.0] * 6
            args = {"env_name": task, "time_limit": 200, "kwargs": {"of": task}}
            folder = tmp_path / "sacred" / str(number)
            curve = {TEST_RETURN: ([100 * k for k in range(20)], tests)}
            record(folder, curve, "COMPLETED", name=name, seed=seed, env="sisl", test_interval=100, env_args=args)
    return tmp_path / "sacred"


def test_tables(results, tmp_path, capsys):
    files = [str(baselines(tmp_path, task)) for task in ("waterworld", "multiwalker")]
    assert sisl.main([str(results), "--baselines", *files, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "mq_lan" in printed
    assert IDLE in printed
    returns = pd.read_csv(tmp_path / "out" / "returns.csv").set_index(["map", "policy"])
    assert returns.loc[("waterworld", "mq_lan"), "return"] == pytest.approx(12)
    assert returns.loc[("waterworld", IDLE), "return"] == pytest.approx(0)
    low, high = returns.loc[("waterworld", "mq_lan"), ["return low", "return high"]]
    assert 10 <= low < 12 < high <= 14
    assert returns["collapsed"].dropna().to_dict() == {
        ("multiwalker", "mq_lan"): 0.0,
        ("multiwalker", "qmix"): 0.0,
        ("waterworld", "mq_lan"): 0.0,
        ("waterworld", "qmix"): 1.0,
    }
    iqm = pd.read_csv(tmp_path / "out" / "iqm.csv").set_index("policy")
    # 1 is the forager in Waterworld, and in Multiwalker the best method's mean, qmix's -35.
    scores = np.array([[10, 12, 14], [-60, -50, -40]], dtype=float)
    anchored = np.sort(np.concatenate([(scores[0] + 50) / 80, (scores[1] + 104) / 69]))[1:-1].mean()
    assert iqm.loc["mq_lan", "anchored"] == pytest.approx(anchored)
    minmax = np.sort(np.concatenate([(scores[0] + 50) / 64, (scores[1] + 60) / 40]))[1:-1].mean()
    assert iqm.loc["mq_lan", "minmax"] == pytest.approx(minmax)
    assert iqm.loc[f"({IDLE})", "anchored"] == pytest.approx(((0 + 50) / 80 + (-103 + 104) / 69) / 2)
    better = pd.read_csv(tmp_path / "out" / "improvements.csv")
    assert better[["algorithm", "over"]].to_numpy().tolist() == [["mq_lan", "qmix"]]
    assert better["probability"][0] == pytest.approx((1 + 2 / 9) / 2)


def test_without_a_method_above_random_there_is_no_anchored_scale(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PAID, ("multiwalker", UNIFORM), -10)
    files = [str(baselines(tmp_path, task)) for task in ("waterworld", "multiwalker")]
    assert sisl.main([str(results), "--baselines", *files]) == 0
    printed = capsys.readouterr()
    assert "minmax" in printed.out
    assert "anchored" not in printed.out
    assert "nothing to anchor a scale at" in printed.err
    assert "run 1 has env_args.kwargs={'of': 'waterworld'}, which the baselines have not" in printed.err


def test_the_tail_is_at_least_five_tests(tmp_path):
    tests = [0.0] * 15 + [1, 2, 3, 4, 5.0]
    run = read_run(record(tmp_path / "1", {TEST_RETURN: ([100 * k for k in range(20)], tests)}, test_interval=100))
    made = study([run], TEST_RETURN, "tail", ["0:1"])
    assert made.cells["s2q", "matrix_game"].scores.tolist() == [3.0]


def test_refusals(results, tmp_path, capsys):
    water, other = baselines(tmp_path, "waterworld"), baselines(tmp_path, "multiwalker", 500)
    broken = tmp_path / "broken.csv"
    broken.write_text("a,b\n1,2\n")
    for files, words in (
        ([water], "nothing of multiwalker"),
        ([water, other], "write it again with --max-cycles 200"),
        ([broken], "other columns"),
        ([tmp_path / "none.csv"], "cannot be read"),
    ):
        assert sisl.main([str(results), "--baselines", *map(str, files)]) == 1
        assert words in capsys.readouterr().err
    elsewhere = record(tmp_path / "elsewhere" / "1", {TEST_RETURN: ([0, 100], [0, 1])}, test_interval=100)
    with pytest.raises(UserError, match="not on SISL"):
        sisl.horizons_of(study([read_run(elsewhere)], TEST_RETURN, "tail"))
