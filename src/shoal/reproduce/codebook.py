"""Where a trained team's codebook has its slots: the scatter of figure 6 of CTDE^2.

    python -m shoal.reproduce.codebook results/sacred/1 --out codebook.png

Reads the newest checkpoint of a recorded run of MQ-LAN (or a folder of checkpoints, or one file). A panel for each
agent and pair of action dimensions; a slot's area says how often it was picked since the last round of pruning, a
hollow one is frozen. The slots go into an .npz file next to the picture (``u`` [agents, slots, dimensions], ``usage``
and ``frozen`` [agents, slots]), and two numbers are printed for each agent: the share of slots near the origin
(shorter than 0.1) and of those near the edge (a coordinate beyond 0.9).
"""

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shoal.analysis import tables
from shoal.analysis.figures import pyplot, save_arrays, save_figure
from shoal.recording.reader import checkpoints_of
from shoal.utils import checkpoint as checkpoints
from shoal.utils.ending import exit_status
from shoal.utils.errors import UserError

ORIGIN, EDGE = 0.1, 0.9
PREFIX = "controller.codebook."


@dataclass(frozen=True)
class Slots:
    """The codebooks of a team: one an agent, or one for all."""

    u: np.ndarray
    """Actions in [-1, 1], ``[G, K, d]``."""
    usage: np.ndarray
    """Greedy picks since the last round of pruning, or in the window before it where there are none yet, ``[G, K]``."""
    frozen: np.ndarray
    """``[G, K]`` bool."""
    t_env: int

    @property
    def names(self) -> list[str]:
        """What each codebook is called."""
        return [f"agent {i}" for i in range(len(self.u))] if len(self.u) > 1 else ["all agents"]

    def shares(self) -> list[tuple[float, float]]:
        """Of each codebook, the share of slots near the origin and near the edge."""
        near = np.linalg.norm(self.u, axis=-1) < ORIGIN
        far = (np.abs(self.u) > EDGE).any(-1)
        return list(zip(near.mean(1).tolist(), far.mean(1).tolist(), strict=True))


def read_slots(path: Path) -> Slots:
    """The codebooks in the newest checkpoint that ``path`` names.

    Raises:
        UserError: there is no checkpoint, or no codebook in it.
    """
    file = checkpoints.find(checkpoints_of(path))
    content = checkpoints.require_run(checkpoints.load(file), file)
    learner = content["learner"]
    if PREFIX + "position" not in learner:
        name = content["config"].get("name", "?")
        raise UserError(f"The checkpoint {file} is of {name}, which has no codebook: give a run of mq_lan.")
    position, usage, utility, frozen = (learner[PREFIX + k] for k in ("position", "usage", "utility", "frozen_for"))
    used = usage.float() if bool(usage.any()) else utility
    return Slots(position.tanh().numpy(), used.numpy(), (frozen > 0).numpy(), int(content["progress"]["t_env"]))


def pairs_of(dims: int) -> list[tuple[int, int]]:
    """The pairs of action dimensions that are drawn; one action dimension is drawn against itself."""
    return list(itertools.combinations(range(dims), 2)) or [(0, 0)]


def draw(slots: Slots, out: Path) -> Path:
    """Draw the codebooks into the picture ``out``, and write them next to it as .npz.

    Raises:
        UserError: ``out`` cannot be written.
    """
    G, _, d = slots.u.shape
    pairs = pairs_of(d)
    figure, rows = panels(G, len(pairs))
    for g, row in enumerate(rows):
        area = 15 + 250 * slots.usage[g] / max(float(slots.usage[g].max()), 1.0)
        for axes, (x, y) in zip(row, pairs, strict=True):
            for frozen in (False, True):
                of = slots.frozen[g] == frozen
                axes.scatter(
                    *slots.u[g, of][:, [x, y]].T, s=area[of], facecolors="none" if frozen else f"C{g}",
                    edgecolors=f"C{g}", alpha=0.6, linewidths=0.8,
                )  # fmt: skip
            frame(axes, x, y)
        row[0].set_title(f"{slots.names[g]} at {slots.t_env:,}", fontsize="medium")
    save_arrays(out, u=slots.u, usage=slots.usage, frozen=slots.frozen)
    return save_figure(figure, out)


def panels(n_agents: int, n_pairs: int) -> tuple[Any, np.ndarray]:
    """A figure with a panel for each agent and pair of dimensions, ``[agents, pairs]``: a row an agent, or one for all
    where there is a single pair.
    """
    shape = (n_agents, n_pairs) if n_pairs > 1 else (1, n_agents)
    size = (3.4 * shape[1], 3.3 * shape[0])
    figure, axes = pyplot().subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    return figure, axes.reshape(n_agents, n_pairs)


def frame(axes: Any, x: int, y: int) -> None:
    """The box of actions, seen along dimensions ``x`` and ``y``."""
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    axes.set_xlabel(f"action dimension {x}")
    axes.set_ylabel(f"action dimension {y}")


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a recorded run or of checkpoints, or a checkpoint")
    parser.add_argument("--out", type=Path, default=Path("codebook.png"), help="picture (default: %(default)s)")
    args = parser.parse_args(argv)
    return exit_status(lambda: _drawn(args.run, args.out))


def _drawn(run: Path, out: Path) -> int:
    slots = read_slots(run)
    tables.make_folder(out.parent)
    print(draw(slots, out))
    for name, (near, far) in zip(slots.names, slots.shares(), strict=True):
        print(f"{name}: {near:.0%} of the slots near the origin, {far:.0%} near the edge")
    return 0


if __name__ == "__main__":
    sys.exit(main())
