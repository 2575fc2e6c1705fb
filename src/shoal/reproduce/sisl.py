"""Methods on SISL next to policies that learn nothing.

    python -m shoal.reproduce.sisl_baselines --env waterworld --max-cycles 200 --csv results/waterworld.csv
    python -m shoal.reproduce.sisl_baselines --env multiwalker --max-cycles 200 --csv results/multiwalker.csv
    python -m shoal.reproduce.sisl results/sacred --baselines results/waterworld.csv results/multiwalker.csv

A run scores the mean of the last tenth of its tests. The first table has these returns, as they are, with what became
of the runs' gains (shoal.reproduce.collapse). The second has the interquartile mean over all tasks, by two scales:
`minmax` (least and greatest score of all runs are 0 and 1) and `anchored` (acting at random is 0; 1 is, in Waterworld,
a scripted forager and elsewhere the best method's mean). The third has how probably one method beats another.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shoal.analysis import intervals, tables
from shoal.analysis.comparison import Comparison, compare
from shoal.analysis.sources import gather
from shoal.analysis.study import Study, study
from shoal.config import files, old_names
from shoal.envs.sisl import SislSettings
from shoal.recording.metric_names import TEST_RETURN
from shoal.reproduce.collapse import collapse
from shoal.reproduce.sisl_baselines import COLUMNS, FORAGE, IDLE, UNIFORM
from shoal.utils.ending import exit_status
from shoal.utils.errors import UserError

Baselines = Mapping[str, Mapping[str, np.ndarray]]
"""Task -> policy -> returns of its episodes."""


def read_baselines(paths: Sequence[Path], horizons: Mapping[str, int]) -> Baselines:
    """What `sisl_baselines --csv` wrote.

    Args:
        paths: its files.
        horizons: steps of an episode in the runs that the policies are compared with, for each task.

    Raises:
        UserError: a file cannot be read, has other episodes than the runs, or a task has none.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in paths:
        try:
            rows = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): write it with sisl_baselines --csv.") from error
        if list(rows.columns) != COLUMNS:
            raise UserError(f"{path} has other columns than {', '.join(COLUMNS)}: write it with sisl_baselines --csv.")
        for (task, policy), episodes in rows.groupby(["env", "policy"], sort=False):
            steps = int(episodes["max_cycles"].iloc[0])
            if horizons.get(task, steps) != steps:
                raise UserError(
                    f"{path} has episodes of {steps} steps, but the runs on {task} have {horizons[task]}: "
                    f"write it again with --max-cycles {horizons[task]}."
                )
            found.setdefault(task, {})[policy] = episodes["return"].to_numpy(float)
    missing = [task for task in horizons if task not in found]
    if missing:
        raise UserError(f"--baselines has nothing of {', '.join(missing)}: write that with sisl_baselines --csv.")
    return found


def horizons_of(made: Study) -> dict[str, int]:
    """Steps of an episode, for each task.

    Raises:
        UserError: a task is none of SISL's, or has runs with different ones.
    """
    found: dict[str, int] = {}
    for (_, task), seeds in made.cells.items():
        for run in seeds.runs:
            if run.config.get("env") != "sisl":
                raise UserError(f"Run {run.id} is on {task}, not on SISL: leave it out with --where env=sisl.")
            steps = int(old_names.current(run.config)["env_args"]["time_limit"])
            if found.setdefault(task, steps) != steps:
                raise UserError(f"Runs on {task} have time_limit={found[task]} and {steps}: choose one with --where.")
    return found


def other_games(made: Study) -> list[str]:
    """A sentence for each run whose game is not the one that the policies of the baselines played."""
    notes = []
    for (_, task), seeds in made.cells.items():
        played = SislSettings(**files.load("envs", "sisl", task)["env_args"])
        for run in seeds.runs:
            theirs = old_names.current(run.config)["env_args"]
            for key in ("kwargs", "reward_aggregation", "reward_scale", "fix_double_thrust"):
                if theirs.get(key, getattr(played, key)) != getattr(played, key):
                    notes.append(f"run {run.id} has env_args.{key}={theirs[key]}, which the baselines have not.")
    return notes


def returns_of(made: Study, algorithm: str, task: str) -> np.ndarray:
    """The scores as they are, not on the task's scale: ``[R]``."""
    scale = made.scales[task]
    raw: np.ndarray = scale.low + made.cells[algorithm, task].scores * (scale.high - scale.low)
    return raw


