"""The scenarios of Google Research Football that the papers play, and the one that the engine lacks."""

from __future__ import annotations

import difflib
import importlib
import sys
import types
from dataclasses import dataclass
from typing import Any

from shoal.utils.errors import UserError


@dataclass(frozen=True)
class Scenario:
    """A scenario of the engine, and who takes part.

    Attributes:
        level: the engine's name.
        n_agents: the controlled players. The last so many of the engine's list of the left team are the attackers.
        n_opponents: the observed opponents, the first of its list of the right team (the keeper is the first).
        limit: longest episode, in steps.
        line: x of the line that ball and attackers must not fall back behind; 0 is the half line.
    """

    level: str
    n_agents: int
    n_opponents: int
    limit: int = 150
    line: float = 0.0


SCENARIOS = {
    "academy_3_vs_2": Scenario("academy_3_vs_1_with_keeper", 3, 2),
    "academy_4_vs_3": Scenario("academy_4_vs_2_with_keeper", 4, 3),
    "academy_counterattack_easy": Scenario("academy_counterattack_easy", 4, 2),
    "academy_counterattack_hard": Scenario("academy_counterattack_hard", 4, 3),
    "academy_corner": Scenario("academy_corner", 10, 11, line=-0.1),
    "academy_pass_and_shoot_with_keeper": Scenario("academy_pass_and_shoot_with_keeper", 2, 2),
    "academy_run_pass_and_shoot_with_keeper": Scenario("academy_run_pass_and_shoot_with_keeper", 2, 2),
    "5_vs_5": Scenario("5_vs_5", 4, 5, limit=300, line=-0.15),
}
"""By the papers' names. The sizes that follow are theirs: 26 and 34 numbers for the first two (table E.2 of the S2Q
paper), 30 for academy_counterattack_easy (CADP). Limits and lines are those of S2Q's released wrapper."""
ALIASES = {
    "academy_3_vs_1_with_keeper": "academy_3_vs_2",
    "academy_4_vs_2_with_keeper": "academy_4_vs_3",
    "academy_counterattack": "academy_counterattack_hard",
    "academy_2_vs_2": "academy_run_pass_and_shoot_with_keeper",
}


def known_scenario(map_name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UserError: there is none; the sentence names the nearest ones.
    """
    name = ALIASES.get(map_name, map_name)
    if name in SCENARIOS:
        return SCENARIOS[name]
    nearest = difflib.get_close_matches(map_name, SCENARIOS, n=3, cutoff=0.4) or sorted(SCENARIOS)
    raise UserError(f"Unknown map_name {map_name!r}: did you mean {', '.join(repr(k) for k in nearest)}?")


def register_scenarios() -> None:
    """Make the engine find academy_4_vs_2_with_keeper, which it lacks: it imports scenarios from its own package."""
    name = "gfootball.scenarios.academy_4_vs_2_with_keeper"
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.build_scenario = _four_against_two_and_a_keeper  # type: ignore[attr-defined]
        sys.modules[name] = module


def _four_against_two_and_a_keeper(builder: Any) -> None:
    """academy_3_vs_1_with_keeper with one attacker and one defender more.

    The papers give the numbers of players (four central midfielders; a keeper and two centre backs); the places are
    ours, after the engine's scenario with one less of each.
    """
    engine = importlib.import_module("gfootball_engine")
    role, team = engine.e_PlayerRole, engine.e_Team
    config = builder.config()
    config.game_duration = 400
    config.deterministic = False
    config.offsides = False
    config.end_episode_on_score = True
    config.end_episode_on_out_of_play = True
    config.end_episode_on_possession_change = True
    builder.SetBallPosition(0.62, 0.0)
    builder.SetTeam(team.e_Left)
    builder.AddPlayer(-1.0, 0.0, role.e_PlayerRole_GK)
    for x, y in ((0.6, 0.0), (0.65, 0.1), (0.7, 0.2), (0.7, -0.2)):
        builder.AddPlayer(x, y, role.e_PlayerRole_CM)
    builder.SetTeam(team.e_Right)
    builder.AddPlayer(-1.0, 0.0, role.e_PlayerRole_GK)
    for x, y in ((-0.75, 0.1), (-0.75, -0.1)):
        builder.AddPlayer(x, y, role.e_PlayerRole_CB)
