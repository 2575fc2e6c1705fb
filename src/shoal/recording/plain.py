"""Values as records hold them: what JSON and BSON know, and nothing else."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def plain(value: Any) -> Any:
    """Turns numpy, torch and jax scalars and arrays, paths, sets and dates into what JSON and BSON hold.

    Arrays become (nested) lists, mappings get text keys, an integer beyond 64 bits becomes text
    (BSON has no room for it), and so does anything unknown. NaN and infinities stay floats.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(int(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in list(value.items())}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):  # an array or scalar of numpy, torch or jax
        return plain(value.tolist())
    return str(value)
