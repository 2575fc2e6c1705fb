"""Imports that come late, of what an incomplete installation may lack."""

from collections.abc import Iterator
from contextlib import contextmanager

from shoal.utils.errors import UserError
from shoal.utils.lean_imports import uncollected
from shoal.utils.program import typed


@contextmanager
def late_imports() -> Iterator[None]:
    """Around imports of what an incomplete installation may lack.

    Raises:
        UserError: something is not installed.
    """
    try:
        with uncollected():
            yield
    except ImportError as error:
        raise UserError(f"Shoal cannot start ({error}): {typed('doctor')} says what to install.") from error
