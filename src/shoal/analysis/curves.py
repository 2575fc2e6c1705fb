"""The learning curve of one run, beside its record. Those of several: ``python -m shoal.analysis curves``."""

from pathlib import Path

from shoal.analysis.figures import pyplot, save_figure
from shoal.analysis.records import read_run

WIN_RATE, RETURN = "test_battle_won_mean", "test_return_mean"


def draw_run(folder: Path) -> Path | None:
    """Draw a run's tests (win rate if it has one) beside its record; None where no test was recorded.

    Raises:
        UserError: the folder holds no readable record, or cannot be written to.
    """
    run = read_run(folder)
    metric = next((name for name in (WIN_RATE, RETURN) if name in run.metrics), None)
    if metric is None:
        return None
    figure, axes = pyplot().subplots(figsize=(7, 4.2), layout="constrained")
    axes.plot(*run.metrics[metric], linewidth=1.8, label=run.label)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("test win rate" if metric == WIN_RATE else metric.replace("_", " "))
    if metric == WIN_RATE:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return save_figure(figure, folder / "learning_curve.png")
