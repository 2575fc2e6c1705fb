"""Pictures of the payoff game: joint values as tables, greedy actions over time, behaviour as a heat map."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize, TwoSlopeNorm
from matplotlib.patches import Rectangle

from shoal.analysis.figures import pyplot, save_figure

WORST, BEST = -12.0, 8.0
OUTCOMES = {"AA": "#0072B2", "BB": "#E69F00", "CC": "#009E73", "other": "#C8C8C8"}
"""Greedy joint actions that are told apart, in colours that colour-blind readers can tell apart too (Okabe and Ito)."""


def letters(n_actions: int) -> list[str]:
    """A, B, C, ..."""
    return [chr(ord("A") + action) for action in range(n_actions)]


def draw_table(axes: Axes, table: np.ndarray, colours: Colormap, norm: Normalize, form: str, greedy: str = "") -> Any:
    """One table [A, A] as a heat map with its numbers; ``greedy`` ("AC") frames that joint action."""
    image = axes.imshow(table, cmap=colours, norm=norm)
    for (row, column), value in np.ndenumerate(table):
        red, green, blue, _ = colours(norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        number = form.format(value).replace("-", "\N{MINUS SIGN}")
        axes.text(column, row, number, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    names = letters(len(table))
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=8, pad=2)
    for side in axes.spines.values():
        side.set_visible(False)
    if greedy:
        row, column = (names.index(letter) for letter in greedy)
        frame = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor="black", linewidth=2.2)
        axes.add_patch(frame)
    return image


def draw_values(
    columns: Sequence[tuple[str, np.ndarray, np.ndarray, str, str]], rows: tuple[str, str], out: Path
) -> Path:
    """Joint values before and after the payoffs moved, a column for each learned (or true) table.

    Args:
        columns: title, table [A, A] before and after, and the joint actions to frame in them.
        rows: what the two rows show.
        out: the PNG.
    """
    norm, colours = TwoSlopeNorm(0.0, WORST, BEST), mpl.colormaps["RdBu"]
    size = (1.42 * len(columns) + 1.3, 4.0)
    figure, grid = pyplot().subplots(2, len(columns), figsize=size, layout="constrained", squeeze=False)
    for (title, before, after, greedy_before, greedy_after), (above, below) in zip(columns, grid.T, strict=True):
        draw_table(above, before, colours, norm, "{:.1f}", greedy_before)
        image = draw_table(below, after, colours, norm, "{:.1f}", greedy_after)
        above.set_title(title, fontsize=9)
    for axes, text in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(text, fontsize=9)
    bar = figure.colorbar(image, ax=grid, shrink=0.8, aspect=30, pad=0.01)
    bar.set_label("value", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.supxlabel("rows: action of agent 1, columns: action of agent 2; framed: greedy joint action", fontsize=9)
    return save_figure(figure, out)


def draw_shares(
    panels: Sequence[tuple[str, Sequence[int], Mapping[str, np.ndarray]]], shift_at: int, out: Path
) -> Path:
    """Share of the seeds at each greedy joint action over environment steps, a panel for each method.

    Args:
        panels: title, environment steps [P], and for each of ``OUTCOMES`` the shares [P].
        shift_at: environment step at which the payoffs moved.
        out: the PNG.
    """
    wide = min(5, len(panels))
    high = -(-len(panels) // wide)
    figure, grid = pyplot().subplots(
        high,
        wide,
        figsize=(2.5 * wide, 2.1 * high + 0.7),
        layout="constrained",
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, steps, shares) in zip(grid.flat, panels, strict=False):
        axes.stackplot(steps, [shares[key] for key in OUTCOMES], labels=list(OUTCOMES), colors=list(OUTCOMES.values()))
        axes.axvline(shift_at, color="black", linewidth=1.4, linestyle="--")
        axes.set_title(title, fontsize=10)
        axes.set_xlim(steps[0], steps[-1])
        axes.set_ylim(0, 1)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(mpl.ticker.MultipleLocator(shift_at))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    handles, names = grid.flat[0].get_legend_handles_labels()
    line = grid.flat[0].lines[0]
    figure.legend(
        [*handles, line], [*names, "payoffs move"], loc="outside upper center", ncols=len(names) + 1, frameon=False
    )
    figure.supxlabel("environment steps", fontsize=10)
    figure.supylabel("share of seeds", fontsize=10)
    return save_figure(figure, out)


def draw_behaviour(panels: Sequence[tuple[str, np.ndarray]], out: Path) -> Path:
    """Shares of the joint actions [A, A] taken in training, a heat map for each method."""
    # A share of 0.0003 must look unlike one of 0.04, and 0.04 unlike 0.9.
    norm, colours = mpl.colors.PowerNorm(0.4, 0.0, 1.0), mpl.colormaps["cividis"]
    size = (2.1 * len(panels) + 0.9, 2.75)
    figure, grid = pyplot().subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for axes, (title, shares) in zip(grid.flat, panels, strict=True):
        image = draw_table(axes, shares, colours, norm, "{:.3f}")
        axes.set_title(title, fontsize=10)
    bar = figure.colorbar(image, ax=grid, shrink=0.9, aspect=20, pad=0.01, ticks=[0, 0.01, 0.1, 0.3, 1])
    bar.set_label("share of episodes", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.supxlabel("rows: action of agent 1, columns: action of agent 2", fontsize=9)
    return save_figure(figure, out)
