"""Random streams of an environment's own, so that an episode follows from its seed and nothing else."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class PrivateRandomness:
    """The global random streams of `random`, `numpy.random` and torch (on the CPU), as one environment sees them.

    Many environments draw from the global streams. While `entered`, those are this environment's own: an episode then
    follows from its seed, and everybody else's numbers are as if the environment had not been there. Entering is
    reentrant and costs about 0.2 ms.
    """

    def __init__(self) -> None:
        self._state = _state()
        self._inside = False

    def seed(self, seed: int) -> None:
        """Restart the streams from `seed`."""
        python = random.Random(seed).getstate()
        numpy = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed))).get_state()
        torch = _torch()
        self._state = (python, numpy, torch.Generator().manual_seed(seed).get_state() if torch else None)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let the global streams be this environment's own for a while."""
        if self._inside:
            yield
            return
        outside = _state()
        _restore(self._state)
        self._inside = True
        try:
            yield
        finally:
            self._inside = False
            self._state = _state()
            _restore(outside)


def _torch() -> Any:
    """torch, if somebody has imported it: environments need not pay for that."""
    return sys.modules.get("torch")


def _state() -> tuple[Any, Any, Any]:
    torch = _torch()
    return random.getstate(), np.random.get_state(), torch.get_rng_state() if torch else None


def _restore(state: tuple[Any, Any, Any]) -> None:
    python, numpy, torch = state
    random.setstate(python)
    np.random.set_state(numpy)
    if torch is not None:
        sys.modules["torch"].set_rng_state(torch)


def seed_spaces(seed: int, *of: gymnasium.Space) -> None:
    """Seed the spaces that an environment may `sample` from, which nobody else does."""
    for space in of:
        if isinstance(space, spaces.Space):
            space.seed(seed)
