"""A lock between processes that ends with the one that holds it, however that ends."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock ``path``; False where another process has it and we do not ``wait``.

    Where there can be no lock (some network file systems have none, a folder may not be writable), all get it: that
    alone is no reason to refuse to work.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "a+"))
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            yield True
            return
        with contextlib.suppress(OSError):  # for people; a full disk has no room for it
            file.truncate(0)
            file.write(f"{_this_process()}\n")
            file.flush()
        yield True


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def is_own(owner: str) -> bool:
    """Whether this process is the ``owner`` that ``owner_of`` says."""
    return owner == _this_process()


def owner_of(path: Path) -> str:
    """Who holds the lock ``path``, in words; nothing where that cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
