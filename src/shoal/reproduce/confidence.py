"""How much CADP's agents use each other's advice in training: confidence matrices, and what pruning does to the team.

    python -m shoal.reproduce.confidence results/sacred/1 results/sacred/2 ... --out confidence.png

For each algorithm and map, from left to right: every agent's confidence in itself over training (one line an agent,
black their mean, dashed where pruning begins), the tests of the team that executes alone and of the one that exchanges
advice, and the confidence matrix (row: who receives advice) at the start, on both sides of the breakpoint and at the
end. All are means over the seeds given. Of teams of more than ten agents only the matrix's diagonal is recorded.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from shoal.analysis.figures import plot_mean, pyplot, save_figure
from shoal.analysis.records import RecordedRun
from shoal.analysis.seeds import by_label, curves_of, mean_curve
from shoal.analysis.wins import with_all_wins
from shoal.recording import metric_names
from shoal.reproduce.picture_command import picture_of_runs
from shoal.utils.errors import UserError

ENTRY = re.compile(r"confidence_(\d+)_(\d+)")
SELF = "confidence_self"
N_MATRICES = 4


def confidence(runs: list[RecordedRun]) -> tuple[np.ndarray, np.ndarray]:
    """Confidence matrices over training, a mean over the seeds: environment steps ``[S]``, matrices ``[S, N, N]``.

    NaN where nothing was recorded.

    Raises:
        UserError: a run recorded no confidence.
    """
    for run in runs:
        if not curves_of([run], SELF):
            raise UserError(
                f"{run.folder} recorded no {SELF}: give runs of an algorithm with agent=att_rnn, such as qmix_cadp, "
                "that have trained."
            )
    entries = {(int(m[1]), int(m[2])): m[0] for run in runs for name in run.metrics if (m := ENTRY.fullmatch(name))}
    size = 1 + max(i for i, _ in entries)
    steps, *_ = mean_curve(curves_of(runs, SELF))
    matrices = np.full((len(steps), size, size), np.nan)
    for (i, j), name in entries.items():
        at, mean, _, _ = mean_curve(curves_of(runs, name))
        matrices[:, i, j] = np.interp(steps, at, mean)
    return steps, matrices


def moments(steps: np.ndarray, breakpoint: int | None) -> list[int]:
    """Which records to draw: the first, the last before the breakpoint, the first well after it, the last one.

    Without a breakpoint among them, evenly spread ones.
    """
    last = len(steps) - 1
    if breakpoint is None or not steps[0] <= breakpoint < steps[-1]:
        chosen = np.linspace(0, last, N_MATRICES).round().astype(int).tolist()
    else:
        before = int(np.searchsorted(steps, breakpoint, side="right")) - 1
        chosen = [0, before, (before + 1 + last) // 2, last]
    return sorted(set(chosen))


def draw(runs: list[RecordedRun], out: Path) -> Path:
    """Draw the runs' confidences into the picture ``out``.

    Raises:
        UserError: a run recorded no confidence, or ``out`` cannot be written.
    """
    groups = by_label(with_all_wins(runs))
    drawn = {label: confidence(seeds) for label, seeds in groups.items()}
    plt = pyplot()
    figure, rows = plt.subplots(
        len(groups), 2 + N_MATRICES, figsize=(18, 3.3 * len(groups)), layout="constrained", squeeze=False
    )
    for (label, seeds), row in zip(groups.items(), rows, strict=True):
        steps, matrices = drawn[label]
        begins = seeds[0].config.get("breakpoint")
        draw_self_confidence(row[0], label, steps, matrices, begins)
        draw_tests(row[1], seeds, begins)
        at = moments(steps, begins)
        for axes, k in zip(row[2:], at, strict=False):
            picture = axes.imshow(matrices[k], vmin=0, vmax=1, cmap="viridis")
            axes.set_title(f"at {int(steps[k]):,}", fontsize="medium")
            axes.set_xlabel("sender")
            axes.set_ylabel("receiver")
            axes.set_xticks(range(matrices.shape[1]))
            axes.set_yticks(range(matrices.shape[1]))
        for axes in row[2 + len(at) :]:
            axes.set_axis_off()
        figure.colorbar(picture, ax=row[-1], label="confidence")
    return save_figure(figure, out)


def draw_self_confidence(
    axes: Any, label: str, steps: np.ndarray, matrices: np.ndarray, breakpoint: int | None
) -> None:
    """Every agent's confidence in itself and the team's mean, over training."""
    own = np.diagonal(matrices, axis1=1, axis2=2)  # [S, N]
    axes.plot(steps, own, linewidth=0.9, alpha=0.7)
    axes.plot(steps, np.nanmean(own, axis=1), color="black", linewidth=1.8)
    axes.set_title(f"{label}: confidence in oneself", fontsize="medium")
    axes.set_ylim(-0.02, 1.02)
    _over_training(axes, breakpoint, steps[-1])


def draw_tests(axes: Any, runs: list[RecordedRun], breakpoint: int | None) -> None:
    """What judges their tests, of both executions."""
    metric = metric_names.judge({name for run in runs for name in run.metrics})
    end = 0
    for title, name in (
        ("alone (D)", metric),
        ("with advice (C)", metric.replace(metric_names.TEST, f"{metric_names.TEST}teacher_", 1)),
    ):
        curves = curves_of(runs, name)
        if curves:
            plot_mean(axes, curves, title)
            end = max(end, *(int(steps[-1]) for steps, _ in curves))
    axes.set_title(metric_names.label(metric), fontsize="medium")
    if axes.get_lines():
        axes.legend(framealpha=0.7, edgecolor="none", fontsize="small")
    _over_training(axes, breakpoint, end)


def _over_training(axes: Any, breakpoint: int | None, end: float) -> None:
    if breakpoint is not None and breakpoint <= end:
        axes.axvline(breakpoint, color="grey", linestyle="--", linewidth=1)
    axes.set_xlabel("environment steps")
    axes.grid(alpha=0.3)


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    return picture_of_runs(draw, __doc__, "confidence.png", argv)


if __name__ == "__main__":
    sys.exit(main())
