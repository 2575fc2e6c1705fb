"""Checkpoint files: one file holds the run; written whole or not at all."""

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

import torch

from shoal.utils.errors import UserError
from shoal.utils.finite import require_finite

FORMAT = 1
SUFFIX = ".pt"
BEST = f"best{SUFFIX}"
"""The checkpoint of the best test so far, beside those named after their step."""
NETWORKS = ("learner", "best", "networks")
"""Parts of a checkpoint, or of an exported team, whose numbers must all be finite."""
MODEL_DIR_FILE = "model_dir.txt"
"""In a run's record: where its checkpoints are."""


def claim(folder: Path) -> Path:
    """Make ``folder`` for one run alone: where another run has it (they began in the same second), with a number."""
    for attempt in itertools.count(1):
        mine = folder if attempt == 1 else folder.with_name(f"{folder.name}-{attempt}")
        try:
            mine.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError:  # said when there is something to save
            return folder
        return mine
    raise AssertionError


def give_back(folder: Path) -> None:
    """Remove a folder that was claimed for nothing."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()


def save(content: dict[str, Any], folder: Path, t_env: int) -> Path:
    """Write ``folder/<t_env>.pt``, whole or not at all."""
    return write(content, folder / f"{t_env}{SUFFIX}")


def write(content: dict[str, Any], path: Path) -> Path:
    """Write a checkpoint under a temporary name and rename it, so that a kill leaves no half file.

    Raises:
        NonFiniteError: there is a NaN or an infinity in a network, target or optimiser.
        OSError: the disk is full, or the folder cannot be written.
    """
    require_finite({key: content.get(key) for key in NETWORKS}, f"Nothing is written to {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile's: its files are for their owner alone, and a group shares its results.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            raise error.__context__ from None  # torch finds its file shorter than it should be, and says only that
        raise
    return path


def prune(folder: Path, newest: int, keep: int, keep_buffers: int) -> None:
    """Bound the room that ``folder`` takes, after the checkpoint of step ``newest`` has been written.

    Of the checkpoints up to ``newest`` the last ``keep`` stay, and of those the last ``keep_buffers`` with their replay
    memory (0: all). Later ones are of a future that the run went back from: they stay until it comes past them. So does
    the best one. What a kill in mid-write has left goes.

    Raises:
        OSError: a file cannot be deleted or rewritten.
    """
    for half in folder.glob("*.part"):
        half.unlink(missing_ok=True)
    steps = [step for step in steps_in(folder) if step <= newest]
    for step in steps[:-keep] if keep else []:
        (folder / f"{step}{SUFFIX}").unlink(missing_ok=True)
    kept = steps[-keep:]
    # Earlier ones lost theirs when they came to this place.
    if keep_buffers and len(kept) > keep_buffers:
        _drop_buffer(folder / f"{kept[-keep_buffers - 1]}{SUFFIX}")


def _drop_buffer(path: Path) -> None:
    # Mapped, not read: the memory may be larger than the room for it.
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if content["buffer"]["episodes"] is not None:
        write({**content, "buffer": {"rng": content["buffer"]["rng"], "episodes": None}}, path)


def steps_in(folder: Path) -> list[int]:
    """The environment steps of the checkpoints in ``folder``, in order."""
    return sorted(int(p.stem) for p in folder.glob(f"*{SUFFIX}") if p.stem.isdigit())


def find(path: Path, load_step: int = 0) -> Path:
    """The checkpoint file that ``path`` (a file, or a folder of them) and ``load_step`` name.

    ``load_step=0`` takes the newest, any other the nearest, as in PyMARL.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"There is no checkpoint at {path}: give a folder of results/models or a .pt file.")
    steps = steps_in(path)
    if not steps:
        raise UserError(f"The folder {path} holds no checkpoint ({SUFFIX} file named after its environment step).")
    step = steps[-1] if load_step == 0 else min(steps, key=lambda s: abs(s - load_step))
    return path / f"{step}{SUFFIX}"


def recorded_models(path: Path) -> Path:
    """The folder of checkpoints that belongs to ``path``: itself, or where the recorded run in ``path`` put them."""
    note = path / MODEL_DIR_FILE
    return Path(note.read_text().strip()) if note.is_file() else path


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: the file is corrupt or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        others = [s for s in steps_in(path.parent) if str(s) != path.stem]
        before = [s for s in others if path.stem.isdigit() and s < int(path.stem)]
        advice = "no other one lies beside it"
        if before:
            advice = f"load_step={before[-1]} would take the one before"
        elif others:
            advice = f"load_step={others[0]} would take another one"
        raise UserError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}: damaged, or not a checkpoint); {advice}."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"The file {path} is not a checkpoint that this version of Shoal writes (format {FORMAT}).")
    return content
