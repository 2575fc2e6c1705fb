"""A run's metrics at Weights & Biases (wandb.ai), or in its offline files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shoal.callbacks.callback import Callback
from shoal.utils.extras import needed_for
from shoal.utils.guardian import unmarked

if TYPE_CHECKING:
    from shoal.experiment import Experiment


class Wandb(Callback):
    """Sends every recorded number to Weights & Biases, over ``t_env``, with the run's settings.

    Configured by W&B's own environment variables: ``WANDB_PROJECT`` (here ``shoal`` by default), ``WANDB_ENTITY``,
    ``WANDB_MODE`` (``offline`` for machines without a network), ``WANDB_DIR``, ``WANDB_RUN_GROUP``, ``WANDB_TAGS``.

    Args:
        **options: for ``wandb.init``; they win over the environment. Only where the object is made in Python.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._run: Any = None

    def on_start(self, experiment: Experiment) -> None:
        """Start the run over there.

        Raises:
            UserError: wandb is not installed.
        """
        with needed_for("The callback Wandb", "wandb"):
            import wandb
        s = experiment.settings
        with unmarked():  # W&B's service ends with this process, and serves other runs of it too
            setup = wandb.setup()
        options: dict[str, Any] = {
            "project": setup.settings.project or "shoal",
            "name": f"{s.name}_{s.env}_seed{s.seed}",
            "config": experiment.all_settings.values,
        }
        self._run = wandb.init(**options | self._options, reinit="create_new")
        self._run.define_metric("*", step_metric="t_env")
        experiment.logger.add_recorder("Weights & Biases", self._log)

    def _log(self, metrics: Mapping[str, float], t_env: int) -> None:
        self._run.log({**metrics, "t_env": t_env})

    def on_end(self, experiment: Experiment, result: Mapping[str, float] | None) -> None:
        if self._run is not None:
            experiment.logger.remove_recorder("Weights & Biases")
            self._run.summary.update(result or {})
            self._run.finish(exit_code=0 if result is not None else 1)
            self._run = None
