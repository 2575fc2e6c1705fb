"""Checkpoint files: one file holds the run; written whole or not at all."""

import contextlib
import errno
import itertools
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from shoal.utils.atomic import replace_file
from shoal.utils.errors import UserError
from shoal.utils.finite import require_finite
from shoal.utils.lock import held, is_own, owner_of

FORMAT = 1
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
"""What a disk says that is full, of bytes or of files."""
SUFFIX = ".pt"
BEST = f"best{SUFFIX}"
"""The checkpoint of the best test so far, next to those named after their step."""
LOCK_FILE = "lock"
"""Held by the process that writes into a folder of checkpoints."""
STARTS_FILE = "starts"
"""How many times a run went on from a folder of checkpoints."""
NETWORKS = ("learner", "best", "networks")
"""Parts of a checkpoint, or of an exported team, whose numbers must all be finite."""
RUN = ("config", "learner", "runner", "progress", "buffer", "random")
"""Parts of the checkpoint of a run; an exported team lacks most of them."""


def claim(folder: Path) -> Path:
    """Make ``folder`` for one run alone: where another run has it (they began in the same second), with a number.

    Raises:
        UserError: it cannot be made.
    """
    for attempt in itertools.count(1):
        mine = folder if attempt == 1 else folder.with_name(f"{folder.name}-{attempt}")
        try:
            mine.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"Checkpoints cannot be written to {mine} ({error.strerror}): choose another local_results_path, free "
                "some space there, or train without checkpoints (save_model=False)."
            ) from error
        return mine
    raise AssertionError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder`` for as long as this process lives: two would mix their checkpoints.

    Raises:
        UserError: another process holds it. The sentence says which.
    """
    with held(folder / LOCK_FILE, wait=False) as ours:
        if not ours:
            owner = owner_of(folder / LOCK_FILE)
            if is_own(owner):
                raise UserError(f"A run of this very program has {folder} open: close it first (run.close()).")
            raise UserError(
                f"Another run is using {folder}{f' ({owner})' if owner else ''}: wait for its end or stop it, or "
                "start from its checkpoints in a folder of your own with checkpoint_path."
            )
        yield


def count_start(folder: Path) -> int | None:
    """Count one more run that continues from ``folder`` -> its number, from 1; None where nothing can be written.

    Says in which order runs went on, whatever the clocks of their machines said.
    """
    file = folder / STARTS_FILE
    try:
        number = 1 + (int(file.read_text()) if file.exists() else 0)
        replace_file(file, f"{number}\n".encode())
    except (OSError, ValueError):
        return None
    return number


def give_back(folder: Path) -> None:
    """Remove a folder that was claimed for nothing."""
    with contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {LOCK_FILE}:
            (folder / LOCK_FILE).unlink(missing_ok=True)
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
    require_finite(_networks_of(content), f"Nothing is written to {path}")
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


def make_room(folder: Path, newest: int) -> Iterator[Path]:
    """Delete checkpoints up to step ``newest``, the oldest first, each when the next one is asked for.

    For the last checkpoint of a run whose disk is full. The newest whole one stays, whatever happens, and so do the
    best one and those of later steps. Where none is whole the newest stays: what cannot be read now (a network's disk)
    may be whole all the same.
    """
    for half in folder.glob("*.part"):
        half.unlink(missing_ok=True)
    files = [folder / f"{step}{SUFFIX}" for step in steps_in(folder) if step <= newest]
    kept = next(filter(_is_whole, reversed(files)), files[-1] if files else None)
    for file in files:
        if file != kept:
            file.unlink(missing_ok=True)
            yield file


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
    content = _read(path, mmap=True)
    if content["buffer"]["episodes"] is not None:
        write(without_memory(content), path)


def without_memory(content: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint without its replay memory."""
    return {**content, "buffer": {"rng": content["buffer"]["rng"], "episodes": None}}


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


def load_for_resume(path: Path, load_step: int, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that a run continues from: the file ``path``, or the newest whole one in that folder.

    With a ``load_step`` the nearest one to it instead of the newest; damaged ones are passed over with a warning.

    Raises:
        UserError: there is none, the file ``path`` is damaged, or it is no run's.
    """
    first = find(path, load_step)
    if path.is_file():
        return first, require_run(load(first), first)
    steps = [int(first.stem), *(step for step in _next_to(first) if step != int(first.stem))]
    trouble = ""
    for step in steps:
        file = path / f"{step}{SUFFIX}"
        try:
            content = _read(file)
        except UserError as error:
            trouble = trouble or str(error)
            continue
        if trouble:
            warn(f"{trouble} The run resumes from {file}, the next intact one.")
        return file, require_run(content, file)
    best = f" {path / BEST} is there, too: name it to resume from it." if (path / BEST).is_file() else ""
    raise UserError(f"{trouble} No other checkpoint in {path} is intact.{best}")


def require_run(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content of the file ``path``, if it is a run's.

    Raises:
        UserError: it is an exported team's, or parts are missing.
    """
    if "team" in content:
        raise UserError(
            f"{path} is an exported team, which can only be played (deployment.load): give the checkpoint that it is "
            "from."
        )
    missing = [part for part in RUN if part not in content]
    if missing:
        raise UserError(f"{path} is not a complete checkpoint: it lacks {', '.join(missing)}. Give another one.")
    return content


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: the file is corrupt or of another format, or a number in its networks is not finite. The sentence
            names the nearest whole one next to it.
    """
    try:
        return _read(path)
    except UserError as error:
        others = [path.with_name(f"{step}{SUFFIX}") for step in _next_to(path)]
        whole = next(filter(_is_whole, others), None)
        if whole is None:
            raise UserError(f"{error} There is no other intact one in its folder.") from error
        raise UserError(f"{error} The next intact one is {whole} (load_step={whole.stem}).") from error


def _is_whole(path: Path) -> bool:
    try:
        _read(path, mmap=True)  # its replay memory may be larger than the room for a second one
    except UserError:
        return False
    return True


def _next_to(path: Path) -> list[int]:
    """The steps of the other checkpoints: those before, the newest first, then those after."""
    step = int(path.stem) if path.stem.isdigit() else None
    others = [other for other in steps_in(path.parent) if other != step]
    if step is None:
        return others[::-1]
    return [s for s in others[::-1] if s < step] + [s for s in others if s > step]


def _read(path: Path, mmap: bool = False) -> dict[str, Any]:
    try:
        # torch writes checksums and does not look at them.
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise zipfile.BadZipFile(f"the checksum of {wrong} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        raise UserError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}: damaged, or not a checkpoint)."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"The file {path} is not a checkpoint that this version of Shoal writes (format {FORMAT}).")
    require_finite(_networks_of(content), f"The checkpoint {path} is of no use")
    return content


def _networks_of(content: dict[str, Any]) -> dict[str, Any]:
    return {key: content.get(key) for key in NETWORKS}
