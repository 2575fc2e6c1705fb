"""Which code ran: the commit of its checkout."""

import os
import subprocess
from pathlib import Path
from typing import Any


def git_commit(path: Path | str) -> dict[str, Any] | None:
    """The commit of the checkout around `path`: `{"commit": 40 hex digits, "dirty": bool}`.

    `dirty` says that tracked files differ from the commit. None where git or a commit is missing.
    Works in a checkout that belongs to another user (a container's bind mount), where git, and with
    it sacred's own record, refuses: we run this code already, so git may as well look at it.
    """
    folder = Path(path).resolve()
    command = ["git", "-c", "safe.directory=*", "-C", str(folder if folder.is_dir() else folder.parent)]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}

    def git(*words: str) -> str:
        return subprocess.run(
            [*command, *words], capture_output=True, text=True, timeout=10, check=True, env=environment
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--verify", "HEAD")
        dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return {"commit": commit, "dirty": dirty}
