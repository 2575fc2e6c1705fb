"""The payoff game without a vectorised step of its own, so that runner=parallel starts worker processes for it."""

import gymnasium

from shoal.envs.matrix_game import MatrixGameEnv, MatrixGameSettings


class PlainMatrixGame(gymnasium.Wrapper):
    """One payoff game."""

    Settings = MatrixGameSettings

    def __init__(self, settings: MatrixGameSettings) -> None:
        super().__init__(MatrixGameEnv(settings))
