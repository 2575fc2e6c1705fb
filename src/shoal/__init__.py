"""Shoal trains teams of cooperating agents (multi-agent reinforcement learning) in the PyMARL style.

import shoal

run = shoal.make("qmix", "smax", map_name="3m", lr=5e-4, seed=1)
run.train()
team = shoal.load_team("team.pt")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.api import Run as Run
    from shoal.api import make as make
    from shoal.api import resume as resume
    from shoal.deployment import load as load_team
    from shoal.utils.errors import UserError as UserError

__version__ = "0.1.0"
__all__ = ["Run", "UserError", "__version__", "load_team", "make", "resume"]

_WHERE = {
    "Run": ("shoal.api", "Run"),
    "make": ("shoal.api", "make"),
    "resume": ("shoal.api", "resume"),
    "load_team": ("shoal.deployment", "load"),
    "UserError": ("shoal.utils.errors", "UserError"),
}


def __getattr__(name: str) -> Any:
    """Public names bring torch along when they are used, not when Shoal is imported."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
