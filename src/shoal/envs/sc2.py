"""StarCraft II: SMAC's maps and SMAC-Comm's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from shoal.declare import Range
from shoal.envs.starcraft import BattleSettings, StarCraftEnv, known_map, module_of


@dataclass(frozen=True)
class SC2Settings(BattleSettings):
    """Settings of SMAC."""

    sight_range: Annotated[float | None, "sight range of allies, in map units; null: SMAC's (9)", Range(above=0)] = None
    shoot_range: Annotated[float | None, "shooting range of allies, in map units; null: SMAC's (6)", Range(above=0)] = (
        None
    )


COMM_MAPS: dict[str, dict[str, Any]] = {
    "1o_10b_vs_1r": {"n_agents": 11, "n_enemies": 1, "limit": 50, "races": "ZZ", "bits": 2, "type": "overload_bane"},
    "1o_2r_vs_4r": {"n_agents": 3, "n_enemies": 4, "limit": 50, "races": "ZZ", "bits": 2, "type": "overload_roach"},
    "5z_vs_1ul": {"n_agents": 5, "n_enemies": 1, "limit": 150, "races": "PZ", "bits": 0, "type": "zealots"},
    "bane_vs_hM": {"n_agents": 3, "n_enemies": 2, "limit": 30, "races": "ZT", "bits": 2, "type": "bZ_hM"},
}
"""SMAC-Comm (table E.3 of the S2Q paper), as NDQ registered the maps; only 5z_vs_1ul's type is another one:
NDQ calls its zealots stalkers, which gives their shields the wrong scale."""

HYDRALISK, MEDIVAC = 107, 54  # the game's numbers of unit types
OVERSEER = 1971  # in the maps that have one, whose allied units have types of their own


def _register_comm_maps() -> None:
    """Make SMAC and pysc2 know the SMAC-Comm maps (once a process)."""
    smac_maps = module_of("smac.env.starcraft2.maps.smac_maps")
    registry = smac_maps.get_smac_map_registry()
    for name, m in COMM_MAPS.items():
        if name in registry:
            continue
        registry[name] = {
            "n_agents": m["n_agents"],
            "n_enemies": m["n_enemies"],
            "limit": m["limit"],
            "a_race": m["races"][0],
            "b_race": m["races"][1],
            "unit_type_bits": m["bits"],
            "map_type": m["type"],
        }
        # pysc2 finds maps among the subclasses of its own class.
        setattr(smac_maps, name, type(name, (smac_maps.SMACMap,), {"filename": name}))


def _smac_game(settings: SC2Settings, arguments: dict[str, Any]) -> Any:
    """A StarCraft2Env that knows SMAC-Comm's units and the ranges that the settings ask for."""
    base = module_of("smac.env").StarCraft2Env

    class Game(base):  # type: ignore[valid-type,misc]  # smac has no types
        def unit_sight_range(self, agent_id: int) -> float:
            own: float = super().unit_sight_range(agent_id)
            return own if settings.sight_range is None else settings.sight_range

        def unit_shoot_range(self, agent_id: int) -> float:
            own: float = super().unit_shoot_range(agent_id)
            return own if settings.shoot_range is None else settings.shoot_range

        def get_unit_type_id(self, unit: Any, ally: bool) -> int:
            match self.map_type, ally:
                case "overload_roach", True:
                    return int(unit.unit_type == OVERSEER)
                case "overload_bane", True:
                    return int(unit.unit_type != OVERSEER)
                case "overload_roach" | "overload_bane", False:
                    return 0
                case "bZ_hM", False:
                    return int(unit.unit_type != HYDRALISK)
            own: int = super().get_unit_type_id(unit, ally)
            return own

        def _init_ally_unit_types(self, min_unit_type: int) -> None:
            super()._init_ally_unit_types(min_unit_type)
            if self.map_type == "bZ_hM":
                self.baneling_id = min_unit_type

        def only_medivac_left(self, ally: bool) -> bool:
            if self.map_type == "bZ_hM":
                # Banelings die as they attack: to kill the hydralisk with the last of them is to win.
                alive = [unit for unit in self.enemies.values() if unit.health > 0]
                return not ally and all(unit.unit_type == MEDIVAC for unit in alive)
            own: bool = super().only_medivac_left(ally)
            return own

        def update_units(self) -> int | None:
            code: int | None = super().update_units()
            return 1 if self.map_type == "bZ_hM" and self.only_medivac_left(ally=False) else code

    return Game(**arguments)


class SC2Env(StarCraftEnv):
    """StarCraft II: SMAC's maps and SMAC-Comm's (1o_2r_vs_4r, 1o_10b_vs_1r, 5z_vs_1ul, bane_vs_hM)."""

    Settings = SC2Settings
    suite = "sc2"

    def _map_file(self) -> str:
        _register_comm_maps()
        registry = module_of("smac.env.starcraft2.maps.smac_maps").get_smac_map_registry()
        return f"{known_map(self._settings.map_name, list(registry))}.SC2Map"

    def _make(self, seed: int | None) -> Any:
        _register_comm_maps()
        arguments = {k: v for k, v in self._arguments().items() if k not in ("sight_range", "shoot_range")}
        return _smac_game(self._settings, arguments | {"seed": seed})
