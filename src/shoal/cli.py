"""The command line: two YAML names and sacred's updates become one experiment."""

import contextlib
import copy
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import sacred
import yaml
from docopt import DocoptExit, docopt
from sacred.config.config_summary import ConfigSummary
from sacred.observers import FileStorageObserver, RunObserver
from sacred.run import Run

from shoal import options, registry
from shoal.config import files, trust
from shoal.config.settings import RunSettings, declared_by
from shoal.declare import PathText, checked, shown
from shoal.experiment import Experiment, ExperimentSettings
from shoal.recording import metric_names
from shoal.recording.captured_output import bounded_output
from shoal.recording.console import Console
from shoal.recording.heartbeats import beat, flush_record, guard
from shoal.recording.logger import Logger
from shoal.recording.mongo_address import MONGO_VARIABLE, refuse_secret
from shoal.recording.mongo_observer import MongoMirror, mongo_observer
from shoal.recording.provenance import git_commit
from shoal.recording.run_folder import RunFolder, file_observer, uid_of
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from shoal.utils.guardian import taking_along_what_it_starts
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

CONFIG_OPTIONS: dict[str, files.Kind] = {"--config": "algs", "--env-config": "envs"}
TRUST = "--trust"
OF_ONE_START = ("checkpoint_path", "load_step", "evaluate", "save_replay")
"""What a checkpoint's run was started with that a run which goes on with it is not."""
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
SETTINGS_FILE = "settings.yaml"
"""In a run's record: every setting, in a form that may stand behind `with`."""


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

    options.prepare_sacred()
    ex = sacred.Experiment("shoal", save_git_info=False)
    ex.captured_out_filter = bounded_output  # type: ignore[assignment]

    @ex.main
    def train(_run: Run, _config: Mapping[str, Any]) -> float | None:
        """Train, or evaluate a checkpoint."""
        guard(_run)
        return _run_experiment(_run, settings, content)

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
            _say_what_mongo_lacks(ex.observers)
            lacks = _what_the_record_lacks(ex.observers)
            if lacks:
                print(f"error: {lacks}", file=sys.stderr)
    return 1 if lacks else 0


def _what_the_record_lacks(observers: Sequence[RunObserver]) -> str:
    """Of a run that has ended: a sentence if its file record could not be finished."""
    for one in observers:
        if isinstance(one, RunFolder) and one.lacks:
            return (
                f"the record in {one.dir} lacks {one.lacks}: free some space; the run itself has ended as said above."
            )
    return ""


def _say_what_mongo_lacks(observers: Sequence[RunObserver]) -> None:
    folder = _run_dir(observers)
    if folder is not None and any(isinstance(one, MongoMirror) and not one.up_to_date for one in observers):
        print(
            "warning: MongoDB does not have all of this run, the file record does; when the server is there: "
            f"python {PROGRAM} sync {folder}",
            file=sys.stderr,
        )


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


