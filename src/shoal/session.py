"""One experiment with its record around it: what the command line and the Python interface share."""

import contextlib
import copy
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import sacred
import yaml
from sacred.config.config_summary import ConfigSummary
from sacred.run import Run

from shoal.callbacks.callback import Callback, require_importable
from shoal.config.settings import RunSettings
from shoal.experiment import Experiment, ExperimentSettings
from shoal.recording import metric_names
from shoal.recording.captured_output import bounded_output
from shoal.recording.console import Console
from shoal.recording.file_record import uid_of
from shoal.recording.heartbeats import beat, flush_record
from shoal.recording.logger import Logger
from shoal.recording.observers import run_dir_of
from shoal.recording.provenance import git_commit
from shoal.recording.reader import MODEL_DIR_FILE, SETTINGS_FILE, checkpoints_of
from shoal.recording.sacred_setup import prepare_sacred
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from shoal.utils.guardian import Guardian


def checked_settings(raw: dict[str, Any], sources: dict[str, str], notes: Sequence[str]) -> RunSettings:
    """The settings of a run, from what ``raw_config`` returns; with a seed where none was given. Prints the notes.

    Raises:
        UserError: they are unknown or impossible, or do not go together.
    """
    if raw.get("seed") is None:
        raw["seed"], sources["seed"] = int(np.random.SeedSequence().generate_state(1)[0] >> 1), "drawn"
    settings = RunSettings(raw, ExperimentSettings, sources)
    settings.components["learner"].check_controller(settings.components["mac"])
    require_importable(settings.of(ExperimentSettings).callbacks)
    for note in (*notes, *settings.notes):
        print(f"note: {note}", file=sys.stderr)
    return settings


class ResolvedConfig:
    """Gives sacred the checked settings; for print_config their help and source, and the user's own ones marked."""

    def __init__(self, settings: RunSettings, modified: Collection[str] = ()) -> None:
        self._settings, self._modified = settings, set(modified)

    def __call__(self, fixed: Any = None, preset: Any = None, fallback: Any = None) -> ConfigSummary:
        docs = {path: row.help for path, row in self._settings.declared.items()}
        for path, source in self._settings.sources.items():
            docs[path] = f"{docs.get(path, '')} [{source}]".lstrip()
        summary = ConfigSummary(modified=self._modified, docs=docs)
        summary.update(copy.deepcopy(self._settings.values))
        return summary


def sacred_experiment(train: Callable[[Run, Mapping[str, Any]], float | None]) -> sacred.Experiment:
    """sacred's side of a run, whose main function is ``train``."""
    prepare_sacred()
    ex = sacred.Experiment("shoal", save_git_info=False)
    ex.captured_out_filter = bounded_output  # type: ignore[assignment]
    ex.main(train)
    return ex


def add_component_sources(ex: sacred.Experiment, settings: RunSettings) -> None:
    """Have the record keep the files of the run's components: sacred finds only what is imported at the start."""
    for component in settings.components.values():
        with contextlib.suppress(TypeError, OSError):  # a class made in a notebook has no file
            ex.add_source_file(inspect.getfile(component))


