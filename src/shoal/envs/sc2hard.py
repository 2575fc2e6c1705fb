"""StarCraft II: SMAC-Hard, whose opponents mix scripts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from shoal.declare import Range, Role
from shoal.envs.starcraft import BattleSettings, StarCraftEnv, known_map, module_of


@dataclass(frozen=True)
class SC2HardSettings(BattleSettings):
    """Settings of SMAC-Hard."""

    map_name: Annotated[str, "SMAC map, with or without the suffix _Hard", Role.TASK] = "2s3z_Hard"
    mode: Annotated[Literal["single"], "type of opponent: a script (self-play is not supported)"] = "single"
    strategy_prob: Annotated[
        list[float] | None, "probabilities of the map's opponent scripts; null: uniform", Range(0, 1)
    ] = None


class SC2HardEnv(StarCraftEnv):
    """StarCraft II: SMAC-Hard, whose opponent draws one of several scripts for every episode."""

    Settings = SC2HardSettings
    suite = "sc2hard"

    def _map_file(self) -> str:
        registry = module_of("smac_hard.env.starcraft2.maps.smac_maps").get_smac_map_registry()
        return f"{known_map(self._settings.map_name.removesuffix('_Hard'), list(registry))}.SC2Map"

    def _make(self, seed: int | None) -> Any:
        name = self._settings.map_name.removesuffix("_Hard")
        game = module_of("smac_hard.env").StarCraft2Env(**self._arguments() | {"map_name": name, "seed": seed})
        game._sc2_procs = []  # so that one whose games were never launched can be closed
        return game

    def _units(self) -> tuple[Iterable[Any], Iterable[Any]]:
        ours = self._game.agents_dict_list[0]
        return ours["agents"].values(), ours["enemies"].values()