def returns_table(made: Study, baselines: Baselines) -> pd.DataFrame:
    """Every policy and method on each task: return, its error or interval, what became of the gains."""
    rows: list[dict[str, Any]] = []
    for task in made.tasks:
        for policy, returns in baselines[task].items():
            error = float(returns.std(ddof=1) / np.sqrt(len(returns)))
            row = {"map": task, "policy": policy, "n": len(returns), "return": returns.mean()}
            rows.append(row | {"return low": row["return"] - 1.96 * error, "return high": row["return"] + 1.96 * error})
        for algorithm in made.algorithms:
            if (algorithm, task) not in made.cells:
                continue
            seeds, raw = made.cells[algorithm, task], returns_of(made, algorithm, task)
            mean = intervals.mean_curve(raw[:, None])
            row = {"map": task, "policy": algorithm, "n": len(raw), "return": raw.mean()}
            row |= {"return low": float(mean.low[0]), "return high": float(mean.high[0])} if len(raw) >= 3 else {}
            lost = collapse(seeds.values, float(baselines[task][UNIFORM].mean()))
            row |= {"least": raw.min(), "greatest": raw.max(), "best test": seeds.values.max()}
            row |= {"collapsed": lost.collapsed.mean(), "lost at the end": lost.at_the_end.mean()}
            rows.append(row)
    return pd.DataFrame(rows)


def scaled(made: Study, comparison: Comparison, baselines: Baselines) -> dict[str, dict[str, np.ndarray]]:
    """Scores ``[R, M]`` of every method by both scales, and by both what doing nothing scores ``[1, M]``.

    Where no method beats acting at random and there is no forager, there is no `anchored` scale.
    """
    low, high = (np.array([getattr(made.scales[task], end) for task in comparison.tasks]) for end in ("low", "high"))
    raw = {algorithm: low + scores * (high - low) for algorithm, scores in comparison.scores.items()}
    every = np.concatenate(list(raw.values()))
    random = np.array([baselines[task][UNIFORM].mean() for task in comparison.tasks])
    reference = np.max([scores.mean(0) for scores in raw.values()], axis=0)
    for m, task in enumerate(comparison.tasks):
        if FORAGE in baselines[task]:
            reference[m] = baselines[task][FORAGE].mean()
    raw |= {f"({IDLE})": np.array([[baselines[task][IDLE].mean() for task in comparison.tasks]])}
    ends = {"minmax": (every.min(0), every.max(0))}
    if (reference > random).all():
        ends["anchored"] = random, reference
    return {
        scale: {name: (scores - zero) / np.where(one > zero, one - zero, 1.0) for name, scores in raw.items()}
        for scale, (zero, one) in ends.items()
    }


def iqm_table(by_scale: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Interquartile mean of every method by every scale; intervals from three runs on."""
    rows: dict[str, dict[str, Any]] = {}
    for scale, methods in by_scale.items():
        for name, scores in methods.items():
            iqm = intervals.aggregates(scores)["IQM"]
            row = rows.setdefault(name, {"policy": name, "runs": len(scores)})
            row[scale] = float(iqm.value)
            if len(scores) >= 3:
                row |= {f"{scale} low": float(iqm.low), f"{scale} high": float(iqm.high)}
    return pd.DataFrame(rows.values())


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m shoal.reproduce.sisl", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="recorded runs, as for python -m shoal.analysis")
    parser.add_argument("--baselines", nargs="+", type=Path, required=True, help="files of sisl_baselines --csv")
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE[,VALUE]", help="only these runs")
    parser.add_argument("--out", type=Path, help="also write the tables there, as CSV and markdown")
    args = parser.parse_args(argv)
    return exit_status(lambda: _compare(args))


def _compare(args: argparse.Namespace) -> int:
    made = study(gather(args.runs, args.where), TEST_RETURN, "tail")
    for left in made.left_out:
        print(f"note: run {left.run.id} ({left.algorithm}) does not count: {left.reason}.", file=sys.stderr)
    baselines = read_baselines(args.baselines, horizons_of(made))
    comparison = compare(made)
    by_scale = scaled(made, comparison, baselines)
    notes = [*comparison.notes, *other_games(made)]
    if "anchored" not in by_scale:
        notes.append("no method beats acting at random on a task: there is nothing to anchor a scale at.")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    shown = {
        "returns": returns_table(made, baselines),
        "iqm": iqm_table(by_scale),
        "improvements": tables.improvements_table(comparison),
    }
    for name, table in shown.items():
        print(f"\n{tables.markdown(table)}")
        if args.out:
            tables.make_folder(args.out)
            tables.write(table, args.out / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
