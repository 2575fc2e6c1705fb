"""An environment of your own, given as its class: two agents on a line are paid for being at the same place.

python examples/own_environment.py
"""

from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium
import numpy as np
from gymnasium import spaces

import shoal
from shoal.declare import Range

MOVES = np.array([-1, 0, 1])


@dataclass(frozen=True)
class MeetingSettings:
    length: Annotated[int, "places on the line", Range(2)] = 7
    time_limit: Annotated[int, "steps of an episode", Range(1)] = 8


class Meeting(gymnasium.Env):
    """Two agents on a line meet. Each sees where it and the other one are."""

    Settings = MeetingSettings

    def __init__(self, settings: MeetingSettings) -> None:
        self.settings, self.episode_limit = settings, settings.time_limit
        self.observation_space = spaces.Dict(
            obs=spaces.Box(0, 1, (2, 2), np.float32),
            state=spaces.Box(0, 1, (2,), np.float32),
            avail_actions=spaces.MultiBinary([2, len(MOVES)]),
        )
        self.action_space = spaces.MultiDiscrete([len(MOVES)] * 2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.places, self.t = self.np_random.integers(self.settings.length, size=2), 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.places, self.t = np.clip(self.places + MOVES[action], 0, self.settings.length - 1), self.t + 1
        met = bool(self.places[0] == self.places[1])
        return self._observation(), float(met), met, self.t == self.settings.time_limit, {"met": met}

    def _observation(self) -> dict[str, np.ndarray]:
        x, y = (self.places / (self.settings.length - 1)).astype(np.float32)
        every = np.ones((2, len(MOVES)), np.int8)
        return {"obs": np.array([[x, y], [y, x]]), "state": np.array([x, y]), "avail_actions": every}


def main(**changes: Any) -> dict[str, float]:
    """Train with these settings changed. Returns the last test's metrics; ``test_met_mean`` is the share that met."""
    with shoal.make("vdn", Meeting, **({"length": 9, "t_max": 20_000, "seed": 1} | changes)) as run:
        return run.train()


if __name__ == "__main__":  # worker processes import this file
    print(main())
