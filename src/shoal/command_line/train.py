"""One run, or one of sacred's commands, from its command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docopt import DocoptExit, docopt
from sacred.run import Run

from shoal import registry
from shoal.command_line import sacred_options as options
from shoal.config import files
from shoal.config.run_config import raw_config
from shoal.experiment import ExperimentSettings
from shoal.recording.heartbeats import guard
from shoal.recording.observers import say_what_records_lack, standard_observers
from shoal.session import (
    ResolvedConfig,
    Session,
    add_component_sources,
    checked_settings,
    sacred_experiment,
)
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
    settings = checked_settings(raw, sources, notes)

    command = args["COMMAND"] or "train"
    if "=" in command or command == "with":
        raise UserError(
            f"'{command}' was not understood: settings come after the word 'with', as in: with t_max=100000."
        )
    if command not in dict(ex.gather_commands()) and command != "train":
        commands = [name for name, _ in ex.gather_commands()] + ["doctor", "export", "sync"]
        raise UserError(f"Unknown command '{command}': did you mean {registry.nearest(command, commands)}?")
    add_component_sources(ex, settings)
    ex.configurations.append(ResolvedConfig(settings, set(files.overlay(given)[1])))
    if command == "train" and not args["--unobserved"]:
        s = settings.of(ExperimentSettings)
        folder = Path(args["--file_storage"] or Path(s.local_results_path) / "sacred")
        ex.observers.extend(standard_observers(folder, args["--mongo_db"] or s.mongo_url))
        ex.observers.extend(options.other_observers(args))
    args |= dict.fromkeys(options.TAKEN_CARE_OF)
    args["--name"] = args["--name"] or settings.of(ExperimentSettings).name
    # Around all of it: sacred, too, takes time to start and to finish, and what ends it then must be recorded.
    with stops_interrupt():
        try:
            ex.run(command, options=args, named_configs=(), info={})
        finally:
            lacking = say_what_records_lack(ex.observers)
    return 1 if lacking else 0
