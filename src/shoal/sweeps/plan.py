"""Which runs a sweep consists of: algorithms x environments x maps x settings x seeds, each one checked."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.config import files, old_names
from shoal.config.run_config import raw_config
from shoal.config.settings import RunSettings
from shoal.declare import Role
from shoal.experiment import ExperimentSettings
from shoal.recording.plain import plain
from shoal.utils.dotted import flatten
from shoal.utils.errors import UserError

FOR_ONE_RUN = {
    "seed": "--seeds says which seeds there are",
    "resume": "the same command continues a sweep",
    "evaluate": "a sweep trains",
    "save_replay": "a sweep trains",
    "local_results_path": "--results=DIR says where a sweep's results go",
}
"""Settings that cannot be the same for all runs, and why."""


@dataclass(frozen=True)
class Cell:
    """One combination of a sweep, with a seed: a run."""

    config: str
    env_config: str
    seed: int
    map_name: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of this combination, by dotted name."""
    tag: str = ""
    """What tells the combination from others of the algorithm on this map; in the run's name."""


@dataclass(frozen=True)
class PlannedRun:
    """A run, checked: what it is called, how it is started and every setting that it will have."""

    name: str
    cell: Cell
    values: dict[str, Any]
    defaults: dict[str, Any]
    """By dotted name: what a run had that was recorded before there was such a setting."""
    roles: dict[str, Role]
    """By dotted name."""

    @property
    def t_max(self) -> int:
        """Environment steps at its end."""
        return int(self.values["t_max"])

    def is_same(self, recorded: Mapping[str, Any]) -> bool:
        """Whether recorded settings are those of this run, apart from where it is stored.

        A setting that the record lacks is younger than the record; that run had what is now its default. So what counts
        is settings, never the commit.
        """
        ours, theirs = (flatten(plain(settings)) for settings in (self.values, old_names.current(recorded)))
        aside = {Role.RECORD, Role.START} if theirs.get("resume") else {Role.RECORD}
        for key in ["resume", *(key for key, role in self.roles.items() if role in aside)]:
            ours.pop(key, None)
            theirs.pop(key, None)
        return theirs.keys() <= ours.keys() and all(
            theirs.get(key, self.defaults[key]) == value for key, value in ours.items()
        )


def cells(
    configs: Sequence[str],
    env_configs: Sequence[str],
    maps: Sequence[str],
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[Any]],
) -> Iterator[Cell]:
    """Every combination, in the order in which they are run: all of them with the first seed first."""
    values = [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*grid.values())]
    played: Sequence[str | None] = maps or [None]
    for seed, env_config, map_name, config, changes in itertools.product(seeds, env_configs, played, configs, values):
        tag = "_".join(f"{key.rpartition('.')[2]}{value}" for key, value in changes.items())
        yield Cell(config, env_config, seed, map_name, changes, tag)


def planned(cell: Cell, given: Sequence[files.Layer], results: Path) -> PlannedRun:
    """Check a combination as the command line would check it; nothing is started.

    Args:
        cell: the combination.
        given: what stands after ``with``, for all runs.
        results: folder of the runs; each has a folder of its own in it.

    Raises:
        UserError: the run could not start with these settings.
    """
    own: dict[str, Any] = {"seed": cell.seed}
    if cell.map_name is not None:
        own["env_args"] = {"map_name": cell.map_name}
    layers = [*given, files.Layer("--grid or space", nested(cell.changes)), files.Layer("--seeds, --maps", own)]
    chosen = {"--config": cell.config, "--env-config": cell.env_config}
    raw, sources, *_ = raw_config(chosen, layers, ExperimentSettings)
    where = [cell.map_name] if cell.map_name is not None else []
    words = [Path(cell.config).stem, Path(cell.env_config).stem, *where, *([cell.tag] if cell.tag else [])]
    name = f"{'_'.join(_file_name(word) for word in words)}_seed{cell.seed}"
    raw["local_results_path"] = str(results / name)
    settings = RunSettings(raw, ExperimentSettings, sources)
    settings.components["learner"].check_controller(settings.components["mac"])
    defaults = {path: plain(row.default) for path, row in settings.declared.items()}
    roles = {path: row.role for path, row in settings.declared.items()}
    return PlannedRun(name, cell, settings.values, defaults, roles)


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name as a YAML file has them."""
    settings: dict[str, Any] = {}
    for key, value in changes.items():
        section, dot, name = key.rpartition(".")
        settings = files.merge(settings, {section: {name: value}} if dot else {name: value})
    return settings


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text)


def read_grid(path: Path) -> dict[str, list[Any]]:
    """The settings of a grid by dotted name, each with its alternatives.

    Raises:
        UserError: the file cannot be read, or a setting has no list of alternatives.
    """
    grid = flatten(files.read(path))
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"'{key}' in {path} needs a list of the values to try, such as {key}: [{values}].")
        if any(values.count(value) > 1 for value in values):
            raise UserError(f"'{key}' in {path} lists a value twice: take one out.")
    return grid


def read_seeds(text: str) -> list[int]:
    """``5`` is 0 to 4, ``3,7`` these two, ``5-9`` five to nine.

    Raises:
        UserError: it is none of these.
    """
    try:
        if "," in text:
            seeds = [int(word) for word in text.split(",") if word.strip()]
        elif "-" in text:
            first, last = text.split("-")
            seeds = list(range(int(first), int(last) + 1))
        else:
            seeds = list(range(int(text)))
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds={text} was not understood: say 5 (seeds 0 to 4), 3,7 (these) or 5-9 (5 to 9).")
    return seeds


def check_given(given: Sequence[files.Layer], maps: Sequence[str]) -> None:
    """Refuse what cannot be said for all runs at once.

    Raises:
        UserError: such a setting stands after ``with``.
    """
    for layer in given:
        for key, why in FOR_ONE_RUN.items():
            if key in layer.settings:
                raise UserError(f"'{key}' ({layer.source}) cannot be set for a whole sweep: {why}.")
        env_args = layer.settings.get("env_args")
        if maps and isinstance(env_args, Mapping) and "map_name" in env_args:
            raise UserError(f"env_args.map_name ({layer.source}) is what --maps says: leave one of them out.")
