"""What the figures share: pictures without a display, seeds as one line, and files that can be written."""

from pathlib import Path
from typing import Any

import numpy as np

from shoal.analysis.records import Curve
from shoal.analysis.seeds import mean_curve
from shoal.utils.errors import UserError
from shoal.utils.extras import needed_for


def pyplot() -> Any:
    """matplotlib's pyplot, set to draw into files.

    Raises:
        UserError: matplotlib is not installed.
    """
    with needed_for("Drawing", "analysis"):
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt

    return plt


def plot_mean(axes: Any, curves: list[Curve], label: str, **style: Any) -> None:
    """Draw seeds into ``axes`` as one line, their mean, with a band from the lowest to the highest."""
    steps, mean, low, high = mean_curve(curves)
    (line,) = axes.plot(steps, mean, label=label, linewidth=1.8, **style)
    if len(curves) > 1:
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def save_arrays(picture: Path, **arrays: Any) -> None:
    """Write what ``picture`` shows next to it, as .npz.

    Raises:
        UserError: the folder cannot be written to.
    """
    out = picture.with_suffix(".npz")
    try:
        np.savez(out, **arrays)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): name another place with --out.") from error


def save_figure(figure: Any, out: Path) -> Path:
    """Write ``figure`` into ``out``, in the format that its ending names, and forget it.

    Raises:
        UserError: the folder cannot be written to, or matplotlib does not know the format.
    """
    try:
        figure.savefig(out, dpi=150)
    except OSError as error:
        raise UserError(f"The picture {out} cannot be written ({error.strerror}): name another.") from error
    except ValueError as error:
        raise UserError(f"The picture {out} has no known format: let its name end in .png, .pdf or .svg.") from error
    finally:
        pyplot().close(figure)
    return out
