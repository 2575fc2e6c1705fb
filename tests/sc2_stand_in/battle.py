"""The battles of the stand-in for StarCraft II: which units fight on which map, and a small model of how.

Units walk, shoot, cool down and die; none stands in another's way. These are NOT StarCraft's battles, so that nothing
learned here says anything about scores there.
"""

import math
import random
from dataclasses import dataclass, field
from itertools import count

MAP_SIZE = 32
ENEMY_STRENGTH = 0.5
"""What enemies' damage is multiplied by: a team that focuses its fire wins, one that does not loses."""
RESPAWN_LOOPS = 4
"""How long a map stays empty. SMACv2 waits, two loops at a time, to see it empty; SMAC waits for the new units."""
FIRST_ALLIED_TYPE = 1970
HEAL, ENERGY_PER_HEAL = 5.0, 5 / 3


@dataclass(frozen=True)
class Kind:
    """What units of one kind have in common. Times are in game loops."""

    number: int
    """The unit type as Blizzard numbers it, which enemies wear; SMAC's maps number allied units anew."""
    health: int
    shield: int = 0
    damage: float = 0.0
    range: float = 0.1
    reload: int = 14
    speed: float = 0.14
    radius: float = 0.5
    energy: float = 0.0
    flies: bool = False
    hits_air: bool = False
    heals: bool = False
    light: bool = False
    blast: float = 0.0
    """Not 0: the unit dies of its attack, which hurts all foes on the ground this close to the target."""
    bonus: float = 0.0
    """More damage to light units."""


KINDS = {
    # Terran
    "marine": Kind(48, 45, 0, 6, 5, 14, 0.14, 0.375, hits_air=True, light=True),
    "marauder": Kind(51, 125, 0, 10, 6, 24, 0.14, 0.56),
    "medivac": Kind(54, 150, 0, 0, 4, 14, 0.16, 0.75, energy=50, flies=True, heals=True),
    "reaper": Kind(49, 60, 0, 8, 5, 18, 0.23, 0.375, light=True),
    # Protoss
    "stalker": Kind(74, 80, 80, 13, 6, 30, 0.18, 0.625, hits_air=True),
    "zealot": Kind(73, 100, 50, 16, 0.1, 19, 0.14, 0.5, light=True),
    "colossus": Kind(4, 200, 150, 20, 7, 24, 0.14, 1.0),
    # Zerg
    "hydralisk": Kind(107, 80, 0, 12, 5, 13, 0.14, 0.625, hits_air=True, light=True),
    "zergling": Kind(105, 35, 0, 5, 0.1, 11, 0.18, 0.375, light=True),
    "baneling": Kind(9, 30, 0, 20, 0.25, 11, 0.16, 0.375, blast=2.2, bonus=15),
    "roach": Kind(110, 145, 0, 16, 4, 32, 0.14, 0.625),
    "ultralisk": Kind(109, 500, 0, 35, 1, 14, 0.18, 1.0),
    "overseer": Kind(129, 200, 0, 0, 0, 14, 0.12, 1.0, flies=True),
    "spine": Kind(98, 300, 0, 25, 7, 30, 0.0, 1.1),
}


@dataclass(frozen=True)
class GameMap:
    """A map: who fights whom, and how the allied units are numbered."""

    allies: dict[str, int]
    """Kind -> how many. Their types are numbered from ``first_type`` in this order."""
    enemies: dict[str, int]
    first_type: int = FIRST_ALLIED_TYPE
    scouted: bool = False
    """The enemies wait at a random height of the map, and the overseers of the allies are already there."""

    def allied_type(self, kind: str) -> int:
        """The unit type that the map gives to allied units of a kind."""
        return self.first_type + list(self.allies).index(kind)

    def kind(self, unit_type: int) -> str | None:
        """What a unit type is, be it the map's own or Blizzard's. None: not known here."""
        own = dict(enumerate(self.allies, self.first_type))
        blizzards = {kind.number: name for name, kind in KINDS.items()}
        return own.get(unit_type) or blizzards.get(unit_type)


