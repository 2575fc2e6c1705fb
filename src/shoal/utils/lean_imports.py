"""Imports at the start of a process, made cheaper without changing what is imported."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without looking for garbage. What was made then stays for the process's life, so it is never looked at.

    torch and what it brings are a million objects that stay: looking through them again and again takes a sixth of the
    time of their import, and more of it later. Only for the first import of a process, before there is anything else.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def import_sacred() -> None:
    """Import sacred for the first time in this process, without pandas: half a second of each start.

    sacred looks whether pandas can be imported and, if so, teaches its serialiser about data frames, which Shoal never
    records. Where sacred or pandas is imported already, nothing happens.
    """
    if "sacred" in sys.modules or "pandas" in sys.modules:
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]  # importing it is an ImportError meanwhile
    try:
        import sacred  # noqa: F401
    finally:
        del sys.modules["pandas"]
