"""A reproduction of seconds, and its command line: python tests/support/tiny.py tiny --out DIR"""

import sys

import pandas as pd

from shoal.analysis import plots
from shoal.analysis.study import study
from shoal.reproduce.__main__ import main
from shoal.reproduce.declaration import Arm, Reproduction, Verdict

SETTINGS = {
    "runner": "episode",
    "batch_size": 4,
    "buffer_size": 40,
    "t_max": 1000,
    "test_interval": 200,
    "test_nepisode": 2,
    "save_model_interval": 100,
    "save_buffer": True,
    "use_cuda": False,
}


def draw(trained):
    return [plots.curves(study(trained.all), trained.out / "curves.png")]


def last_returns(trained):
    return [float(run.metrics["test_return_mean"][1][-1]) for run in trained.runs["vdn"]]


def tabulate(trained):
    seeds = [run.config["seed"] for run in trained.runs["vdn"]]
    return pd.DataFrame({"seed": seeds, "return": last_returns(trained)})


def judge(trained):
    returns = last_returns(trained)
    return [Verdict("VDN misses the best joint action", f"returns {returns}", max(returns) < 8)]


TINY = Reproduction(
    id="tiny",
    paper="a paper",
    figure="figure 0",
    claim="VDN prefers what is safe.",
    paper_numbers="7 of 8.",
    arms=(Arm("vdn", "VDN", "vdn", "matrix_game", SETTINGS),),
    seeds=2,
    minutes=0.5,
    time_from="measured",
    draw=draw,
    tabulate=tabulate,
    judge=judge,
    quick={"t_max": 20},
    note="A game of one step.",
)

if __name__ == "__main__":
    sys.exit(main(among=[TINY]))
