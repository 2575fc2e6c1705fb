"""NaN and infinity in networks: found before they are stored, or after they were read."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from shoal.utils.errors import NonFiniteError


def non_finite_in(state: Any, name: str = "") -> Iterator[str]:
    """The names of the tensors in a (nested) state that hold a NaN or an infinity."""
    if isinstance(state, torch.Tensor):
        if state.is_floating_point() and not bool(state.isfinite().all()):
            yield name
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from non_finite_in(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, list | tuple):
        for i, value in enumerate(state):
            yield from non_finite_in(value, f"{name}.{i}")


def require_finite(state: Any, what: str) -> None:
    """Refuse a state with a NaN or an infinity in it; ``what`` begins the sentence that says so.

    Raises:
        NonFiniteError: naming the first tensors.
    """
    names = list(non_finite_in(state))
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise NonFiniteError(f"{what}: NaN or infinity in {', '.join(names[:3])}{more}.")
