"""Any PettingZoo parallel environment, by the module that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from shoal.declare import Role
from shoal.envs.parallel import ParallelEnv, ParallelSettings
from shoal.envs.team import import_named
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class PettingZooSettings(ParallelSettings):
    """Settings of a PettingZoo parallel environment."""

    key: Annotated[str, "module that has a parallel_env function: 'pettingzoo.sisl.multiwalker_v9'", Role.TASK] = (
        "pettingzoo.sisl.multiwalker_v9"
    )
    end_on: Annotated[Literal["all", "any"], "end the episode when all agents have left, or when any has"] = "all"
    rebuild: Annotated[bool, "build a new environment for every episode, so that episodes are independent"] = True


class PettingZooEnv(ParallelEnv):
    """Any PettingZoo parallel environment (MPE, SISL, ...), by its module: how it is played, `ParallelEnv` says.

    Args:
        settings: which environment, and how.
        env: a parallel environment already built, played instead of `settings.key` (and never rebuilt).

    Raises:
        UserError: a missing package, no `parallel_env`, refused arguments, and what `ParallelEnv` refuses.
    """

    Settings = PettingZooSettings

    @staticmethod
    def outside_code(env_args: Mapping[str, Any]) -> dict[str, str]:
        """Settings that name code to import, but for PettingZoo's own modules."""
        key = str(env_args.get("key") or "")
        return {"key": key} if key and key.partition(".")[0] != "pettingzoo" else {}

    def __init__(self, settings: PettingZooSettings, env: Any = None) -> None:
        self._key, self._kwargs = settings.key, settings.kwargs
        where = f"env_args.key={settings.key!r}"
        super().__init__(settings, where, env, settings.end_on, settings.rebuild)

    def _build(self, draw: bool = False) -> Any:
        key, kwargs = self._key, self._kwargs
        module = import_named(key, key)
        if not hasattr(module, "parallel_env"):
            raise UserError(f"{self._where} has no parallel_env: only parallel environments are played.")
        drawing = {"render_mode": "rgb_array"} if draw and "render_mode" not in kwargs else {}
        try:
            return module.parallel_env(**kwargs, **drawing)
        except (TypeError, ImportError) as error:
            if drawing:
                return self._build()
            raise UserError(f"{self._where} could not be built: {error}.") from error
