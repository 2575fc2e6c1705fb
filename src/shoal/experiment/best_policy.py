"""The policy that did best in a run's tests, kept for one longer test at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from shoal.controllers.controller import Controller
from shoal.recording import metric_names
from shoal.utils.finite import require_finite


class BestPolicy:
    """A copy, in main memory, of the controller's networks as they were in the best test so far.

    The best test is the one with the highest score, among equals the first.
    """

    def __init__(self) -> None:
        self.score: list[float] = []
        self.t_env = 0
        self.networks: dict[str, Tensor] = {}

    def offer(self, score: list[float], controller: Controller, t_env: int) -> None:
        """Keep the controller's networks if their test is the best so far, by ``metric_names.is_better``.

        The first is kept whatever its score, and gives way to the first whose score is finite.

        Raises:
            NonFiniteError: they would be kept, but hold a NaN or an infinity.
        """
        better = metric_names.is_better(score, self.score)
        if better or not self.networks:
            networks = _copy(controller)
            require_finite(networks, "The policy of the best test cannot be kept")
            self.score, self.t_env, self.networks = score if better else [], t_env, networks

    @contextmanager
    def in_place_of(self, controller: Controller) -> Iterator[None]:
        """Within it, ``controller`` plays the best policy."""
        now = _copy(controller)
        controller.load_state_dict(self.networks)
        try:
            yield
        finally:
            controller.load_state_dict(now)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"score": self.score, "t_env": self.t_env, "networks": self.networks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        self.score = metric_names.stored_score(state["score"])
        self.t_env, self.networks = state["t_env"], state["networks"]


def _copy(controller: Controller) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in controller.state_dict().items()}
