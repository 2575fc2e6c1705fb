"""The payoff game without a vectorised step of its own, so that runner=parallel starts worker processes for it."""

import time
from pathlib import Path
from typing import Any

import gymnasium

from shoal.envs.matrix_game import MatrixGameEnv, MatrixGameSettings


class PlainMatrixGame(gymnasium.Wrapper):
    """One payoff game."""

    Settings = MatrixGameSettings

    def __init__(self, settings: MatrixGameSettings) -> None:
        super().__init__(MatrixGameEnv(settings))


class GatedMatrixGame(PlainMatrixGame):
    """Starts no episode after environment step 120 while there is a file ``gate`` in the working folder."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if options is not None and options["t_env"] > 120:
            while Path("gate").exists():
                time.sleep(0.01)
        return super().reset(seed=seed, options=options)
