"""The command line: two YAML names and sacred's updates become one experiment."""

import copy
import errno
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
from shoal.config.run_config import CONFIG_OPTIONS, raw_config
from shoal.config.settings import RunSettings
from shoal.declare import shown
from shoal.experiment import ExperimentSettings
from shoal.recording.heartbeats import guard
from shoal.recording.mongo_address import MONGO_VARIABLE, refuse_secret
from shoal.recording.mongo_observer import mongo_observer
from shoal.recording.run_folder import file_observer
from shoal.session import Session, sacred_experiment, say_what_mongo_lacks, what_the_record_lacks
from shoal.utils.errors import UserError
from shoal.utils.signals import Interrupted, stops_interrupt
from shoal.utils.streams import lasting_output

HELP = """Shoal trains teams of cooperating agents (multi-agent reinforcement learning).

  python src/main.py --config=ALG --env-config=ENV [with KEY=VALUE ...] [options]

  --config=ALG        algorithm: a name from --list, or a path to a YAML file of your own
  --env-config=ENV    environment: a name from --list, or a path to a YAML file of your own
  with KEY=VALUE ...  override settings; those of the environment are env_args.KEY=VALUE
  --list              every algorithm, environment, runner, controller, learner, mixer and agent
  doctor [--quick]    check the installation, play a step of every suite and print fixes; --quick plays none
  sync RUN_DIR ...    bring recorded runs to MongoDB after the fact
  export CHECKPOINT   write the deployed team of a checkpoint, without what trained it
  --trust             let a checkpoint that another account wrote import the code that it names (resume, export)

Try:
  python src/main.py --config=s2q --env-config=smax with env_args.map_name=3m t_max=500000
  python src/main.py print_config --config=s2q --env-config=smax        every setting, its meaning and source
  python src/main.py with resume=results/models/NAME                    go on with a run that was stopped
  python src/main.py --config=s2q --env-config=smax with checkpoint_path=results/models/NAME evaluate=True

Runs are recorded by sacred under results/sacred. Behind the two names stand all of sacred's commands and options:
"""

TRUST = "--trust"
OF_THE_SYSTEM = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.EMFILE),
    *(errno.ENFILE, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EFBIG, errno.EIO),
}
"""What the user can mend of what the operating system refuses."""
_ANOTHER_PLACE = "Choose another place, or see to it that this one can be written."
_REMEDY = {
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or lower batch_size_run.",
    errno.ENFILE: "The whole machine has too many files open: lower batch_size_run, or run fewer things.",
    errno.ENOSPC: "Free some space (files and inodes: df -h, df -i), or choose another place.",
    errno.EDQUOT: "Free some space, or choose another place.",
    errno.ENAMETOOLONG: "Choose shorter names.",
}
PROGRAM = "src/main.py"


def main(argv: list[str]) -> int:
    """Run the command line. Exit status: 0 done, 1 an error the user can mend, 128 + n stopped by signal n."""
    with lasting_output():
        return _ended(argv)


def _ended(argv: list[str]) -> int:
    try:
        return _main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupt:
        saved = interrupt.checkpoint
        how = f"go on with: python {PROGRAM} with resume={saved.parent}" if saved else "no checkpoint was saved"
        print(f"stopped by {interrupt}; {how}", file=sys.stderr)
        return 128 + interrupt.signum
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in OF_THE_SYSTEM:
            raise
        where = f": {shown(error.filename)}" if error.filename else ""
        print(f"error: {error.strerror}{where}. {_REMEDY.get(error.errno or 0, _ANOTHER_PLACE)}", file=sys.stderr)
        return 1


def _main(argv: list[str]) -> int:
    for word in argv[1:]:
        if not word.isascii() and word.encode(errors="replace").decode() != word:
            raise UserError(f"{word!a} on the command line is not valid UTF-8: write it in UTF-8.")
    chosen, rest = _pop_config_options(argv[1:])
    trusted = TRUST in rest
    rest = [argument for argument in rest if argument != TRUST]
    if "--list" in rest:
        print(list_components())
        return 0
    if rest[:1] == ["doctor"]:
        from shoal import doctor  # its checks import what a run does not need

        return doctor.main(rest[1:])
    if rest[:1] == ["sync"]:
        from shoal.recording import sync

        return sync.main(rest[1:])
    if rest[:1] == ["export"]:
        from shoal import deployment

        return deployment.main(rest[1:], trusted)

    def train(_run: Run, _config: Mapping[str, Any]) -> float | None:
        """Train, or evaluate a checkpoint."""
        guard(_run)
        with Session(_run, settings, content) as session, session.at_work():
            result = session.experiment.run()
        return session.report(result)

    ex = sacred_experiment(train)

    _, usage, internal_usage = ex.get_usage(PROGRAM)
    if (not rest and not chosen) or {"-h", "--help"} & set(rest) or rest[:1] == ["help"]:
        print(HELP + usage.partition("Options:")[2])
        return 0
    try:
        args = docopt(internal_usage, rest, default_help=False)
    except DocoptExit:
        raise UserError(
            f"The command line {' '.join(argv[1:])!r} was not understood: settings come after the word 'with', as in "
            "--config=s2q --env-config=smax with env_args.map_name=3m (see --help)."
        ) from None
    options.check(args)

    given = files.typed(args["UPDATE"])
    raw, sources, content, notes = raw_config(chosen, given, trusted)
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


def _pop_config_options(args: list[str]) -> tuple[dict[str, str], list[str]]:
    """Take ``--config=X`` and ``--env-config=X`` (or with a space) out of the arguments."""
    chosen: dict[str, str] = {}
    rest: list[str] = []
    pending = list(args)
    while pending:
        argument = pending.pop(0)
        option, equals, value = argument.partition("=")
        if option not in CONFIG_OPTIONS:
            rest.append(argument)
            continue
        if not equals:
            value = pending.pop(0) if pending else ""
        if not value or value == "with":
            raise UserError(f"{option} wants a name: {option}=NAME (--list shows them).")
        if option in chosen:
            raise UserError(f"{option} is given twice ({chosen[option]} and {value}): choose one.")
        chosen[option] = value
    return chosen, rest


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


def list_components() -> str:
    """Every algorithm, environment and component with its one line."""
    sections = [
        ("algorithms (--config)", [(n, files.one_line("algs", n)) for n in files.names("algs")]),
        ("environments (--env-config)", [(n, files.one_line("envs", n)) for n in files.names("envs")]),
    ]
    titles = {"env": "environment suites (env)", "mac": "controllers (mac)"}
    for kind, names in registry.COMPONENTS.items():
        rows = [(name, registry.one_line(kind, name)) for name in names]
        sections.append((titles.get(kind, f"{kind.replace('_', ' ')}s ({kind})"), rows))
    lines = []
    for title, rows in sections:
        lines += [title, *(f"  {name:<20} {text}" for name, text in rows), ""]
    return "\n".join(lines).rstrip()