MAPS = {
    # SMAC
    "3m": GameMap({"marine": 3}, {"marine": 3}),
    "8m": GameMap({"marine": 8}, {"marine": 8}),
    "25m": GameMap({"marine": 25}, {"marine": 25}),
    "5m_vs_6m": GameMap({"marine": 5}, {"marine": 6}),
    "8m_vs_9m": GameMap({"marine": 8}, {"marine": 9}),
    "10m_vs_11m": GameMap({"marine": 10}, {"marine": 11}),
    "27m_vs_30m": GameMap({"marine": 27}, {"marine": 30}),
    "MMM": GameMap({"marauder": 2, "marine": 7, "medivac": 1}, {"marauder": 2, "marine": 7, "medivac": 1}),
    "MMM2": GameMap({"marauder": 2, "marine": 7, "medivac": 1}, {"marauder": 3, "marine": 8, "medivac": 1}),
    "2s3z": GameMap({"stalker": 2, "zealot": 3}, {"stalker": 2, "zealot": 3}),
    "3s5z": GameMap({"stalker": 3, "zealot": 5}, {"stalker": 3, "zealot": 5}),
    "3s5z_vs_3s6z": GameMap({"stalker": 3, "zealot": 5}, {"stalker": 3, "zealot": 6}),
    "3s_vs_3z": GameMap({"stalker": 3}, {"zealot": 3}),
    "3s_vs_4z": GameMap({"stalker": 3}, {"zealot": 4}),
    "3s_vs_5z": GameMap({"stalker": 3}, {"zealot": 5}),
    "1c3s5z": GameMap({"colossus": 1, "stalker": 3, "zealot": 5}, {"colossus": 1, "stalker": 3, "zealot": 5}),
    "2m_vs_1z": GameMap({"marine": 2}, {"zealot": 1}),
    "corridor": GameMap({"zealot": 6}, {"zergling": 24}),
    "6h_vs_8z": GameMap({"hydralisk": 6}, {"zealot": 8}),
    "2s_vs_1sc": GameMap({"stalker": 2}, {"spine": 1}),
    "so_many_baneling": GameMap({"zealot": 7}, {"baneling": 32}),
    "bane_vs_bane": GameMap({"baneling": 4, "zergling": 20}, {"baneling": 4, "zergling": 20}),
    "2c_vs_64zg": GameMap({"colossus": 2}, {"zergling": 64}),
    # SMAC-Comm
    "1o_10b_vs_1r": GameMap({"baneling": 10, "overseer": 1}, {"roach": 1}, scouted=True),
    "1o_2r_vs_4r": GameMap({"overseer": 1, "roach": 2}, {"reaper": 4}, first_type=1971, scouted=True),
    "5z_vs_1ul": GameMap({"zealot": 5}, {"ultralisk": 1}),
    "bane_vs_hM": GameMap({"baneling": 3}, {"hydralisk": 1, "medivac": 1}),
    # SMACv2: empty until the client creates units, the allied ones of nine types in this order
    "32x32_flat": GameMap(
        dict.fromkeys(
            ("baneling", "colossus", "hydralisk", "marauder", "marine", "medivac", "stalker", "zealot", "zergling"), 0
        ),
        {},
    ),
}


@dataclass(eq=False)
class Unit:
    """A unit on the map."""

    tag: int
    owner: int
    name: str
    unit_type: int
    x: float
    y: float
    kind: Kind = field(init=False)
    health: float = field(init=False)
    shield: float = field(init=False)
    energy: float = field(init=False)
    cooldown: int = 0
    order: tuple[str, float, float] | tuple[str, int] | None = None
    """("move", x, y), ("attack", tag), ("heal", tag), or None."""

    def __post_init__(self) -> None:
        self.kind = KINDS[self.name]
        self.health, self.shield, self.energy = self.kind.health, self.kind.shield, self.kind.energy

    def gap(self, other: "Unit") -> float:
        """How far their rims are apart."""
        return math.hypot(other.x - self.x, other.y - self.y) - self.kind.radius - other.kind.radius

    def can_hit(self, other: "Unit") -> bool:
        """Whether it has a weapon against such a unit."""
        return self.kind.damage > 0 and (self.kind.hits_air or not other.kind.flies)

    def can_heal(self, other: "Unit") -> bool:
        """Whether it can heal such a unit, be it hurt or not."""
        return self.kind.heals and self.energy >= ENERGY_PER_HEAL and not other.kind.flies


