"""Files that are the old one or the new one, never half of it."""

import os
from pathlib import Path
from typing import IO


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, past the system's caches, and rename it: it is the old or the new one.

    Raises:
        OSError: the old file is still there.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            to_disk(file)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # half a file takes room, where there may be none
        raise


def to_disk(file: IO[bytes]) -> None:
    """Past the system's caches."""
    file.flush()
    os.fsync(file.fileno())
