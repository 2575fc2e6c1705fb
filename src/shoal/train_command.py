"""One run, or one of sacred's commands, from its command line."""

import copy
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from docopt import DocoptExit, docopt
from sacred.config.config_summary import ConfigSummary
from sacred.observers import RunObserver
from sacred.run import Run

from shoal import options, registry
from shoal.config import files
from shoal.config.run_config import raw_config
from shoal.config.settings import RunSettings
from shoal.experiment import ExperimentSettings
from shoal.recording.heartbeats import guard
from shoal.recording.mongo_address import MONGO_VARIABLE, refuse_secret
from shoal.recording.mongo_observer import mongo_observer
from shoal.recording.run_folder import file_observer
from shoal.session import Session, sacred_experiment, say_what_mongo_lacks, what_the_record_lacks
from shoal.utils.errors import UserError
from shoal.utils.signals import stops_interrupt


def run(chosen: Mapping[str, str], rest: list[str], trusted: bool) -> int:
    """Carry out the command line: ``chosen`` names of YAML files by their option, and ``rest``, all other words.

    ``trusted``: the checkpoint may name code outside Shoal, whoever wrote it. Returns the exit status.

    Raises:
        UserError: it cannot be understood, or the run cannot be made.
    """

    def train(_run: Run, _config: Mapping[str, Any]) -> float | None:
        """Train, or evaluate a checkpoint."""
        guard(_run)
        with Session(_run, settings, content) as session, session.at_work():
            result = session.experiment.run()
        return session.report(result)

    ex = sacred_experiment(train)

    _, _, usage = ex.get_usage("shoal")
    try:
        args = docopt(usage, rest, default_help=False)
    except DocoptExit:
        words = " ".join([*(f"{option}={name}" for option, name in chosen.items()), *rest])
        raise UserError(
            f"The command line {words!r} was not understood: settings come after the word 'with', as in "
            "--config=s2q --env-config=smax with env_args.map_name=3m (see --help)."
        ) from None
    options.check(args)

    given = files.typed(args["UPDATE"])
    raw, sources, content, notes = raw_config(chosen, given, ExperimentSettings, trusted)
    if raw.get("seed") is None:
        raw["seed"], sources["seed"] = int(np.random.SeedSequence().generate_state(1)[0] >> 1), "drawn"
    settings = RunSettings(raw, ExperimentSettings, sources)
    settings.components["learner"].check_controller(settings.components["mac"])
    for note in (*notes, *settings.notes):
        print(f"note: {note}", file=sys.stderr)

    command = args["COMMAND"] or "train"
    if "=" in command or command == "with":
        raise UserError(
            f"'{command}' was not understood: settings come after the word 'with', as in: with t_max=100000."
        )
    if command not in dict(ex.gather_commands()) and command != "train":
        commands = [name for name, _ in ex.gather_commands()] + ["doctor", "export", "sync"]
        raise UserError(f"Unknown command '{command}': did you mean {registry.nearest(command, commands)}?")
    ex.configurations.append(_ResolvedConfig(settings, set(files.overlay(given)[1])))
    if command == "train" and not args["--unobserved"]:
        ex.observers.extend(_observers(settings, args))
    args |= dict.fromkeys(options.TAKEN_CARE_OF)
    args["--name"] = args["--name"] or settings.of(ExperimentSettings).name
    # Around all of it: sacred, too, takes time to start and to finish, and what ends it then must be recorded.
    with stops_interrupt():
        try:
            ex.run(command, options=args, named_configs=(), info={})
        finally:
            say_what_mongo_lacks(ex.observers)
            lacks = what_the_record_lacks(ex.observers)
            if lacks:
                print(f"error: {lacks}", file=sys.stderr)
    return 1 if lacks else 0


def _observers(settings: RunSettings, args: Mapping[str, Any]) -> list[RunObserver]:
    s: ExperimentSettings = settings.of(ExperimentSettings)
    folder = Path(args["--file_storage"] or Path(s.local_results_path) / "sacred")
    observers: list[RunObserver] = [file_observer(folder)]
    target = args["--mongo_db"] or s.mongo_url
    if target:
        refuse_secret(str(target))
    target = target or os.environ.get(MONGO_VARIABLE)
    if target:
        observers.append(mongo_observer(str(target), warn=lambda text: print(f"warning: {text}", file=sys.stderr)))
    return [*observers, *options.other_observers(args)]


class _ResolvedConfig:
    """Gives sacred the checked settings; for print_config their help and source, and the user's own ones marked."""

    def __init__(self, settings: RunSettings, modified: set[str]) -> None:
        self._settings, self._modified = settings, modified

    def __call__(self, fixed: Any = None, preset: Any = None, fallback: Any = None) -> ConfigSummary:
        docs = {path: row.help for path, row in self._settings.declared.items()}
        for path, source in self._settings.sources.items():
            docs[path] = f"{docs.get(path, '')} [{source}]".lstrip()
        summary = ConfigSummary(modified=self._modified, docs=docs)
        summary.update(copy.deepcopy(self._settings.values))
        return summary