class Battle:
    """A game on one map, from which seed and orders follow all that happens."""

    def __init__(self, map_name: str, seed: int) -> None:
        self.map, self.loop, self.units = MAPS[map_name], 0, dict[int, Unit]()
        self._rng, self._tags, self._empty_loops = random.Random(seed), count(1 << 20), 0
        self._ordered: list[tuple[str, int, int, float, float]] = []
        self._spawn()

    def _add(self, name: str, owner: int, unit_type: int, x: float, y: float) -> None:
        unit = Unit(next(self._tags), owner, name, unit_type, _inside(x), _inside(y))
        self.units[unit.tag] = unit

    def _spawn(self) -> None:
        self._empty_loops = 0
        middle = self._rng.uniform(7, MAP_SIZE - 7) if self.map.scouted else MAP_SIZE / 2
        for owner, side, groups in ((1, -1, self.map.allies), (2, 1, self.map.enemies)):
            row = 0
            for name, number in groups.items():
                for _ in range(number):
                    with_foes = owner == 2 or (self.map.scouted and name == "overseer")
                    x = MAP_SIZE / 2 + 7 * (1 if with_foes else side) + row // 8 * side
                    y = (middle if with_foes else MAP_SIZE / 2) + row % 8 - 4 + self._rng.uniform(-0.2, 0.2)
                    self._add(name, owner, self.map.allied_type(name) if owner == 1 else KINDS[name].number, x, y)
                    row += 1

    def create(self, unit_type: int, owner: int, x: float, y: float) -> bool:
        """Creates a unit in the next loop, as debug commands do. Returns whether its type is known."""
        name = self.map.kind(unit_type)
        if name is not None:
            self._ordered.append((name, owner, unit_type, x, y))
        return name is not None

    def kill(self, tag: int) -> None:
        """Removes a unit, if it is there."""
        self.units.pop(tag, None)

    def step(self, loops: int) -> None:
        """Lets the game go on."""
        for _ in range(loops):
            self.loop += 1
            for name, owner, unit_type, x, y in self._ordered:
                self._add(name, owner, unit_type, *self._free_spot(name, x, y))
            self._ordered.clear()
            if not self.units and self.map.enemies:
                self._empty_loops += 1
                if self._empty_loops >= RESPAWN_LOOPS:
                    self._spawn()
            for unit in list(self.units.values()):
                if unit.health > 0:
                    self._act(unit)

    def _free_spot(self, name: str, x: float, y: float) -> tuple[float, float]:
        """The place itself, or one nearby where the unit stands on no other. The game does so too."""
        radius = KINDS[name].radius
        for ring in range(8):
            for i in range(max(1, 6 * ring)):
                angle = 2 * math.pi * i / max(1, 6 * ring)
                spot = _inside(x + 0.8 * ring * math.cos(angle)), _inside(y + 0.8 * ring * math.sin(angle))
                if all(math.dist(spot, (u.x, u.y)) >= 0.7 * (radius + u.kind.radius) for u in self.units.values()):
                    return spot
        return x, y

    def _decide(self, unit: Unit) -> None:
        """What the computer player orders: the nearest foe, or for a medivac the nearest of its own that is hurt."""
        if unit.kind.heals:
            at = [u for u in self.units.values() if u.owner == 2 and unit.can_heal(u) and u.health < u.kind.health]
        else:
            at = [u for u in self.units.values() if u.owner == 1 and unit.can_hit(u)]
        nearest = min(at, key=lambda u: (math.hypot(u.x - unit.x, u.y - unit.y), u.tag), default=None)
        unit.order = None if nearest is None else ("heal" if unit.kind.heals else "attack", nearest.tag)

    def _act(self, unit: Unit) -> None:
        unit.cooldown = max(0, unit.cooldown - 1)
        if unit.owner == 2:
            self._decide(unit)
        match unit.order:
            case "move", x, y:
                _walk(unit, x, y)
            case "attack" | "heal" as verb, tag:
                target = self.units.get(tag)
                if target is None or not (unit.can_hit(target) if verb == "attack" else unit.can_heal(target)):
                    unit.order = None
                elif unit.gap(target) > unit.kind.range:
                    _walk(unit, target.x, target.y)
                elif unit.cooldown == 0:
                    unit.cooldown = unit.kind.reload
                    if verb == "heal":
                        target.health = min(target.kind.health, target.health + HEAL)
                        unit.energy -= ENERGY_PER_HEAL
                    else:
                        self._attack(unit, target)

    def _attack(self, unit: Unit, target: Unit) -> None:
        hit = [target]
        if unit.kind.blast:
            foes = [u for u in self.units.values() if u.owner == target.owner and unit.can_hit(u)]
            hit = [u for u in foes if math.dist((u.x, u.y), (target.x, target.y)) <= unit.kind.blast]
            self._hurt(unit, math.inf)
        for foe in hit:
            damage = unit.kind.damage + unit.kind.bonus * foe.kind.light
            self._hurt(foe, damage * (ENEMY_STRENGTH if unit.owner == 2 else 1))

    def _hurt(self, unit: Unit, damage: float) -> None:
        shielded = min(unit.shield, damage)
        unit.shield -= shielded
        unit.health = max(0.0, unit.health - (damage - shielded))
        if unit.health == 0:
            del self.units[unit.tag]


def _inside(position: float) -> float:
    return min(MAP_SIZE - 1.0, max(1.0, position))


def _walk(unit: Unit, x: float, y: float) -> None:
    way = math.hypot(x - unit.x, y - unit.y)
    if way > 1e-6:
        share = min(unit.kind.speed, way) / way
        unit.x, unit.y = _inside(unit.x + (x - unit.x) * share), _inside(unit.y + (y - unit.y) * share)
