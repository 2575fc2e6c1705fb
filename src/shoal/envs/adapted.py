"""What the adapters of foreign environments share: random streams, drawing and closing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium

from shoal.envs.private_random import PrivateRandomness


class AdaptedEnv(gymnasium.Env):
    """A foreign environment (`_env`), which an adapter builds, resets, steps, draws and closes in `_random.entered()`.

    An episode is drawn if `reset` is told so (`options={"draw": True}`): the environment is then built anew with
    `render_mode="rgb_array"`, where it takes that. An environment of which there is only this one object is drawn as
    it is.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium's attribute
    render_mode = "rgb_array"
    own_randomness = True
    _env: Any

    def __init__(self) -> None:
        self._random = PrivateRandomness()
        self._draws = False

    def _build(self, draw: bool = False) -> Any:
        """A new environment; with `draw`, one that can be drawn if there is such a thing."""
        raise NotImplementedError

    @property
    def entry_names(self) -> Mapping[str, Sequence[str]]:
        """The foreign environment's names of the entries of obs and state, if it has this attribute."""
        names: Mapping[str, Sequence[str]] = getattr(self._env, "entry_names", {})
        return names

    def _renew(self, rebuild: bool, options: dict[str, Any] | None) -> None:
        """Before an episode: build the environment anew where every episode has its own, or to have it drawn.

        The first episode has its own, too: what is drawn while it is built must follow from the episode's seed.
        """
        draw = bool((options or {}).get("draw"))
        if rebuild or (draw and not self._draws):
            self._close()
            self._env, self._draws = self._build(draw), draw

    def render(self) -> Any:
        """A picture of the state, uint8 [height, width, 3]; None if the environment gives none."""
        with self._random.entered():
            return self._env.render()

    def _close(self) -> None:
        if hasattr(self._env, "close"):
            self._env.close()

    def close(self) -> None:
        """Close the environment underneath, where it can be closed."""
        with self._random.entered():
            self._close()
