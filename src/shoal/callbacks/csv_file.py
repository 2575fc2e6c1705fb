"""A run's metrics as a CSV file, for spreadsheets and for whatever reads no sacred record."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from shoal.callbacks.callback import Callback
from shoal.utils.errors import UserError

if TYPE_CHECKING:
    from shoal.experiment import Experiment


class CSV(Callback):
    """Writes every recorded number as a row ``t_env,metric,value`` of ``metrics.csv`` in the run's record."""

    NAME = "metrics.csv"

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def on_start(self, experiment: Experiment) -> None:
        """Open the file.

        Raises:
            UserError: the run has no record, or the file cannot be written.
        """
        folder = experiment.logger.folder
        if folder is None:
            raise UserError("The callback CSV writes into the run's record, and this run has none: leave it out.")
        try:
            self._file = (folder / self.NAME).open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{folder / self.NAME} cannot be written: {error.strerror}.") from error
        rows = csv.writer(self._file)
        rows.writerow(["t_env", "metric", "value"])

        def write(metrics: Mapping[str, float], t_env: int) -> None:
            rows.writerows([t_env, name, value] for name, value in metrics.items())

        experiment.logger.add_recorder(self.NAME, write)

    def on_test(self, experiment: Experiment, metrics: Mapping[str, float]) -> None:
        self._flush()

    def on_checkpoint(self, experiment: Experiment, path: Path) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def on_end(self, experiment: Experiment, result: Mapping[str, float] | None) -> None:
        if self._file is not None:
            experiment.logger.remove_recorder(self.NAME)
            self._file.close()
            experiment.logger.add_artifact(Path(self._file.name))
            self._file = None