class Session:
    """A run between the start and the end of its record: its checkpoints' folder, environments, networks and console.

    Args:
        run: sacred's run, which has started.
        settings: the run's.
        content: the checkpoint that it starts from, if any.
        callbacks: besides those that the settings name.
        live: whether the console draws a live display; None decides from the terminal.

    Raises:
        UserError: another run has the folder of checkpoints, the record cannot be written, or an environment or a
            network cannot be made.
    """

    def __init__(
        self,
        run: Run,
        settings: RunSettings,
        content: dict[str, Any] | None,
        callbacks: Sequence[Callback] = (),
        live: bool | None = None,
    ) -> None:
        s: ExperimentSettings = settings.of(ExperimentSettings)
        self.run = run
        self.run_dir = run_dir_of(run.observers)
        self.model_dir = _model_dir(s)
        self._settings = s
        self._concluded = False
        with contextlib.ExitStack() as stack:
            # Before anything is said of the checkpoints: a run that is refused them is no part of the run that has
            # them.
            if s.save_model and not s.evaluate:
                stack.enter_context(checkpoints.locked(self.model_dir))
            self._describe_start(settings, content)
            stack.callback(self._flush)
            self._guardian = Guardian()
            stack.callback(self._guardian.close)
            t_start = content["progress"]["t_env"] if content else 0
            self.console = stack.enter_context(Console(s.t_max, live=live, t_start=t_start))
            stack.callback(self._put_away)
            tb_logs = Path(s.local_results_path) / "tb_logs" / self.model_dir.name
            logger = Logger(
                run, self.console, tb_logs if s.use_tensorboard else None, lambda: beat(run), folder=self.run_dir
            )
            stack.callback(logger.close)
            with self.at_work():
                record = uid_of(run.meta_info)
                self.experiment = Experiment(settings, logger, self.console, self.model_dir, callbacks, record)
                stack.callback(self._end_environments)
                if content is not None:
                    self.experiment.load(content, whole=bool(s.resume))
                    logger.info(f"starting from the checkpoint at {t_start:,} environment steps")
                logger.info(self.experiment.describe())
            self._stack = stack.pop_all()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Around all that runs the environment's code: what that starts ends with the session."""
        with self._guardian.marking():
            yield

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def close(self) -> None:
        """End the environments and all that they started, and let go of the folder of checkpoints."""
        self._stack.close()

    def _describe_start(self, settings: RunSettings, content: dict[str, Any] | None) -> None:
        """Put into the record what the run is and where its checkpoints are."""
        s, run = self._settings, self.run
        run.info["git"] = git_commit(Path(__file__).parent)
        if s.resume and content is not None:
            run.info["resumed"] = {
                "t_env": content["progress"]["t_env"],
                "record": content.get("record", ""),
                "start": checkpoints.count_start(self.model_dir),
            }
        if self.run_dir is None:
            return
        settings_file = self.run_dir / SETTINGS_FILE
        try:
            settings_file.write_text(yaml.safe_dump(settings.values, sort_keys=True, allow_unicode=True))
            run.add_artifact(str(settings_file))
            if s.save_model:
                run.info["model_dir"] = str(self.model_dir)
                (self.run_dir / MODEL_DIR_FILE).write_text(f"{self.model_dir.resolve()}\n")
        except OSError as error:
            raise UserError(
                f"The record in {self.run_dir} cannot be written ({error.strerror}): free some space."
            ) from error

    def _end_environments(self) -> None:
        with self.at_work():
            self.experiment.close()

    def conclude(self, result: Mapping[str, float]) -> float | None:
        """Report, as ``report`` does, while the environments stay open: nothing is recorded from here on."""
        self.console.close()
        self._put_away()
        self._flush()
        score = self.report(result)
        self._concluded = True
        return score

    def _flush(self) -> None:
        if not self._concluded:
            flush_record(self.run)

    def _put_away(self) -> None:
        """The checkpoint of the best test goes into the record; a folder that holds none is removed."""
        if self._concluded:
            return
        if (self.model_dir / checkpoints.BEST).is_file():
            self.run.add_artifact(str(self.model_dir / checkpoints.BEST))
        else:
            checkpoints.give_back(self.model_dir)

    def report(self, result: Mapping[str, float]) -> float | None:
        """Say how the run ended and where everything lies; draw its curve. Returns what it is judged by."""
        s, run = self._settings, self.run
        for key, value in sorted(result.items()):
            _say(f"{key:<34}{value:.4g}")
        if self.run_dir is not None:
            _say(f"record       {_from_here(self.run_dir)}")
            if not s.evaluate:
                from shoal.analysis.curves import draw_run

                try:
                    picture = draw_run(self.run_dir)
                except (OSError, UserError) as error:  # all but the picture is there
                    picture = None
                    _say(f"warning: no curve was drawn ({error})")
                if picture is not None:
                    run.add_artifact(str(picture))
                    _say(f"curve        {_from_here(picture)}")
        if s.save_model and not s.evaluate:
            _say(f"checkpoints  {self.model_dir} (best test: {checkpoints.BEST})")
        flush_record(run)
        return result.get(metric_names.judge(result))


def _model_dir(s: ExperimentSettings) -> Path:
    """The run's folder of checkpoints: that of the run which continues, or a new one for it alone."""
    if s.resume:
        model_dir = checkpoints_of(Path(s.resume))
        return model_dir.parent if model_dir.is_file() else model_dir
    token = f"{s.name}_{s.env}_seed{s.seed}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    model_dir = Path(s.local_results_path) / "models" / token
    return checkpoints.claim(model_dir) if s.save_model and not s.evaluate else model_dir


def _say(line: str) -> None:
    """Print, unless nothing can be printed any more (a full disk, a closed terminal): what was done is done."""
    with contextlib.suppress(OSError):
        print(line)


def _from_here(path: Path) -> Path:
    """A path as a person would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
