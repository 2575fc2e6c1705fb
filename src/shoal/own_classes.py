"""Components of one's own that a program gives as classes: the import paths that stand for them in settings."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from shoal.config.settings import RunSettings
from shoal.registry import COMPONENTS
from shoal.utils.errors import UserError

MAIN = "__main__"


def as_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` as YAML has them: classes by name or import path, NumPy numbers as Python ones, paths as text.

    Raises:
        UserError: a class cannot be found by a path.
    """
    return {key: path_of(key, value) if isinstance(value, type) else _plain(value) for key, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def path_of(kind: str, component: type[Any]) -> str:
    """The registered name of a class of Shoal's, or ``module:Class``. Of a script or notebook it is ``__main__:Class``.

    Raises:
        UserError: ``kind`` is no kind of component, or the class is none that a module has under its own name.
    """
    if kind not in COMPONENTS:
        raise UserError(
            f"{kind}={component.__name__}: no class belongs there; classes are for {', '.join(COMPONENTS)}."
        )
    path = f"{component.__module__}:{component.__qualname__}"
    module = sys.modules.get(component.__module__)
    if "." in component.__qualname__ or getattr(module, component.__name__, None) is not component:
        raise UserError(
            f"{kind}={component.__qualname__} cannot be found by its name: define the class at the top level of a "
            "module, script or notebook."
        )
    return next((name for name, registered in COMPONENTS[kind].items() if registered == path), path)


def require_reach(settings: RunSettings) -> None:
    """Refuse an environment of a notebook where it runs in other processes, which cannot import it.

    Raises:
        UserError: it is one.
    """
    env = settings.components["env"]
    in_notebook = env.__module__ == MAIN and not hasattr(sys.modules[MAIN], "__file__")
    if in_notebook and settings.values["runner"] != "episode":
        raise UserError(
            f"{env.__name__} is defined in a notebook or at the prompt, from which worker processes cannot import it: "
            "put it into a .py file, or play it in this process with runner='episode'."
        )
