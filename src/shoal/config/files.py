"""The YAML files: finding them by name or path, reading them, merging them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from shoal.registry import nearest
from shoal.utils.errors import UserError

FOLDER = Path(__file__).parent
Kind = Literal["algs", "envs"]


def names(kind: Kind) -> list[str]:
    """Names of the YAML files that ship with Shoal."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.yaml"))


def one_line(kind: Kind, name: str) -> str:
    """What the file's first comment says."""
    first = (FOLDER / kind / f"{name}.yaml").read_text().partition("\n")[0]
    return first.removeprefix("#").strip()


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: the file is missing, does not parse or is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}, column {where.column + 1}" if where else ""
        raise UserError(
            f"The settings file {path} is not valid YAML{line}: {getattr(error, 'problem', error)}."
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"The settings file {path} must be a mapping of setting names to values.")
    return content


def load(kind: Kind, name: str) -> dict[str, Any]:
    """Read ``name`` from ``config/<kind>`` or, where it ends in .yaml/.yml or holds a slash, from the user's path."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return read(Path(name))
    if name not in names(kind):
        option = "--config" if kind == "algs" else "--env-config"
        raise UserError(
            f"Unknown {option} '{name}': did you mean {nearest(name, names(kind))}? "
            "(--list shows them all; a path to a YAML file of your own works too.)"
        )
    return read(FOLDER / kind / f"{name}.yaml")


def merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` overridden by ``update``; nested mappings merge key by key."""
    merged = dict(base)
    for key, value in update.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
