"""sys.stdout and sys.stderr that outlive their terminal."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any


class _Lasting:
    """Stands for an output stream. What cannot be written is lost, without an exception; it cannot be closed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeError:
            raise
        except (OSError, ValueError):  # hung up, broken pipe, closed file
            pass
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def close(self) -> None:
        self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """While active, a terminal or a reader that goes away costs the run only what it would have printed there, and an
    environment that closes ``sys.stdout`` closes it for no one else.
    """
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        if stream is not None:
            setattr(sys, name, _Lasting(stream))
    try:
        yield
    finally:
        for name, stream in streams.items():
            setattr(sys, name, stream)
            try:
                if stream is not None:
                    stream.flush()
            except (OSError, ValueError):
                _discard(stream)


def _discard(stream: Any) -> None:
    """Have the rest go nowhere: Python would end with a status of its own when it cannot flush."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
