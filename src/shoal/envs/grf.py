"""Google Research Football: academy scenarios and five-a-side, as the S2Q and CADP papers play them."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from shoal.declare import Checked, Range, Role
from shoal.envs.grf_scenarios import known_scenario, register_scenarios
from shoal.utils.errors import UserError

INSTALL = "./install_grf.sh"
N_ACTIONS = 19
"""The engine's default action set: idle, eight directions, three passes, shot, sprint, two releases, dribble, ..."""
GOAL, FAILURE = 100.0, -1.0
"""What rewards=outcome pays: CADP's numbers."""


@dataclass(frozen=True)
class GRFSettings(Checked):
    """Settings of Google Research Football."""

    map_name: Annotated[
        str, "scenario: academy_3_vs_2, academy_4_vs_3, academy_counterattack_easy, ..., 5_vs_5", Role.TASK
    ] = "academy_3_vs_2"
    rewards: Annotated[
        Literal["scoring", "scoring,checkpoints", "outcome"],
        "scoring: 1 per goal, -1 per goal conceded; scoring,checkpoints: plus 0.1 for each of ten steps of "
        "the ball towards the goal; outcome (CADP): 100 for a goal, -1 for any other end",
    ] = "scoring"
    reward_aggregation: Annotated[
        Literal["sum", "mean"],
        "how the players' rewards are combined into the team's; with sum (S2Q's release) and three players a "
        "goal pays 3",
    ] = "sum"
    time_limit: Annotated[
        int | None, "maximum steps per episode; null: the scenario's (150; 5_vs_5: 300)", Range(1)
    ] = None
    end_behind_line: Annotated[
        Literal["ball_or_players", "ball", "never"], "who ends the episode by falling back behind line_x"
    ] = "ball_or_players"
    line_x: Annotated[
        float | None,
        "x of the line of end_behind_line, from -1 (own goal) to 1; null: the scenario's own (0, the half "
        "line; academy_corner -0.1; 5_vs_5 -0.15)",
        Range(-1, 1),
    ] = None


