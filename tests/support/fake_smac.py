"""A stand-in for the package `smac` where it is not installed: plays back a battle that the real one recorded.

Put into ``sys.modules`` by ``install()``. It answers what the adapter asks, and crashes as smac does.
"""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECORD = Path(__file__).parent / "data" / "sc2_3m.npz"


class StarCraft2Env:
    """smac's environment, whatever is asked of it."""

    crash_at: int | None = None
    """Step of the next episode at which the game crashes, once."""
    crash_at_reset = 0
    """Launches that will fail."""
    built: list["StarCraft2Env"] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.record = dict(np.load(RECORD))
        self.n_actions_no_attack = 6
        self.timeouts, self.launches, self.closed = 0, 0, False
        self._seed = arguments["seed"]
        self.seeds_at_launch: list[int | None] = []
        self._t = 0
        StarCraft2Env.built.append(self)

    def get_env_info(self) -> dict[str, int]:
        return {key.removeprefix("fact_"): int(v) for key, v in self.record.items() if key.startswith("fact_")}

    def full_restart(self) -> None:
        self.launches += 1

    def reset(self) -> None:
        assert not self.closed
        if not self.launches:
            self.launches = 1
            self.seeds_at_launch.append(self._seed)
        if StarCraft2Env.crash_at_reset:
            StarCraft2Env.crash_at_reset -= 1
            self.full_restart()
        self._t = 0

    def step(self, actions: list[int]) -> tuple[float, bool, dict[str, Any]]:
        assert self.record["avail_actions"][self._t][np.arange(3), actions].all()
        if StarCraft2Env.crash_at == self._t:
            StarCraft2Env.crash_at = None
            self.full_restart()
            return 0, True, {}  # what smac says of a crash
        self._t += 1
        over = self._t == len(self.record["reward"])
        self.timeouts += over
        info = {"battle_won": False} | {"dead_allies": 3, "dead_enemies": 0} if over else {}
        return float(self.record["reward"][self._t - 1]), over, info

    def get_obs(self) -> np.ndarray:
        return self.record["obs"][self._t]

    def get_state(self) -> np.ndarray:
        return self.record["state"][self._t]

    def get_avail_actions(self) -> np.ndarray:
        return self.record["avail_actions"][self._t]

    def close(self) -> None:
        self.closed = True


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> type[StarCraft2Env]:
    """Make ``import smac`` find the fake, and SC2PATH a folder that looks like the game's."""
    names = ("smac", "smac.env", "smac.env.starcraft2", "smac.env.starcraft2.maps")
    modules = {name: types.ModuleType(name) for name in (*names, "smac.env.starcraft2.maps.smac_maps")}
    registry: dict[str, Any] = {"3m": {}, "5m_vs_6m": {}, "6h_vs_8z": {}}
    maps: Any = modules["smac.env.starcraft2.maps.smac_maps"]
    maps.SMACMap, maps.get_smac_map_registry = type("SMACMap", (), {}), lambda: registry
    modules["smac.env"].StarCraft2Env = StarCraft2Env  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for path in ("Versions/Base75689/SC2_x64", "Maps/SMAC_Maps/3m.SC2Map"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    monkeypatch.setenv("SC2PATH", str(folder))
    monkeypatch.setattr(StarCraft2Env, "built", [])
    monkeypatch.setattr(StarCraft2Env, "crash_at", None)
    monkeypatch.setattr(StarCraft2Env, "crash_at_reset", 0)
    return StarCraft2Env
