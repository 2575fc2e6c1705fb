"""What a reproduction is: the runs behind a paper's figure or table, how they are drawn, and what the paper says."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from shoal.analysis.records import RecordedRun


@dataclass(frozen=True)
class Arm:
    """One command line, trained with several seeds."""

    name: str
    """In the names of its runs' folders."""
    label: str
    """In figures and tables."""
    config: str
    env_config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What stands after ``with``, by dotted name."""
    paper: str = ""
    """What the paper says of it."""
    share: int = 1
    """Trained with one in so many of the seeds."""

    def seeds(self, count: int, first: int = 0) -> range:
        """Its seeds where the reproduction has ``count``, from ``first`` on."""
        return range(first, first + -(-count // self.share))

    def command(self, seed: int, changes: Mapping[str, Any] | None = None) -> str:
        """The command line that trains one of its runs by itself, with ``changes`` of its settings."""
        given = [f"{key}={value}" for key, value in {**self.settings, **(changes or {}), "seed": seed}.items()]
        return shlex.join(
            ["python", "src/main.py", f"--config={self.config}", f"--env-config={self.env_config}", "with", *given]
        )


@dataclass(frozen=True)
class Verdict:
    """One of the paper's claims, and what came of it here."""

    claim: str
    found: str
    """The numbers."""
    holds: bool | None
    """None: not judged, and ``found`` says why."""

    @property
    def word(self) -> str:
        """As people read it."""
        return "not judged" if self.holds is None else "holds" if self.holds else "does not hold"


@dataclass(frozen=True)
class Trained:
    """The finished runs of a reproduction."""

    runs: Mapping[str, list[RecordedRun]]
    """Arm's name -> its runs, in the order of their seeds."""
    out: Path
    """Folder that pictures and tables go into."""

    @property
    def all(self) -> list[RecordedRun]:
        """Every run."""
        return [run for runs in self.runs.values() for run in runs]


@dataclass(frozen=True)
class Reproduction:
    """One figure or table of a paper."""

    id: str
    paper: str
    figure: str
    claim: str
    """What the figure shows, in the paper's sense."""
    paper_numbers: str
    """The numbers that the paper gives; why none can be compared, where it gives none."""
    arms: tuple[Arm, ...]
    seeds: int
    """Runs of each arm."""
    minutes: float
    """Expected time of all runs, two side by side on two cores."""
    time_from: str
    """Where ``minutes`` comes from."""
    draw: Callable[[Trained], list[Path]]
    """Writes the pictures."""
    tabulate: Callable[[Trained], pd.DataFrame]
    judge: Callable[[Trained], list[Verdict]]
    quick: Mapping[str, Any]
    """Settings that make every run take a minute at most: to see that all works, not to learn from."""
    first_seed: int = 0
    note: str = ""
    """How the runs differ from the paper's."""
    runs_of: str = ""
    """The reproduction in whose folder the runs are, where it needs the same ones."""

    @property
    def folder(self) -> Path:
        """Where its pictures and tables go by default."""
        return Path("results") / self.id.replace("-", "_")

    @property
    def runs_folder(self) -> Path:
        """Where its runs are by default."""
        return Path("results") / (self.runs_of or self.id).replace("-", "_")
