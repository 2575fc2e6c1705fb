"""The replay of a test episode: an animated picture, and the game's own file."""

from pathlib import Path

import numpy as np

from shoal.recording.logger import Logger
from shoal.runners.runner import Runner
from shoal.utils.errors import UserError

MS_PER_FRAME = 125


def save_replays(frames: list[np.ndarray], picture: Path, runner: Runner, logger: Logger) -> None:
    """The pictures, if any, as ``picture``, and the game's own replay, if it has one. No reason to lose an evaluation.

    Args:
        frames: the episode, one picture ``[height, width, 3]`` a step.
        picture: where the animated GIF goes.
        runner: what played the episode.
        logger: says where the replays are, or why there is none.
    """
    try:
        if frames:
            _save_animation(frames, picture)
            logger.info(f"replay {picture}")
        path = runner.save_replay()
        if path is not None:
            logger.info(f"replay {path}")
    except (OSError, UserError, ValueError) as error:
        logger.warning(f"The replay is incomplete: {error}")


def _save_animation(frames: list[np.ndarray], path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=MS_PER_FRAME, loop=0)
