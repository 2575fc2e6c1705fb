"""Which actions a trained team executes, over all states: figure 1 of CTDE^2.

    python -m shoal.reproduce.action_map results/sacred/1 --episodes 20 --out action_map.png

Loads the newest checkpoint of a recorded run with continuous actions (or a folder of checkpoints, or one file), plays
greedy episodes and counts the actions in 50 x 50 cells: a panel for each agent and pair of action dimensions.
For each panel it prints the reusability ratio: how much more often than under uniform actions two random ones are
closer than 0.1. The actions go into an .npz file next to the picture (``agent_0``, ... [steps, dimensions]).
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LogNorm

from shoal.analysis import tables
from shoal.analysis.figures import save_arrays, save_figure
from shoal.components.batch import transition_mask
from shoal.config import old_names, trust
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.recording.reader import checkpoints_of
from shoal.reproduce.codebook import frame, pairs_of, panels
from shoal.utils import checkpoint as checkpoints
from shoal.utils.ending import exit_status
from shoal.utils.errors import UserError

CELLS, CLOSE, N_PAIRS = 50, 0.1, 100_000


def play(path: Path, episodes: int, trusted: bool = False) -> list[np.ndarray]:
    """Actions that each agent executes in greedy episodes while it is alive: ``[steps, d]`` an agent.

    ``trusted``: the checkpoint may name code outside Shoal, whoever wrote it.

    Raises:
        UserError: there is no checkpoint, or its actions are not vectors.
    """
    file = checkpoints.find(checkpoints_of(path))
    content = checkpoints.require_run(checkpoints.load(file), file)
    trust.check(content, file, trusted)
    changes = {"evaluate": True, "checkpoint_path": str(file), "load_step": 0, "resume": "", "save_replay": False}
    settings = RunSettings(old_names.current(content["config"]) | changes, ExperimentSettings)
    with Console(1, live=False) as console:
        experiment = Experiment(settings, Logger(None, console), console, file.parent)
        try:
            return _played(experiment, content, episodes)
        finally:
            experiment.close()


def _played(experiment: Experiment, content: dict[str, object], episodes: int) -> list[np.ndarray]:
    spec = experiment.runner.spec
    if spec.discrete:
        raise UserError("This run's actions are discrete: give one with continuous actions, of qf_lan or mq_lan.")
    experiment.load(content, whole=False)
    controller = experiment.learner.controller.for_execution()
    taken: list[list[torch.Tensor]] = [[] for _ in range(spec.n_agents)]
    for _ in range(math.ceil(episodes / experiment.runner.n)):
        batch = experiment.runner.run(controller, experiment.progress.t_env, test_mode=True).batch
        acted = transition_mask(batch).bool()
        for i, found in enumerate(taken):
            counted = acted & batch["alive"][:, :-1, i] if spec.has_alive else acted
            found.append(batch["actions"][:, :-1, i][counted])
    return [torch.cat(found).numpy() for found in taken]


def uniform_reuse(eps: float) -> float:
    """P(|a - a'| < eps) for uniform a, a' on [-1, 1]^2 and eps up to 2 (CTDE^2, equation 2)."""
    s = eps / 2
    return math.pi * s**2 - 8 / 3 * s**3 + s**4 / 2


def reuse_ratio(actions: np.ndarray, seed: int = 0) -> float:
    """How much more often than uniform actions two of these ``[steps, 2]`` are closer than 0.1."""
    rng = np.random.default_rng(seed)
    one, other = actions[rng.integers(len(actions), size=(2, N_PAIRS))]
    return float((np.linalg.norm(one - other, axis=-1) < CLOSE).mean()) / uniform_reuse(CLOSE)


def draw(actions: list[np.ndarray], out: Path) -> Path:
    """Draw the agents' actions into the picture ``out``, and write them next to it as .npz.

    Raises:
        UserError: ``out`` cannot be written.
    """
    pairs = pairs_of(actions[0].shape[1])
    figure, rows = panels(len(actions), len(pairs))
    for i, (found, row) in enumerate(zip(actions, rows, strict=True)):
        for axes, (x, y) in zip(row, pairs, strict=True):
            cells, *_ = np.histogram2d(found[:, x], found[:, y], bins=CELLS, range=[[-1, 1], [-1, 1]])
            shares = np.ma.masked_equal(cells.T / max(len(found), 1), 0)
            image = axes.imshow(
                shares, origin="lower", extent=(-1, 1, -1, 1), norm=LogNorm(1e-4, 1), cmap="viridis"
            )  # fmt: skip
            frame(axes, x, y)
        row[0].set_title(f"agent {i}: {len(found):,} actions", fontsize="medium")
    figure.colorbar(image, ax=rows, label="share of the actions", shrink=0.8)
    save_arrays(out, **{f"agent_{i}": found for i, found in enumerate(actions)})
    return save_figure(figure, out)


def main(argv: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a recorded run or of checkpoints, or a checkpoint")
    parser.add_argument("--episodes", type=int, default=20, help="episodes to play (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("action_map.png"), help="picture (default: %(default)s)")
    parser.add_argument("--trust", action="store_true", help="let the checkpoint import the code that it names")
    args = parser.parse_args(argv)
    if args.episodes < 1:
        parser.error(f"--episodes {args.episodes}: there is nothing to draw without one.")
    return exit_status(lambda: _drawn(args.run, args.episodes, args.out, args.trust))


def _drawn(run: Path, episodes: int, out: Path, trusted: bool) -> int:
    tables.make_folder(out.parent)
    actions = play(run, episodes, trusted)
    print(draw(actions, out))
    for i, found in enumerate(actions):
        for x, y in pairs_of(found.shape[1]):
            ratio = reuse_ratio(found[:, [x, y]])
            print(f"agent {i}, dimensions {x} and {y}: two actions are closer than 0.1 {ratio:.1f} times as often")
    return 0


if __name__ == "__main__":
    sys.exit(main())
