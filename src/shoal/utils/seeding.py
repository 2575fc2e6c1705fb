"""Random states: one seed for a run, and what it takes to put every generator back where it was."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

LARGEST_SEED = 2**63 - 1
"""The largest whole number that MongoDB stores; torch takes no seeds above twice that."""


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed if seed < 2**32 else [seed % 2**32, seed >> 32])
    torch.manual_seed(seed)


class _Snapshot:
    """The states of all global generators at one moment, in whatever form is fastest."""

    def __init__(self) -> None:
        self._state = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def put_back(self) -> None:
        random.setstate(self._state[0])
        np.random.set_state(self._state[1])
        torch.set_rng_state(self._state[2])
        if self._on_gpus:
            torch.cuda.set_rng_state_all(self._on_gpus)


@contextmanager
def unless_raised() -> Iterator[None]:
    """What is drawn inside counts only if it comes to its end: an exception puts all global generators back."""
    before = _Snapshot()
    try:
        yield
    except BaseException:
        before.put_back()
        raise


@contextmanager
def random_state_kept() -> Iterator[None]:
    """What is drawn inside leaves all global generators as they were."""
    before = _Snapshot()
    try:
        yield
    finally:
        before.put_back()


class OwnRandomness:
    """The global generators' states of one user of them among several, in one process."""

    def __init__(self) -> None:
        self._own: _Snapshot | None = None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the generators continue from the end of the last such context; afterwards all is as before.

        The first one starts with the generators as they are.
        """
        others = _Snapshot()
        if self._own is not None:
            self._own.put_back()
        try:
            yield
        finally:
            self._own = _Snapshot()
            others.put_back()


def random_state() -> dict[str, Any]:
    """States of python's, numpy's and torch's global generators, as types that a weights-only load takes."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": json.dumps(random.getstate()),
        "numpy": json.dumps([name, np.asarray(keys).tolist(), position, has_gauss, cached]),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Undo ``random_state``."""
    version, internal, gauss = json.loads(state["python"])
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = json.loads(state["numpy"])
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
