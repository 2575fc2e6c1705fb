"""A run's printed output, as sacred captures it: all of it, in order, and bounded.

sacred 0.8.7 reads the output in two threads without a lock, which loses and misplaces pieces (`guard_output`), and
MongoDB cannot store more than 16 MB of it (`bounded_output`).
"""

from __future__ import annotations

import re
import sys
import threading
from typing import TYPE_CHECKING, TextIO

from sacred.stdout_capturing import TeeingStreamProxy

if TYPE_CHECKING:
    from sacred.run import Run

_HEAD = _TAIL = 2**20  # characters of captured output kept from the start and from the end of a run
_CUT = re.compile(r"\n\[\.\.\. (\d+) characters of output left out here \.\.\.\]\n")


def bounded_output(text: str) -> str:
    """sacred's `captured_out_filter`: bounds what is recorded of a run's printed output.

    Backspaces and carriage returns are played out as a terminal would, so that a progress bar leaves its
    last state. Of very long output the first and the last 1 Mi characters stay (at most 8 MiB in UTF-8,
    half of what a MongoDB document holds) with a line between them saying how much is missing.

    sacred calls this with all the text so far, filtered before, plus the new piece:
    `bounded_output(bounded_output(a) + b)` says the same as `bounded_output(a + b)`.
    """
    if "\r" in text or "\b" in text:
        *lines, last = text.split("\n")
        text = "\n".join([*(_played_out(line)[0] for line in lines), "\r".join(_played_out(last))])
    if len(text) <= _HEAD + _TAIL:
        return text
    cut = _CUT.search(text, _HEAD // 2, _HEAD + 200)
    if cut is None:
        end = text.rfind("\n", _HEAD // 2, _HEAD)
        end = end if end >= 0 else _HEAD
        head, rest, dropped = text[:end], text[end:], 0
    else:
        head, rest, dropped = text[: cut.start()], text[cut.end() :], int(cut[1])
    if len(rest) <= _TAIL:
        return text
    dropped += len(rest) - _TAIL
    return f"{head}\n[... {dropped} characters of output left out here ...]\n{rest[-_TAIL:]}"


def _played_out(line: str) -> list[str]:
    """One line as a terminal shows it, and what stands left of its cursor unless that is at the end.

    Both joined by a carriage return print the same line and leave the cursor at the same place.
    """
    if "\r" not in line and "\b" not in line:
        return [line]
    cells: list[str] = []
    cursor = 0
    for piece in re.split(r"([\r\b])", line):
        if piece == "\r":
            cursor = 0
        elif piece == "\b":
            cursor = max(cursor - 1, 0)
        else:
            cells[cursor : cursor + len(piece)] = piece
            cursor += len(piece)
    shown = "".join(cells)
    return [shown] if cursor == len(cells) else [shown, shown[:cursor]]


def guard_output(run: Run) -> None:
    """Has sacred read all that a run's main function prints, each piece once.

    sacred reads the output in its heartbeat's thread and, at the end, in the run's own, without a lock: of two
    reads at once one is lost, a line printed during a read is written over another one, and what comes after the
    last read is left out.
    """
    out = run._output_file
    lock = threading.RLock()
    read, finalize = run._get_captured_output, out.finalize

    def read_all() -> None:
        with lock:
            if out.closed and out.final is not None:  # sacred would not look
                text, out.final = run.captured_out + out.final, None
                run.captured_out = text if run.captured_out_filter is None else run.captured_out_filter(text)
            read()

    def finalize_alone() -> None:
        with lock:
            finalize()

    run._get_captured_output = read_all  # type: ignore[method-assign]
    out.finalize = finalize_alone
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TeeingStreamProxy):
            stream._self_out = _Locked(stream._self_out, lock)


class _Locked:
    """Where sacred copies the output to, written to by one thread at a time."""

    def __init__(self, out: TextIO, lock: threading.RLock) -> None:
        self._out, self._lock = out, lock

    def write(self, text: str) -> int:
        with self._lock:
            return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()
