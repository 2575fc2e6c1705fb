"""The checkpoints of one run: written, pruned, and which there are."""

from pathlib import Path
from typing import Any

from shoal.experiment.settings import ExperimentSettings
from shoal.recording import metric_names
from shoal.recording.logger import Logger
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError


class Saver:
    """Writes a run's checkpoints into its folder, where they are wanted (``save_model``)."""

    def __init__(self, settings: ExperimentSettings, folder: Path, logger: Logger) -> None:
        self._settings, self.folder, self._logger = settings, folder, logger

    def save(self, content: dict[str, Any], t_env: int, last: bool) -> Path | None:
        """Write the checkpoint of ``t_env``. Returns its path, or None if the folder cannot be written.

        On a full disk older ones make room for the ``last``; if that is not enough, it does without the replay memory.
        """
        try:
            self._logger.flush()  # what a resumed run does not repeat is in the record first
            path = self._save_last(content, t_env) if last else checkpoints.save(content, self.folder, t_env)
        except OSError as error:
            self._logger.warning(f"No checkpoint at {t_env:,}: {self.folder} cannot be written ({error.strerror}).")
            return None
        self._logger.info(f"checkpoint {path}")
        return path

    def _save_last(self, content: dict[str, Any], t_env: int) -> Path:
        room = checkpoints.make_room(self.folder, t_env)
        while True:
            try:
                return checkpoints.save(content, self.folder, t_env)
            except OSError as error:
                if error.errno not in checkpoints.NO_ROOM:
                    raise
                deleted = next(room, None)
                if deleted is not None:
                    self._logger.warning(f"The disk is full: {deleted} makes room for the last checkpoint.")
                elif content["buffer"]["episodes"] is not None:
                    content = checkpoints.without_memory(content)
                    self._logger.warning("The disk is full: the last checkpoint is saved without the replay memory.")
                else:
                    raise

    def prune(self, t_env: int, keep_buffers: int) -> None:
        """Delete what is older than the settings keep; call it once the new checkpoint is whole."""
        try:
            checkpoints.prune(self.folder, t_env, self._settings.keep_checkpoints, keep_buffers)
        except Exception as error:  # of the file system, or a damaged file: no reason to end a run
            self._logger.warning(f"Older checkpoints in {self.folder} could not be deleted: {error}.")

    def save_best(self, content: dict[str, Any]) -> bool:
        """Write the checkpoint of the best test so far. Returns whether it is there."""
        try:
            self._logger.flush()
            checkpoints.write(content, self.folder / checkpoints.BEST)
        except OSError as error:
            self._logger.warning(f"The best test's checkpoint cannot be written ({error.strerror}).")
            return False
        return True

    def best_score(self) -> list[float]:
        """How the best checkpoint did, which may be younger than the one that the run continues from."""
        path = self.folder / checkpoints.BEST
        if not path.is_file():
            return []
        try:
            return metric_names.stored_score(checkpoints.load(path)["progress"]["best"])
        except UserError:  # damaged: the next good test replaces it
            return []

    def newest(self) -> Path | None:
        """The newest checkpoint, if there is one."""
        steps = checkpoints.steps_in(self.folder) if self._settings.save_model else []
        return self.folder / f"{steps[-1]}{checkpoints.SUFFIX}" if steps else None

    def describe_newest(self) -> str:
        """A sentence that says which checkpoint there is."""
        newest = self.newest()
        if newest is None:
            return "No checkpoint was saved before."
        return (
            f"The newest checkpoint is of t_env {int(newest.stem):,}; to resume it: with resume={self.folder} "
            "(and KEY=VALUE for a setting that is to change)."
        )

    def has(self, t_env: int) -> bool:
        """Whether there is a checkpoint of this very step."""
        return (self.folder / f"{t_env}{checkpoints.SUFFIX}").is_file()
