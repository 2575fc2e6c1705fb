"""Pictures of a study: learning curves, aggregates, performance profiles, probabilities of improvement, efficiency."""

import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import EngFormatter

from shoal.analysis.comparison import Comparison
from shoal.analysis.figures import pyplot, save_figure
from shoal.analysis.intervals import AGGREGATES, CONFIDENCE, RESAMPLES, Estimate, iqm_curve, mean_curve
from shoal.analysis.measured import SCORES
from shoal.analysis.study import Study
from shoal.recording import metric_names
from shoal.utils.errors import UserError

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
"""Okabe and Ito's, which colour-blind readers can tell apart."""
BOOTSTRAP = f"{CONFIDENCE:.0%} stratified bootstrap intervals ({RESAMPLES:,} resamples)"
THRESHOLDS = np.linspace(0, 1, 101)


def curves(study: Study, out: Path, over: str = "steps", title: str = "") -> Path:
    """Learning curves, a diagram for each task, and one of all common tasks if there are several.

    Args:
        study: the runs. Those that do not count are dotted, with a cross where they ended.
        out: the picture.
        over: ``steps`` of the environment, or ``hours`` of the runs' clocks.
        title: above all.

    Raises:
        UserError: ``out`` cannot be written, or hours are wanted and no run recorded times.
    """
    if over == "hours" and not study.has_clock:
        raise UserError("Not all of these records hold times: draw over steps.")
    common = [task for task in study.tasks if all((a, task) in study.cells for a in study.algorithms)]
    together = over == "steps" and len(common) > 1
    panels = [*study.tasks, *([""] if together else [])]
    figure, grid = _panels(len(panels))
    for axes, task in zip(grid, panels, strict=True):
        if task:
            _task_curves(axes, study, task, over)
        else:
            _all_tasks_curve(axes, study, common)
        axes.grid(alpha=0.3)
    _common_legend(figure, grid, title)
    units = " ".join(dict.fromkeys(scale.text for scale in study.scales.values())) if together else ""
    clock = " Hours are each run's own clock; machines may have been shared." if over == "hours" else ""
    dotted = " Dotted: runs that do not count, up to where they ended." if study.left_out else ""
    _note(
        figure,
        f"Mean over runs of values as recorded, {BOOTSTRAP}.{' IQM: ' + units + '.' if units else ''}{clock}{dotted}",
    )
    return save_figure(figure, out)


def _task_curves(axes: Any, study: Study, task: str, over: str) -> None:
    for algorithm in study.algorithms:
        if (algorithm, task) not in study.cells:
            continue
        seeds = study.cells[algorithm, task]
        x = study.grids[task] if over == "steps" else seeds.hours.mean(axis=0)
        _line(axes, x, mean_curve(seeds.values), algorithm, _colour(study, algorithm))
    for left in study.left_out:
        if left.run.task == task and study.metric in left.run.metrics and not left.run.config.get("evaluate"):
            steps, values = left.run.metrics[study.metric]
            x = steps if over == "steps" else left.run.clock.get(study.metric, np.full(len(steps), math.nan)) / 3600
            kept = steps <= study.horizon(task)
            colour = _colour(study, left.algorithm)
            axes.plot(x[kept], values[kept], color=colour, linestyle=":", linewidth=1, marker="x", markevery=[-1])
    counts = {len(s.runs) for (_, t), s in study.cells.items() if t == task}
    runs = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    axes.set_title(f"{task} ({runs} run{'' if counts == {1} else 's'})", fontsize="medium")
    axes.set_xlabel("environment steps" if over == "steps" else "hours")
    if over == "steps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel(metric_names.label(study.metric))
    if study.scales[task].is_share:
        axes.set_ylim(-0.02, 1.02)


