"""A team environment whose every episode is a function of its seed and its actions, and which can fail on purpose."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from shoal.envs.team import EPISODE_FAILED
from shoal.runners.supervised import RolloutAbandonedError
from shoal.runners.workers import EnvFactory

GAME = "import time; time.sleep(600)  # the game of a test"
FAILED_REWARD = 1000.0
"""Paid only in episodes that fail, so that one of them in a mean cannot be overlooked."""
CLASHING = {
    "return": 7.0,
    "env_return": 2.0,
    "ep_length": 99,
    "episode_failed": True,
    "action_low": 9.0,
    "q_taken": np.float32(3.0),
    "test_return": 5.0,
    "_score": 0.0,
}
"""Numbers under names that Shoal itself uses."""


leaked: list[int] = []
"""Files that nobody closes."""


@dataclass(frozen=True)
class TeamEnvSettings:
    episode_limit: Annotated[int, "longest possible episode"] = 6
    continuous: Annotated[bool, "action vectors instead of indices"] = False
    fail_share: Annotated[float, "share of the seeds whose episode cannot be finished"] = 0.0
    raise_at: Annotated[int | None, "step of every episode at which an exception is raised"] = None
    fault: Annotated[
        Literal[
            "",
            "exit",
            "hang",
            "raise",
            "segv",
            "sys_exit",
            "eof",
            "keyboard",
            "memory",
            "long",
            "stubborn",
            "leak_files",
        ],
        "what happens in a step of the unlucky episodes",
    ] = ""
    wrong: Annotated[Literal["", "obs", "state", "reward", "score"], "what the unlucky episodes' last step spoils"] = ""
    wrong_value: Annotated[float | None, "by what; None: NaN"] = None
    fault_share: Annotated[float, "share of the seeds that are unlucky"] = 1.0
    fault_at_start: Annotated[bool, "it happens at the episode's start instead"] = False
    with_game: Annotated[bool, "start a process of its own, as a game would be"] = False
    step_s: Annotated[float, "seconds that a step takes"] = 0.0
    info: Annotated[
        Literal["", "wins", "outcome", "clash"], "what the last info holds too: battle_won if it was, always; own names"
    ] = ""
    clock: Annotated[float, "how fast the state's last entry falls; 0: it is as the others"] = 0.0
    overrun: Annotated[bool, "go on after episode_limit"] = False


class TeamEnv(gymnasium.Env):
    """Episodes of 1 to episode_limit steps, some terminated and some truncated early.

    Observations and rewards are drawn from the seed and all actions so far: whoever replays other actions sees
    something else.
    """

    Settings = TeamEnvSettings
    N, A, D, S = 2, 4, 3, 5

    def __init__(self, settings: TeamEnvSettings) -> None:
        self.settings = settings
        self.episode_limit = settings.episode_limit
        N, A, D, S = self.N, self.A, self.D, self.S
        parts: dict[str, spaces.Space] = {
            "obs": spaces.Box(-1, 1, (N, D), np.float32),
            "state": spaces.Box(-1, 1, (S,), np.float32),
        }
        self.action_space: spaces.Space = spaces.Box(-1, 1, (N, A), np.float32)
        if not settings.continuous:
            parts["avail_actions"] = spaces.MultiBinary([N, A])
            self.action_space = spaces.MultiDiscrete([A] * N)
        self.observation_space = spaces.Dict(parts)
        self._game = subprocess.Popen([sys.executable, "-c", GAME]) if settings.with_game else None

    def _draw(self) -> np.random.Generator:
        return np.random.default_rng(int.from_bytes(hashlib.sha256(self._history).digest()[:8], "little"))

    def _observation(self) -> dict[str, np.ndarray]:
        rng = self._draw()
        observation = {
            "obs": rng.uniform(-1, 1, (self.N, self.D)).astype(np.float32),
            "state": rng.uniform(-1, 1, self.S).astype(np.float32),
        }
        if self.settings.clock:
            observation["state"][-1] = -self.settings.clock * self._steps
        if not self.settings.continuous:
            available = rng.integers(0, 2, (self.N, self.A), dtype=np.int8)
            available[np.arange(self.N), rng.integers(0, self.A, self.N)] = 1
            observation["avail_actions"] = available
        return observation

    def reset(self, *, seed=None, options=None):
        assert seed is not None, "every episode must be seeded"
        super().reset(seed=seed)
        self._seed, self._steps, self._history = seed, 0, str(seed).encode()
        rng = np.random.default_rng([seed, 1])
        self._length = int(rng.integers(1, self.episode_limit + 1))
        self._terminates = bool(rng.integers(2))
        self._fails = bool(rng.random() < self.settings.fail_share)
        self._unlucky = bool(rng.random() < self.settings.fault_share)
        if self.settings.fault_at_start:
            self._misbehave()
        return self._observation(), {}

    def _misbehave(self) -> None:
        if not self._unlucky:
            return
        match self.settings.fault:
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(600)
            case "raise":
                raise RuntimeError("the game fell over")
            case "segv":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "sys_exit":
                sys.exit(0)
            case "eof":
                raise EOFError("the game hung up")
            case "keyboard":
                raise KeyboardInterrupt
            case "memory":
                raise MemoryError
            case "leak_files":
                leaked.append(os.open(os.devnull, os.O_RDONLY))
            case "stubborn":
                while True:
                    with contextlib.suppress(RolloutAbandonedError):
                        time.sleep(600)
            case "long":
                raise RuntimeError("x" * 1_000_000)

    def step(self, action):
        if self.settings.step_s:
            time.sleep(self.settings.step_s)
        if self._steps == self.settings.raise_at:
            raise RuntimeError("the game fell over")
        if not self.settings.fault_at_start and self._steps == self._length - 1:
            self._misbehave()
        if not self.settings.continuous:
            available = self._observation()["avail_actions"]
            assert available[np.arange(self.N), action].all(), "an unavailable action was chosen"
        self._steps += 1
        self._history += np.asarray(action).tobytes()
        if self._fails:
            return self._observation(), FAILED_REWARD, True, False, {EPISODE_FAILED: 1, "score": -1000.0}
        reward = float(np.round(self._draw().normal(), 2))
        over = self._steps >= self._length and not self.settings.overrun
        info = {"score": float(self._length), "seed": float(self._seed)} | self._extra() if over else {}
        observation = self._observation()
        if self._steps == self._length and self._unlucky:
            wrong = np.nan if self.settings.wrong_value is None else self.settings.wrong_value
            match self.settings.wrong:
                case "obs":
                    observation["obs"][1, 2] = wrong
                case "state":
                    observation["state"][4] = wrong
                case "reward":
                    reward = wrong
                case "score":
                    info["score"] = wrong
        return observation, reward, over and self._terminates, over and not self._terminates, info

    def _extra(self):
        won = self._seed % 8 == 0
        match self.settings.info:
            case "wins":
                return {"battle_won": True} if won else {}
            case "outcome":
                return {"battle_won": won}
            case "clash":
                return CLASHING
        return {}

    def close(self):
        if self._game is not None:
            self._game.kill()
            self._game.wait()


class NamedTeamEnv(TeamEnv):
    """Says what its entries are."""

    entry_names = {"state": ["a", "b", "c", "d", "cooldown"]}  # noqa: RUF012 - an environment's plain attribute


class OwnProcess(TeamEnv):
    """Never lives in the trainer's process."""

    own_process = True


