"""StarCraft II: SMACv2, whose teams and starting positions are drawn."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from shoal.declare import Range, Role
from shoal.envs.starcraft import BattleSettings, StarCraftEnv, known_map, module_of

RACES: dict[str, dict[str, Any]] = {
    "terran": {"unit_types": ["marine", "marauder", "medivac"], "exception_unit_types": ["medivac"]},
    "protoss": {"unit_types": ["stalker", "zealot", "colossus"]},
    "zerg": {"unit_types": ["zergling", "hydralisk", "baneling"], "exception_unit_types": ["baneling"]},
}
"""SMACv2's units; a team of exceptional ones alone is drawn again."""
SIZES = ("5_vs_5", "10_vs_10", "10_vs_11", "20_vs_20", "20_vs_23")


@dataclass(frozen=True)
class SC2v2Settings(BattleSettings):
    """Settings of SMACv2: its names, and the values of its example configurations."""

    map_name: Annotated[str, "RACE_N_vs_M, as in terran_5_vs_5, protoss_10_vs_11, zerg_20_vs_23", Role.TASK] = (
        "terran_5_vs_5"
    )
    obs_own_pos: Annotated[bool, "observe one's own position"] = True
    use_unit_ranges: Annotated[bool, "use each unit type's own sight and attack ranges"] = True
    min_attack_range: Annotated[float, "lower bound of attack ranges, with use_unit_ranges, in map units", Range(0)] = 2
    conic_fov: Annotated[bool, "limit sight to a cone, which agents turn by actions"] = False
    num_fov_actions: Annotated[int, "directions that the cone of conic_fov can be turned to", Range(1)] = 12
    fully_observable: Annotated[bool, "agents see all enemies at any distance"] = False
    prob_obs_enemy: Annotated[float, "probability of seeing an enemy that another ally saw first", Range(0, 1)] = 1.0
    action_mask: Annotated[bool, "mask attacks on enemies that the agent cannot see"] = True
    kill_unit_step_mul: Annotated[int, "game steps for removing units, with stochastic health", Range(1)] = 2
    capability_config: Annotated[
        dict[str, Any], "SMACv2's distributions of units and start positions; empty: the ones of map_name"
    ] = field(default_factory=dict)


def capability_config(map_name: str) -> dict[str, Any]:
    """The distributions of teams and starting positions of ``RACE_N_vs_M``, as in SMACv2's example configurations."""
    race, _, size = map_name.partition("_")
    n_units, _, n_enemies = size.partition("_vs_")
    return {
        "n_units": int(n_units),
        "n_enemies": int(n_enemies),
        "team_gen": {"dist_type": "weighted_teams", "weights": [0.45, 0.45, 0.1], "observe": True, **RACES[race]},
        "start_positions": {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": 32, "map_y": 32},
    }


class SC2v2Env(StarCraftEnv):
    """StarCraft II: SMACv2, with teams and positions drawn for every episode (terran_5_vs_5, zerg_10_vs_11, ...)."""

    Settings = SC2v2Settings
    suite = "sc2v2"

    def _map_file(self) -> str:
        known_map(self._settings.map_name, [f"{race}_{size}" for race in RACES for size in SIZES])
        return "32x32_flat.SC2Map"

    def _make(self, seed: int | None) -> Any:
        wrapper = module_of("smacv2.env.starcraft2.wrapper").StarCraftCapabilityEnvWrapper
        name = self._settings.map_name
        config = copy.deepcopy(self._settings.capability_config) or capability_config(name)
        arguments = {"map_name": f"10gen_{name.partition('_')[0]}", "capability_config": config, "seed": seed}
        return wrapper(**self._arguments() | arguments)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode whose teams and positions follow from ``seed``."""
        self._replace_game(seed)
        if seed is not None:
            _reseed(self._env.env_key_to_distribution_map.values(), np.random.default_rng(seed))
        return super().reset(seed=seed, options=options)


def _reseed(distributions: Any, rng: np.random.Generator) -> None:
    """Give SMACv2's distributions, and those inside them, generators of their own from ``rng``."""
    for distribution in distributions:
        parts = vars(distribution)
        if "rng" in parts:
            distribution.rng = np.random.default_rng(rng.integers(2**63))
        _reseed([part for part in parts.values() if hasattr(part, "generate")], rng)
