"""An environment that stops half way until it is told to go on, so that a test can do something in mid-run."""

import time
from pathlib import Path
from typing import Any

from shoal.envs.matrix_game import MatrixGameEnv


class HeldGame(MatrixGameEnv):
    """Before its 20th episode: leaves the file ``half`` in the working folder and waits for ``go``."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._episodes = 0

    def reset(self, **kwargs: Any) -> Any:
        self._episodes += 1
        if self._episodes == 20:
            Path("half").touch()
            end = time.monotonic() + 600
            while not Path("go").exists() and time.monotonic() < end:
                time.sleep(0.05)
        return super().reset(**kwargs)
