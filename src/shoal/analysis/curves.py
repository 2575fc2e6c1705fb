"""The learning curve of one run, next to its record. Those of several: ``python -m shoal.analysis curves``."""

from pathlib import Path

from shoal.analysis.figures import pyplot, save_figure
from shoal.analysis.records import read_run
from shoal.analysis.wins import with_all_wins
from shoal.recording import metric_names


def draw_run(folder: Path) -> Path | None:
    """Draw a run's tests (win rate if it has one) next to its record; None where no test was recorded.

    Raises:
        UserError: the folder holds no readable record, or cannot be written to.
    """
    (run,) = with_all_wins([read_run(folder)])
    metric = metric_names.judge(run.metrics)
    if metric not in run.metrics:
        return None
    steps, values = run.metrics[metric]
    figure, axes = pyplot().subplots(figsize=(7, 4.2), layout="constrained")
    axes.plot(steps, values, linewidth=1.8, label=run.label)
    axes.set_xlabel("environment steps")
    axes.set_ylabel(metric_names.label(metric))
    if metric_names.is_share(metric, values):
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return save_figure(figure, folder / "learning_curve.png")
