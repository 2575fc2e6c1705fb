"""Optional packages: what each extra of the package brings, and what to tell those who lack one.

Imports the standard library alone: the doctor uses it where nothing is installed.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal.utils.errors import UserError

CORE = ""
"""Key of what every run needs, among the extras."""

_PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def install_command(extra: str = CORE) -> str:
    """The command that installs an extra: into this clone, or next to the installed package."""
    wanted = f"[{extra}]" if extra else ""
    return f'pip install -e ".{wanted}"' if _PYPROJECT.is_file() else f'pip install "shoal{wanted}"'


@contextmanager
def needed_for(what: str, extra: str) -> Iterator[None]:
    """Guards imports of optional packages.

    Args:
        what: What needs them, as the subject of a sentence: "Sweeps".
        extra: The extra that brings them.

    Raises:
        UserError: an import failed; the sentence names the package and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or str(error)).partition(".")[0]
        if missing == "shoal":
            raise
        raise UserError(
            f"{what} needs the Python package {missing!r}, which is not installed: run {install_command(extra)}"
        ) from error
    except ImportError as error:
        raise UserError(f"{what} cannot start ({error}): run {install_command(extra)}") from error


def requirements() -> dict[str, list[str]]:
    """Requirement lines by extra; those of every run under CORE. Extras that name other extras hold their lines."""
    if _PYPROJECT.is_file():
        project = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]
        declared = {CORE: project["dependencies"], **project["optional-dependencies"]}
    else:
        declared = _from_metadata()
    return {extra: list(dict.fromkeys(_resolved(lines, declared))) for extra, lines in declared.items()}


def _from_metadata() -> dict[str, list[str]]:
    """What the installed package says about itself; nothing if it says nothing."""
    try:
        lines = importlib.metadata.requires("shoal") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    declared: dict[str, list[str]] = {CORE: []}
    for line in lines:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        declared.setdefault(extra[1] if extra else CORE, []).append(requirement)
    return declared


def _resolved(lines: list[str], declared: dict[str, list[str]]) -> Iterator[str]:
    for line in lines:
        own = re.fullmatch(r"shoal\[(.+)\]", line)
        if own is None:
            yield line
        else:
            for extra in own[1].split(","):
                yield from _resolved(declared[extra.strip()], declared)
