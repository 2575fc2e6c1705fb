"""Learning curves of recorded runs.

    python -m shoal.analysis.curves results/sacred/1 results/sacred/2 ... --out curves.png

Runs of one algorithm and map are one curve: the mean over their seeds, with a band from the worst seed to the best. The
records of a run that was resumed are put together.
"""

import argparse
import sys
from pathlib import Path

from shoal.analysis.figures import plot_mean, pyplot, save_figure
from shoal.analysis.records import RecordedRun, by_label, curves_of, read_run, read_runs
from shoal.utils.errors import UserError

WIN_RATE, RETURN = "test_battle_won_mean", "test_return_mean"


def draw(runs: list[RecordedRun], metric: str, out: Path, title: str = "") -> Path:
    """Draw ``metric`` of the runs into the PNG ``out``.

    Raises:
        UserError: no run has the metric, or ``out`` cannot be written.
    """
    groups = {label: curves_of(seeds, metric) for label, seeds in by_label(runs).items()}
    if not any(groups.values()):
        known = sorted({name for run in runs for name in run.metrics})
        raise UserError(f"No run recorded '{metric}'; recorded are: {', '.join(known) or 'no metrics at all'}.")
    figure, axes = pyplot().subplots(figsize=(7, 4.2), layout="constrained")
    for label, curves in groups.items():
        if curves:
            plot_mean(axes, curves, label + (f" ({len(curves)} seeds)" if len(curves) > 1 else ""))
    axes.set_xlabel("environment steps")
    axes.set_ylabel("test win rate" if metric == WIN_RATE else metric.replace("_", " "))
    if metric == WIN_RATE:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    if title:
        axes.set_title(title)
    return save_figure(figure, out)


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
        print(draw(read_runs(args.runs), args.metric, args.out, args.title))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