def _all_tasks_curve(axes: Any, study: Study, tasks: list[str]) -> None:
    share = np.linspace(0, 1, 41)
    for algorithm in study.algorithms:
        n = min(len(study.cells[algorithm, task].runs) for task in tasks)
        scores = [
            np.stack([np.interp(share, study.grids[task] / study.horizon(task), values) for values in seeds.values[:n]])
            for task in tasks
            for seeds in [study.cells[algorithm, task]]
        ]
        scaled = np.stack([study.scales[task](s) for task, s in zip(tasks, scores, strict=True)], axis=1)  # [R, M, P]
        _line(axes, share, iqm_curve(scaled), algorithm, _colour(study, algorithm))
    axes.set_title(f"{len(tasks)} maps together, IQM", fontsize="medium")
    axes.set_xlabel("share of the map's environment steps")
    axes.set_ylabel("normalised score")
    axes.set_ylim(-0.02, 1.02)


def aggregates(study: Study, comparison: Comparison, out: Path, title: str = "") -> Path:
    """IQM, median, mean and optimality gap, each with its interval, an algorithm a line."""
    names = list(comparison.scores)
    height = 1.5 + 0.36 * len(names)
    figure, row = pyplot().subplots(1, len(AGGREGATES), figsize=(11, height), layout="constrained", sharey=True)
    estimates = comparison.aggregates
    for axes, aggregate in zip(row, AGGREGATES, strict=True):
        for k, algorithm in enumerate(names):
            _bar(axes, k, estimates[algorithm][aggregate], _colour(study, algorithm))
        axes.set_title(aggregate + (" (small is good)" if aggregate == "optimality gap" else ""), fontsize="medium")
        _name_rows(axes, names)
    _finish(figure, study, comparison, title)
    return save_figure(figure, out)


def profiles(study: Study, comparison: Comparison, out: Path, title: str = "") -> Path:
    """Performance profiles: the share of runs that score above each threshold."""
    figure, (axes,) = _panels(1, width=7)
    for algorithm, curve in comparison.profiles(THRESHOLDS).items():
        _line(axes, THRESHOLDS, curve, algorithm, _colour(study, algorithm), drawstyle="steps-post")
    axes.set_xlabel("normalised score")
    axes.set_ylabel("share of runs above it")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    _finish(figure, study, comparison, title)
    return save_figure(figure, out)


def improvements(study: Study, comparison: Comparison, out: Path, title: str = "") -> Path:
    """Probability of improvement, a pair of algorithms a line.

    Raises:
        UserError: there is one algorithm only.
    """
    pairs = comparison.improvements
    if not pairs:
        raise UserError(f"{study.algorithms[0]} alone: a probability of improvement needs two algorithms.")
    figure, axes = pyplot().subplots(figsize=(7, 1.5 + 0.32 * len(pairs)), layout="constrained")
    for k, ((x, _), estimate) in enumerate(pairs.items()):
        _bar(axes, k, Estimate(*(v[0] for v in (estimate.value, estimate.low, estimate.high))), _colour(study, x))
    axes.axvline(0.5, color="grey", linewidth=1, linestyle="--")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("probability that a run of the first scores higher (a tie is half)")
    _name_rows(axes, [f"{x} over {y}" for x, y in pairs])
    _finish(figure, study, comparison, title)
    return save_figure(figure, out)


