"""An environment that takes its time to start, as StarCraft II and a first compilation do."""

import time
from pathlib import Path
from typing import Any

from shoal.envs.matrix_game import MatrixGameEnv


class SlowStart(MatrixGameEnv):
    """Leaves the file ``starting`` in the working folder, then waits for a minute."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        Path("starting").touch()
        time.sleep(60)