def raw_config(
    chosen: Mapping[str, str], given: Sequence[files.Layer], trusted: bool = False
) -> tuple[dict[str, Any], dict[str, str], dict[str, Any] | None, list[str]]:
    """The unchecked settings of a run, the source of each, the checkpoint that it starts from, if any, and notes.

    A run that goes on takes its settings from the checkpoint. Elsewhere they are default.yaml, the environment's YAML,
    the algorithm's, and what the two change on the run's map. What the user has ``given`` wins over all of it.
    ``trusted``: the checkpoint may name code outside Shoal, whoever wrote it.
    """
    updates, named = files.overlay(given)
    for layer in given:
        for key in files.RESERVED:
            if key in layer.settings:
                raise UserError(
                    f"'{key}' ({layer.source}) is no setting: it stands in a YAML that --config or --env-config names."
                )
    if updates.get("resume"):
        content: dict[str, Any] | None
        file, content = checkpoints.load_for_resume(
            checkpoints.recorded_models(_path("resume", updates)),
            _load_step(updates),
            warn=lambda text: print(f"warning: {text}", file=sys.stderr),
        )
        trust.check(content, file, trusted, given=named)
        if not isinstance(content.get("config"), Mapping) or not {"env", "env_args"} <= content["config"].keys():
            raise UserError(f"{file} does not say with which settings its run was made: it cannot be resumed.")
        recorded = {key: value for key, value in content["config"].items() if key not in OF_ONE_START}
        for option, kind in CONFIG_OPTIONS.items():
            if option in chosen:
                named = files.load(kind, chosen[option], files.map_of(recorded["env_args"]), recorded["env"])
                _refuse_other(recorded, named, f"{option}={chosen[option]}")
        layers = [files.Layer("checkpoint", recorded), *given]
        return *files.overlay(layers), content, files.notes(layers)

    for option in CONFIG_OPTIONS:
        if option not in chosen:
            raise UserError(
                f"{option}=NAME is missing: say for example --config=s2q --env-config=smax (--list shows all names)."
            )
    default = files.Layer("default.yaml", files.read(files.FOLDER / "default.yaml"))
    yamls = [*files.layers("envs", chosen["--env-config"]), *files.layers("algs", chosen["--config"])]
    bare = files.overlay([default, *yamls, *given])[0]
    layers = [default, *files.resolved(yamls, bare.get("env"), _map_name(bare)), *given]
    config, sources = files.overlay(layers)
    content = None
    if config.get("checkpoint_path"):
        file = checkpoints.find(checkpoints.recorded_models(_path("checkpoint_path", config)), _load_step(config))
        content = checkpoints.require_run(checkpoints.load(file), file)
    return config, sources, content, files.notes(layers)


def _path(key: str, config: Mapping[str, Any]) -> Path:
    """The path in a setting that is still unchecked."""
    return Path(checked((PathText(),), str(config[key]), key))


def _load_step(config: Mapping[str, Any]) -> int:
    """The environment step of the checkpoint to load, of settings that are still unchecked."""
    load_step = config.get("load_step", 0)
    if not isinstance(load_step, int):
        raise UserError(f"load_step={load_step!r} has the wrong type: it is an environment step, a whole number.")
    return load_step


def _map_name(config: Mapping[str, Any]) -> Any:
    """The map of a run whose settings are still unchecked: as given, or else its environment's default."""
    env, given = config.get("env"), files.map_of(config.get("env_args"))
    if given is not None:
        return given
    rows = declared_by(registry.find("env", env).Settings, env) if isinstance(env, str) else []
    return next((row.default for row in rows if row.key in files.MAP_KEYS), None)


def _refuse_other(recorded: Mapping[str, Any], named: Mapping[str, Any], option: str) -> None:
    for key in ("name", "learner", "mac", "mixer", "env"):
        if key in named and recorded.get(key) != named[key]:
            raise UserError(
                f"{option} does not belong to the run to resume, which has {key}={recorded.get(key)}: leave it out."
            )


def _run_experiment(run: Run, settings: RunSettings, content: dict[str, Any] | None) -> float | None:
    s: ExperimentSettings = settings.of(ExperimentSettings)
    results = Path(s.local_results_path)
    token = f"{s.name}_{s.env}_seed{s.seed}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if s.resume:
        model_dir = checkpoints.recorded_models(Path(s.resume))
        model_dir = model_dir.parent if model_dir.is_file() else model_dir
    elif s.save_model and not s.evaluate:
        model_dir = checkpoints.claim(results / "models" / token)
    else:
        model_dir = results / "models" / token
    # Before anything is said of the checkpoints: a run that is refused them is no part of the run that has them.
    with checkpoints.locked(model_dir) if s.save_model and not s.evaluate else contextlib.nullcontext():
        return _run_in(run, settings, content, model_dir, results / "tb_logs" / model_dir.name)