class SortedTeamEnv(TeamEnv):
    """Declares kinds of action."""

    action_classes = {"low": [0, 1], "top": [3]}  # noqa: RUF012 - an environment's plain attribute


class Waiting(SyncVectorEnv):
    """Copies that wait at their episode's end for the others, as worker processes do."""

    def step(self, actions):
        self._autoreset_envs[:] = False
        return super().step(actions)


def in_this_process(env_class, settings, n):
    """``n`` copies without worker processes."""
    return Waiting([EnvFactory(env_class, settings)] * n, autoreset_mode=AutoresetMode.DISABLED)


class VectorisedTeamEnv(TeamEnv):
    """Brings a vector environment of its own, as SMAX does."""

    @classmethod
    def make_vector(cls, settings, num_envs):
        return in_this_process(TeamEnv, settings, num_envs)


def first_available(observation):
    """For each agent its first action that it may choose."""
    return observation["avail_actions"].argmax(-1)


def finish(env, observation):
    """Play until all copies are over -> the last info of each."""
    n = env.num_envs
    last, over = [None] * n, np.zeros(n, dtype=bool)
    for _ in range(env.episode_limit):
        observation, _, terminated, truncated, infos = env.step(first_available(observation))
        for i in np.flatnonzero((terminated | truncated) & ~over):
            last[i] = {k: float(v[i]) for k, v in infos.items() if not k.startswith("_") and infos[f"_{k}"][i]}
        over |= terminated | truncated
        if over.all():
            return last
    raise AssertionError("an episode did not end")


def is_unlucky(seed):
    """Whether an episode of this seed is unlucky where half of them are."""
    env = TeamEnv(TeamEnvSettings(fault_share=0.5))
    env.reset(seed=seed)
    return env._unlucky
