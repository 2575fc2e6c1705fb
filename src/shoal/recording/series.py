"""A run's recorded metrics on disk: sacred's ``metrics.json``, and a journal of what came after it was written.

sacred's file holds everything and can only be written whole, which costs more at every heartbeat of a long run. So new
points go into a journal next to it, ``metrics.jsonl``, one line a heartbeat; when it holds half as many points as the
file, and when the run ends, both become one ``metrics.json`` again. `read_series` reads the two as one, at any moment.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal.utils.atomic import replace_file, to_disk

SERIES_FILE = "metrics.json"
JOURNAL_FILE = "metrics.jsonl"

Series = dict[str, dict[str, list[Any]]]
"""Metric -> its ``values``, ``steps`` and ``timestamps`` (text), equally long."""

_KEYS = ("values", "steps", "timestamps")

_SMALL = 64 * 1024
"""Bytes of metrics below which no journal is kept."""


def has_series(folder: Path) -> bool:
    """Whether the run recorded in ``folder`` has measured anything."""
    return (folder / SERIES_FILE).exists() or (folder / JOURNAL_FILE).exists()


def read_series(folder: Path) -> Series:
    """All points of the run recorded in ``folder``, while it writes too. Nothing where there are no files.

    The last line of a journal whose writer was killed may be cut off: that line is left out.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is damaged.
    """
    # The journal first: what it has may become part of metrics.json meanwhile, never the other way.
    journal = _bytes(folder / JOURNAL_FILE)
    whole = _bytes(folder / SERIES_FILE)
    series: Series = _checked(json.loads(whole), SERIES_FILE) if whole is not None else {}
    for line in (journal or b"").split(b"\n")[:-1]:
        for name, new in _checked(json.loads(line), JOURNAL_FILE).items():
            one = series.setdefault(name, {"values": [], "steps": [], "timestamps": []})
            known = len(one["steps"]) - _place(new)  # points of this line that metrics.json has already
            if known < 0:
                raise ValueError(f"{JOURNAL_FILE} continues from points of {name} that {SERIES_FILE} lacks")
            for key in _KEYS:
                one[key] += new[key][known:]
    return series


def _place(new: Mapping[str, Any]) -> int:
    """How many points of a metric come before those of a journal's line."""
    at = new.get("at")
    if not isinstance(at, int):
        raise ValueError(f"{JOURNAL_FILE} does not say where its points belong")
    return at


def _checked(series: Any, file: str) -> dict[str, dict[str, Any]]:
    whole = isinstance(series, dict) and all(
        isinstance(one, dict)
        and all(isinstance(one.get(key), list) for key in _KEYS)
        and len({len(one[key]) for key in _KEYS}) == 1
        and all(isinstance(step, int | float) for step in one["steps"])
        for one in series.values()
    )
    if not whole:
        raise ValueError(f"{file} does not hold values, steps and timestamps by metric")
    checked: dict[str, dict[str, Any]] = series
    return checked


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


class SeriesWriter:
    """Writes the metrics of one run into its folder, each point some three times, however long the run.

    What ``add`` has taken is stored by the next ``store`` that does not fail.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._series: Series = {}
        self._stored: dict[str, int] = {}
        self._written = 0
        """Bytes of metrics.json."""
        self._points = 0
        """Points in metrics.json."""
        self._journal = 0
        """Bytes of the journal that are whole lines."""

    def add(self, points: Mapping[str, Mapping[str, list[Any]]]) -> None:
        """Take over new points, as JSON holds them."""
        for name, new in points.items():
            one = self._series.setdefault(name, {"values": [], "steps": [], "timestamps": []})
            for key, entries in one.items():
                entries += new[key]

    @property
    def up_to_date(self) -> bool:
        """Whether all points are on disk."""
        return all(len(one["steps"]) == self._stored.get(name, 0) for name, one in self._series.items())

    def store(self, whole: bool = False) -> None:
        """Bring all points to the disk, past the system's caches; ``whole``: into ``metrics.json`` alone.

        Raises:
            OSError: what was stored before is still there.
        """
        if self.up_to_date and not (whole and self._journal):
            return
        line = self._line()
        small = self._written + self._journal + len(line) < _SMALL
        if whole or small or self._count() > 1.5 * self._points:
            try:
                self._rewrite()
            except OSError:  # a full disk may have room for a line yet
                if self.up_to_date:
                    raise
                self._append(line)
        else:
            self._append(line)
        self._stored = {name: len(one["steps"]) for name, one in self._series.items()}

    def _count(self) -> int:
        return sum(len(one["steps"]) for one in self._series.values())

    def _line(self) -> bytes:
        new = {}
        for name, one in self._series.items():
            at = self._stored.get(name, 0)
            if len(one["steps"]) > at:
                new[name] = {"at": at} | {key: entries[at:] for key, entries in one.items()}
        return json.dumps(new).encode() + b"\n"

    def _append(self, line: bytes) -> None:
        with open(self._folder / JOURNAL_FILE, "ab") as file:
            file.truncate(self._journal)  # half a line, if the disk was full the last time
            file.write(line)
            to_disk(file)
        self._journal += len(line)

    def _rewrite(self) -> None:
        text = json.dumps(self._series, sort_keys=True).encode()
        replace_file(self._folder / SERIES_FILE, text)
        self._written, self._points, self._journal = len(text), self._count(), 0
        (self._folder / JOURNAL_FILE).unlink(missing_ok=True)