def _run_in(
    run: Run, settings: RunSettings, content: dict[str, Any] | None, model_dir: Path, tb_logs: Path
) -> float | None:
    """The run whose checkpoints are in ``model_dir``, recorded."""
    s: ExperimentSettings = settings.of(ExperimentSettings)
    run.info["git"] = git_commit(Path(__file__).parent)
    if s.resume and content is not None:
        run.info["resumed"] = {
            "t_env": content["progress"]["t_env"],
            "record": content.get("record", ""),
            "start": checkpoints.count_start(model_dir),
        }
    run_dir = _run_dir(run.observers)
    if run_dir is not None:
        settings_file = run_dir / SETTINGS_FILE
        try:
            settings_file.write_text(yaml.safe_dump(settings.values, sort_keys=True, allow_unicode=True))
            run.add_artifact(str(settings_file))
            if s.save_model:
                run.info["model_dir"] = str(model_dir)
                (run_dir / checkpoints.MODEL_DIR_FILE).write_text(f"{model_dir.resolve()}\n")
        except OSError as error:
            raise UserError(
                f"The record in {run_dir} cannot be written ({error.strerror}): free some space."
            ) from error
    try:
        with taking_along_what_it_starts():
            result = _train(run, settings, content, model_dir, tb_logs)
    except BaseException:
        flush_record(run)
        raise
    flush_record(run)  # the curve is drawn from the record
    score = _report(run, run_dir, model_dir, result, s)
    flush_record(run)
    return score


def _train(
    run: Run, settings: RunSettings, content: dict[str, Any] | None, model_dir: Path, tb_logs: Path
) -> dict[str, float]:
    """Train or evaluate. Returns the last test's metrics."""
    s: ExperimentSettings = settings.of(ExperimentSettings)
    t_start = content["progress"]["t_env"] if content else 0
    with Console(s.t_max, t_start=t_start) as console:
        logger = Logger(run, console, tb_logs if s.use_tensorboard else None, lambda: beat(run))
        experiment = None
        try:
            experiment = Experiment(settings, logger, console, model_dir, record=uid_of(run.meta_info))
            if content is not None:
                experiment.load(content, whole=bool(s.resume))
                logger.info(f"starting from the checkpoint at {t_start:,} environment steps")
            logger.info(experiment.describe())
            return experiment.run()
        finally:
            if experiment is not None:
                experiment.close()
            logger.close()
            if (model_dir / checkpoints.BEST).is_file():
                run.add_artifact(str(model_dir / checkpoints.BEST))
            else:
                checkpoints.give_back(model_dir)


def _report(
    run: Run, run_dir: Path | None, model_dir: Path, result: dict[str, float], s: ExperimentSettings
) -> float | None:
    """Say how it ended and where everything lies."""
    for key, value in sorted(result.items()):
        _say(f"{key:<34}{value:.4g}")
    if run_dir is not None:
        _say(f"record       {_from_here(run_dir)}")
        if not s.evaluate:
            from shoal.analysis.curves import draw_run

            try:
                picture = draw_run(run_dir)
            except (OSError, UserError) as error:  # all but the picture is there
                picture = None
                _say(f"warning: no curve was drawn ({error})")
            if picture is not None:
                run.add_artifact(str(picture))
                _say(f"curve        {_from_here(picture)}")
    if s.save_model and not s.evaluate:
        _say(f"checkpoints  {model_dir} (that of the best test: {checkpoints.BEST})")
    return result.get(metric_names.judge(result))


def _say(line: str) -> None:
    """Print, unless nothing can be printed any more (a full disk, a closed terminal): what was done is done."""
    with contextlib.suppress(OSError):
        print(line)


def _from_here(path: Path) -> Path:
    """A path as a person would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _run_dir(observers: Sequence[RunObserver]) -> Path | None:
    """The folder of the run's file record, once there is one."""
    for observer in observers:
        if isinstance(observer, FileStorageObserver) and observer.dir is not None:
            return Path(observer.dir)
    return None


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