def efficiency(study: Study, threshold: float, out: Path, title: str = "") -> Path:
    """Steps and hours until a score of ``threshold``: a dot for each run, a bar at the median."""
    cells = list(study.cells)
    figure, row = pyplot().subplots(1, 2, figsize=(11, 1.6 + 0.36 * len(cells)), layout="constrained", sharey=True)
    for axes, label, which in zip(row, ("environment steps", "hours"), (0, 1), strict=True):
        values = [study.reached(algorithm, task, threshold)[which] for algorithm, task in cells]
        ends = [
            float(study.horizon(t)) if which == 0 else float(study.cells[a, t].hours[:, -1].max()) for a, t in cells
        ]
        never = 1.08 * max([end for end in ends if math.isfinite(end)], default=1.0)
        for k, ((algorithm, _), reached) in enumerate(zip(cells, values, strict=True)):
            colour = _colour(study, algorithm)
            spread = np.linspace(-0.15, 0.15, len(reached)) if len(reached) > 1 else np.zeros(1)
            at = np.where(np.isinf(reached), never, reached)
            axes.scatter(at, k + spread, color=colour, s=18, marker="o", alpha=0.8)
            middle = float(np.median(reached))
            if math.isfinite(middle):
                axes.plot([middle, middle], [k - 0.32, k + 0.32], color=colour, linewidth=2.5)
        axes.axvline(never, color="grey", linewidth=0.8, linestyle=":")
        axes.text(never, 1.01, "never", ha="center", va="bottom", fontsize=8, transform=axes.get_xaxis_transform())
        axes.set_xlim(left=0, right=1.04 * never)
        axes.set_xlabel(label)
        if which == 0:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _name_rows(axes, [f"{algorithm} on {task}" for algorithm, task in cells])
    text = "; ".join(dict.fromkeys(scale.text for scale in study.scales.values()))
    figure.suptitle(title or f"until a test scores {threshold:g}", fontsize="medium")
    _note(figure, f"First common test with a normalised score of at least {threshold:g}; bar: median. {text}.")
    return save_figure(figure, out)


def normalisation(study: Study, tasks: list[str]) -> str:
    """How values became scores, and which value of a run it is, for whoever looks at a figure or a table."""
    texts = {task: study.scales[task].text for task in tasks}
    if len(set(texts.values())) == 1:
        scale = texts[tasks[0]]
    else:
        scale = "; ".join(f"{task}: {text}" for task, text in texts.items())
    steps = {study.horizon(task) for task in tasks}
    where = f"{min(steps):,}" if len(steps) == 1 else f"{min(steps):,} to {max(steps):,}"
    return f"Score of a run: {SCORES[study.score]}, up to {where} steps. Normalisation: {scale}."


# What they share.


def _panels(n: int, width: float = 5.2) -> tuple[Any, list[Any]]:
    columns = min(n, 3) if n != 4 else 2
    rows = math.ceil(n / columns)
    size = (max(width * columns, 7), 3.7 * rows + 0.5)
    figure, grid = pyplot().subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axes in grid.flat[n:]:
        axes.set_axis_off()
    return figure, list(grid.flat[:n])


def _line(axes: Any, x: np.ndarray, curve: Estimate, label: str, colour: str, **style: Any) -> None:
    axes.plot(x, curve.value, color=colour, label=label, linewidth=1.8, **style)
    if curve.has_interval:
        step = {"step": "post"} if "drawstyle" in style else {}
        axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0, **step)


def _bar(axes: Any, row: int, estimate: Estimate, colour: str) -> None:
    axes.use_sticky_edges = False  # a bar that ends at the best score would lie under the frame
    if estimate.has_interval:
        width = float(estimate.high - estimate.low)
        axes.barh(row, width, left=float(estimate.low), height=0.55, color=colour, alpha=0.35)
    axes.plot([estimate.value] * 2, [row - 0.28, row + 0.28], color=colour, linewidth=2.5)


def _name_rows(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [textwrap.shorten(name, 60, placeholder=" ...") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)


def _colour(study: Study, algorithm: str) -> str:
    every = list(dict.fromkeys(study.names.values()))  # those whose runs do not count, too
    return COLOURS[every.index(algorithm) % len(COLOURS)]


def _common_legend(figure: Any, grid: list[Any], title: str) -> None:
    lines = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    # The title stands in the legend: matplotlib would lay one over the other.
    place = {"loc": "outside upper center", "ncols": 4, "frameon": False, "fontsize": "small"}
    figure.legend(lines.values(), lines.keys(), title=title or None, title_fontsize="large", **place)


def _finish(figure: Any, study: Study, comparison: Comparison, title: str) -> None:
    if title:
        figure.suptitle(title)
    maps = f"Maps: {', '.join(comparison.tasks)}."
    _note(figure, f"{maps} {normalisation(study, comparison.tasks)} {BOOTSTRAP}.")


def _note(figure: Any, text: str) -> None:
    width = int(figure.get_figwidth() * 17)
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=7.5, color="#444444")
