"""A sweep as it was asked for: which runs its command line stands for, every one of them checked."""

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shoal.config import files
from shoal.sweeps import plan
from shoal.sweeps.search import SearchSettings, example_of, read_settings, read_space
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class Request:
    """A sweep as it was asked for."""

    configs: list[str]
    env_configs: list[str]
    maps: list[str]
    seeds: list[int]
    grid: dict[str, list[Any]]
    given: list[files.Layer]
    search: SearchSettings | None
    space: dict[str, Any]
    folder: Path
    options: argparse.Namespace

    def plan(self, changes: dict[str, Any] | None = None, tag: str = "") -> list[plan.PlannedRun]:
        """Every run, checked; for a search, those of one trial with its ``changes`` and its ``tag``."""
        cells = plan.cells(self.configs, self.env_configs, self.maps, self.seeds, self.grid)
        if changes is not None:
            cells = (replace(cell, changes=changes, tag=tag) for cell in cells)
        return [plan.planned(cell, self.given, self.folder / "runs") for cell in cells]


def read(options: argparse.Namespace, settings: list[str]) -> Request:
    """Understand the options and the ``settings`` behind ``with``, and check every run that they stand for.

    Raises:
        UserError: something in it cannot be meant.
    """
    given = files.typed(settings)
    maps = _names(options.maps)
    search = read_settings(options.optuna) if options.optuna else None
    if search and options.grid:
        raise UserError("--optuna and --grid exclude each other: put the settings of the grid into the space.")
    grid = plan.read_grid(Path(options.grid)) if options.grid else {}
    space = read_space(search.space) if search else {}
    plan.check_given([*given, files.Layer("--grid or space", plan.nested(grid | space))], maps)
    configs, env_configs = _names(options.configs), _names(options.env_configs)
    if search and len(configs) != 1:
        raise UserError(f"--optuna searches the settings of one algorithm, not of {len(configs)}: start it for each.")
    words = [Path(word).stem for word in (*configs, *env_configs)] + maps
    name = options.name or "_".join([*words, *(["search"] if search else [])])
    if not re.fullmatch(r"[\w.+-]+", name):
        raise UserError(f"--name={name} cannot be a folder's name here: use letters, digits, '_', '.', '+' and '-'.")
    request = Request(
        configs,
        env_configs,
        maps,
        plan.read_seeds(options.seeds),
        grid,
        given,
        search,
        space,
        Path(options.results) / "sweeps" / name,
        options,
    )
    names = [run.name for run in (request.plan(example_of(request.space), "trial000") if search else request.plan())]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"Two runs would both be called {sorted(twice)[0]}: name each algorithm, map and value once.")
    if options.cpus_per_run < 0 or options.gpus_per_run < 0 or options.jobs < 0 or options.retries < 0:
        raise UserError("--cpus-per-run, --gpus-per-run, --jobs and --retries cannot be negative.")
    if not options.cpus_per_run and not options.gpus_per_run:
        raise UserError("--cpus-per-run=0 needs --gpus-per-run: something must say how many runs fit.")
    return request


def _names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
