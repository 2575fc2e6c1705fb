"""Learning curves of recorded runs.

    python -m shoal.analysis.curves results/sacred/1 results/sacred/2 ... --out curves.png

Runs of one algorithm and map are one curve: the mean over their seeds, with a band from the worst seed to the best.
"""

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from shoal.utils.errors import UserError

WIN_RATE, RETURN = "test_battle_won_mean", "test_return_mean"


@dataclass(frozen=True)
class RecordedRun:
    """What sacred's files say of one run: its settings and its metrics, name -> (environment steps, values)."""

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def label(self) -> str:
        """Algorithm and map (or suite)."""
        where = self.config.get("env_args", {}).get("map_name") or self.config.get("env", "?")
        return f"{self.config.get('name', '?')} on {where}"


def read_run(folder: Path) -> RecordedRun:
    """Read a run recorded in files.

    Raises:
        UserError: the folder holds no readable record.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        recorded = json.loads((folder / "metrics.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{folder} is not a recorded run (config.json and metrics.json of sacred): {error}.") from error
    metrics = {}
    for name, series in recorded.items():
        values = [float("nan") if v is None else float(v) for v in series["values"]]
        metrics[name] = (np.asarray(series["steps"]), np.asarray(values))
    return RecordedRun(folder, config, metrics)


def mean_curve(
    curves: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lowest and highest value over runs, on the union of their steps up to the shortest run's end.

    Runs test at slightly different steps, so each is interpolated linearly.
    """
    end = min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.concatenate([steps[steps <= end] for steps, _ in curves]))
    values = np.stack([np.interp(grid, steps, y) for steps, y in curves])
    return grid, values.mean(0), values.min(0), values.max(0)


def draw(runs: list[RecordedRun], metric: str, out: Path, title: str = "") -> Path:
    """Draw ``metric`` of the runs into the PNG ``out``.

    Raises:
        UserError: no run has the metric.
    """
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    groups: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for run in runs:
        if metric in run.metrics and len(run.metrics[metric][0]) > 0:
            groups[run.label].append(run.metrics[metric])
    if not groups:
        known = sorted({name for run in runs for name in run.metrics})
        raise UserError(f"No run recorded '{metric}'; recorded are: {', '.join(known) or 'no metrics at all'}.")
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for label, curves in groups.items():
        steps, mean, low, high = mean_curve(curves)
        seeds = f" ({len(curves)} seeds)" if len(curves) > 1 else ""
        (line,) = axes.plot(steps, mean, label=f"{label}{seeds}", linewidth=1.8)
        if len(curves) > 1:
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("test win rate" if metric == WIN_RATE else metric.replace("_", " "))
    if metric == WIN_RATE:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    if title:
        axes.set_title(title)
    figure.savefig(out, dpi=150)
    plt.close(figure)
    return out


def draw_run(folder: Path) -> Path | None:
    """Draw one run's test curve (win rate if it has one) beside its record; None where no test was recorded."""
    run = read_run(folder)
    for metric in (WIN_RATE, RETURN):
        if metric in run.metrics:
            return draw([run], metric, folder / "learning_curve.png")
    return None


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of recorded runs")
    parser.add_argument("--metric", default=WIN_RATE)
    parser.add_argument("--out", type=Path, default=Path("learning_curves.png"))
    parser.add_argument("--title", default="")
    args = parser.parse_args(argv)
    try:
        print(draw([read_run(folder) for folder in args.runs], args.metric, args.out, args.title))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
