"""Settings by dotted name, as the command line gives them."""

from collections.abc import Mapping
from typing import Any


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the names that the command line gives them: those of the environment are ``env_args.map_name``."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "env_args" and isinstance(value, Mapping):
            flat |= {f"env_args.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat
