"""What teams do over training: kinds of action in tests, and which of S2Q's sub-values holds which kind.

    python -m shoal.reproduce.actions results/sacred/1 results/sacred/2 ... --out actions.png

For each algorithm and map, the mean over its seeds with a band from the lowest to the highest: the share of each class
of actions that the environment declares, and the win rate and length of episodes, all in tests; for S2Q also what each
sub-value's candidate is, and how often the team followed which. It is the trajectory analysis of S2Q's paper
(arXiv 2602.17062, sections 5.2 and H.4). Shares are of the choices of agents alive.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.analysis.figures import plot_mean, pyplot, save_figure
from shoal.analysis.records import RecordedRun
from shoal.analysis.seeds import by_label, curves_of
from shoal.analysis.wins import with_all_wins
from shoal.recording import metric_names
from shoal.reproduce.picture_command import picture_of_runs
from shoal.utils.errors import UserError

EP_LENGTH = "test_ep_length_mean"
SUB_INDEX = re.compile(r"sub_index_(\d+)")


@dataclass(frozen=True)
class Panel:
    """One diagram: label of a line -> its metric and colour."""

    title: str
    lines: dict[str, tuple[str, str]]
    is_share: bool = True


def action_classes(run: RecordedRun) -> list[str]:
    """The classes whose shares in tests the run recorded.

    Raises:
        UserError: there are none.
    """
    found = [re.fullmatch("test_action_(.+)_mean", name) for name in run.metrics]
    classes = [match[1] for match in found if match and curves_of([run], match[0])]
    if not classes:
        raise UserError(
            f"{run.folder} recorded no test_action_<class>_mean: give runs with at least one test, "
            "of an environment that declares action_classes, such as smax."
        )
    return classes


def panels(runs: list[RecordedRun]) -> list[list[Panel]]:
    """Rows of diagrams for the seeds of one algorithm and map: its tests, then S2Q's sub-values if it has any.

    Raises:
        UserError: a run recorded no shares of classes.
    """
    classes = list(dict.fromkeys(name for run in runs for name in action_classes(run)))
    colours = {name: f"C{i}" for i, name in enumerate(classes)}  # the same in every diagram
    judge = metric_names.judge({name for run in runs for name in run.metrics})
    values = [value for _, curve in curves_of(runs, judge) for value in curve]
    tests = [
        Panel("actions in tests", {name: (f"test_action_{name}_mean", colours[name]) for name in classes}),
        Panel(
            metric_names.label(judge),
            {metric_names.label(judge).removeprefix("test "): (judge, "black")},
            metric_names.is_share(judge, values),
        ),
        Panel("length of test episodes", {"steps": (EP_LENGTH, "black")}, is_share=False),
    ]
    copies = sorted({int(match[1]) for run in runs for name in run.metrics if (match := SUB_INDEX.fullmatch(name))})
    if not copies:
        return [tests]
    names = {k: "$Q^{tot}$" if k == 0 else f"$Q_{{{k}}}$" for k in copies}
    candidates = [
        Panel(f"candidate of {names[k]}", {name: (f"candidate_{name}_{k}", colours[name]) for name in classes})
        for k in copies
    ]
    followed = {names[k]: (f"sub_index_{k}", str(0.75 * k / max(copies[-1], 1))) for k in copies}  # black to grey
    return [tests, [*candidates, Panel("followed, in replayed episodes", followed)]]


def draw(runs: list[RecordedRun], out: Path) -> Path:
    """Draw the runs' actions into the picture ``out``.

    Raises:
        UserError: a run recorded no shares of classes, or ``out`` cannot be written.
    """
    runs = with_all_wins(runs)
    blocks = {label: panels(seeds) for label, seeds in by_label(runs).items()}
    rows = [(label, seeds, row) for label, seeds in by_label(runs).items() for row in blocks[label]]
    widest = max(len(row) for _, _, row in rows)
    figure = pyplot().figure(figsize=(3.2 * widest, 3.0 * len(rows)), layout="constrained")
    for part, (label, seeds, row) in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        if row is blocks[label][0]:
            part.suptitle(label + (f" ({len(seeds)} seeds)" if len(seeds) > 1 else ""), fontweight="bold")
        for axes, panel in zip(part.subplots(1, len(row), squeeze=False)[0], row, strict=True):
            draw_panel(axes, panel, seeds)
    return save_figure(figure, out)


def draw_panel(axes: Any, panel: Panel, runs: list[RecordedRun]) -> None:
    """Draw the lines of ``panel`` that any of the runs recorded."""
    for label, (metric, colour) in panel.lines.items():
        curves = curves_of(runs, metric)
        if curves:
            plot_mean(axes, curves, label, color=colour, marker=".", markersize=4)
    axes.set_title(panel.title, fontsize="medium")
    axes.set_xlabel("environment steps")
    if panel.is_share:
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    if len(axes.get_lines()) > 1:
        axes.legend(framealpha=0.7, edgecolor="none", fontsize="small")


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    return picture_of_runs(draw, __doc__, "actions.png", argv)


if __name__ == "__main__":
    sys.exit(main())