class GRFEnv(gymnasium.Env):
    """Google Research Football, the real engine: a team against the engine's own players (env_args.map_name).

    With N controlled players and K observed opponents, agent i observes, in the engine's units (the pitch reaches from
    -1 to 1 by -0.42 to 0.42, velocities are distances a step), 4N + 4K + 6 numbers:

        its position (2), its team mates' positions minus its own (2(N-1)), its velocity (2), theirs (2(N-1)),
        the opponents' positions minus its own (2K), their velocities (2K),
        the ball's position minus its own (2), the ball's height (1) and velocity (3).

    The state has the same numbers with positions as they are and the controlled players in the agents' order: positions
    (2N), velocities (2N), opponents' positions (2K) and velocities (2K), ball (3) and its velocity (3). Table E.2 of
    the S2Q paper gives the sizes alone; the order is ours. Of a scenario with more players on the pitch than these, the
    others are not seen.

    Agent i is whom its action moves: the engine's ``active`` player. Where the left team has more players than agents
    the engine hands an agent another one, as a game pad's player gets the one who is passed to, the keeper included
    (docs/football.md says how often); agent i then sees as that player. The released wrappers describe the last N
    players to the agents, whoever they move.

    The reward is the team's (``rewards``, ``reward_aggregation``). An episode ends when a goal is scored, the ball goes
    out of play, possession changes, or when the ball or one of the attackers (the last N of the engine's list, moved
    by an agent or not) is behind the line (``end_behind_line``); it is truncated at the time limit. The last info holds
    ``score_reward`` (goals for minus goals against) and ``win_rate`` (1 where it is positive). All actions are always
    available. Same seed and actions, same episode.

    Raises:
        UserError: no such scenario, or the engine is not installed.
    """

    Settings = GRFSettings
    own_process = True
    action_classes = {  # noqa: RUF012 - an environment's plain attribute
        "idle": [0],
        "move": list(range(1, 9)),
        "pass": [9, 10, 11],
        "shot": [12],
        "other": list(range(13, N_ACTIONS)),
    }

    def __init__(self, settings: GRFSettings) -> None:
        self._scenario = known_scenario(settings.map_name)
        self._settings = settings
        N, K = self._scenario.n_agents, self._scenario.n_opponents
        self.episode_limit = settings.time_limit or self._scenario.limit
        self._line = self._scenario.line if settings.line_x is None else settings.line_x
        size = 4 * N + 4 * K + 6
        self.observation_space = spaces.Dict(
            obs=spaces.Box(-np.inf, np.inf, (N, size), np.float32),
            state=spaces.Box(-np.inf, np.inf, (size,), np.float32),
            avail_actions=spaces.MultiBinary([N, N_ACTIONS]),
        )
        self.action_space = spaces.MultiDiscrete([N_ACTIONS] * N)
        self._check_installed()
        self._others = np.array([[j for j in range(N) if j != i] for i in range(N)])  # [N, N-1]
        self._engine: Any = None
        self._raw: dict[str, Any] = {}
        self._moved = np.arange(N)  # whom each agent moves: index into the engine's list of the left team
        self._steps = 0

    @staticmethod
    def _check_installed() -> None:
        missing = [name for name in ("gfootball", "gfootball_engine", "gym") if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(f"env=grf needs Google Research Football ({', '.join(missing)} is missing): run {INSTALL}.")

    def _launch(self) -> Any:
        logging.getLogger("absl").setLevel(logging.WARNING)  # the engine's package reports every episode
        register_scenarios()
        football = importlib.import_module("gfootball.env")
        return football.create_environment(
            env_name=self._scenario.level,
            representation="raw",
            rewards="scoring" if self._settings.rewards == "outcome" else self._settings.rewards,
            number_of_left_players_agent_controls=self._scenario.n_agents,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that ``seed`` determines -> observation, empty info."""
        super().reset(seed=seed)
        if self._engine is None:
            self._engine = self._launch()
        if seed is not None:
            config = self._engine.unwrapped._config
            config["game_engine_random_seed"] = seed
            # Which team's moves are computed first follows from the first seed only, where it is left to the package.
            config["reverse_team_processing"] = bool(seed % 2)
        raw = self._engine.reset()
        self._steps = 0
        self._moved = np.arange(len(raw[0]["left_team"]))[-self._scenario.n_agents :]
        self._see(raw)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One step under ``action`` [N] -> observation, team reward, terminated, truncated, info at the end."""
        raw, rewards, over, _ = self._engine.step([int(a) for a in action])
        self._see(raw)
        self._steps += 1
        terminated = bool(over) or self._fell_back()
        truncated = not terminated and self._steps >= self.episode_limit
        info: dict[str, Any] = {}
        if terminated or truncated:
            goals = self._raw["score"]
            difference = float(goals[0] - goals[1])
            info = {"score_reward": difference, "win_rate": float(difference > 0)}
        return self._observation(), self._reward(rewards, terminated or truncated), terminated, truncated, info

    def _see(self, raw: list[dict[str, Any]]) -> None:
        """Take over what the engine shows each agent; one without a player for now (-1) keeps the one it had."""
        self._raw = raw[0]
        active = np.array([one["active"] for one in raw])
        self._moved = np.where(active < 0, self._moved, active)

    def _fell_back(self) -> bool:
        who = self._settings.end_behind_line
        behind = [self._raw["ball"][0]] if who != "never" else []
        if who == "ball_or_players":
            behind.extend(self._raw["left_team"][-self._scenario.n_agents :, 0])
        return any(x < self._line for x in behind)

    def _reward(self, rewards: Any, over: bool) -> float:
        if self._settings.rewards == "outcome":
            return GOAL if np.sum(rewards) > 0 else FAILURE * over
        return float(np.sum(rewards) if self._settings.reward_aggregation == "sum" else np.mean(rewards))

    def _observation(self) -> dict[str, np.ndarray]:
        N, K = self._scenario.n_agents, self._scenario.n_opponents
        raw = self._raw
        mine, my_moves = raw["left_team"][self._moved], raw["left_team_direction"][self._moved]  # [N, 2]
        theirs, their_moves = raw["right_team"][:K], raw["right_team_direction"][:K]  # [K, 2]
        ball, ball_moves = raw["ball"], raw["ball_direction"]  # [3]
        others = self._others  # [N, N-1]
        relative = np.concatenate([mine[others] - mine[:, None], theirs - mine[:, None]], axis=1)  # [N, N-1+K, 2]
        alike = np.concatenate([their_moves.ravel(), ball[2:], ball_moves])  # what all see alike
        alike = np.broadcast_to(alike, (N, alike.size))
        obs = np.concatenate(
            (
                mine,
                relative[:, : N - 1].reshape(N, -1),
                my_moves,
                my_moves[others].reshape(N, -1),
                relative[:, N - 1 :].reshape(N, -1),
                alike[:, : 2 * K],
                ball[:2] - mine,
                alike[:, 2 * K :],
            ),
            axis=1,
            dtype=np.float32,
        )
        state = np.concatenate(
            [part.ravel() for part in (mine, my_moves, theirs, their_moves, ball, ball_moves)], dtype=np.float32
        )
        return {"obs": obs, "state": state, "avail_actions": np.ones((N, N_ACTIONS), dtype=np.int8)}

    def render(self) -> np.ndarray:
        """The pitch from above, ours blue (moved by an agent: white rim), theirs red: uint8 ``[300, 600, 3]``."""
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (600, 300), "#2d6a35")
        draw = ImageDraw.Draw(image)

        def spot(x: float, y: float) -> tuple[float, float]:
            return 300 + 270 * x, 150 + 300 * y

        draw.rectangle((*spot(-1, -0.42), *spot(1, 0.42)), outline="white")
        draw.line((*spot(0, -0.42), *spot(0, 0.42)), fill="white")
        for x in (-1, 1):
            draw.line((*spot(x, -0.044), *spot(x, 0.044)), fill="yellow", width=5)
        for key, colour in (("left_team", "#3b6fe0"), ("right_team", "#d33a2c")):
            for i, (x, y) in enumerate(self._raw[key]):
                u, v = spot(x, y)
                outline = "white" if key == "left_team" and i in self._moved else "black"
                draw.ellipse((u - 6, v - 6, u + 6, v + 6), fill=colour, outline=outline)
        x, y, height = self._raw["ball"]
        u, v = spot(x, y)
        r = 3 + min(3.0, height)
        draw.ellipse((u - r, v - r, u + r, v + r), fill="white")
        return np.asarray(image)

    def close(self) -> None:
        """Release the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
