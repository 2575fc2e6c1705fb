"""Why a checkpoint does not fit a run, and networks not into memory: sentences that name settings."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from shoal import registry
from shoal.components.spec import TeamSpec
from shoal.config.settings import RunSettings
from shoal.declare import Role
from shoal.utils.dotted import flatten
from shoal.utils.errors import shown

NETWORKS = ("agent", "mixer", "mac", "critic", "central_mac", "central_agent", "central_mixer")
"""Kinds of component whose settings size networks."""
SIZING = (Role.METHOD, Role.TASK)
"""Roles of the settings on which it depends whether a checkpoint fits."""
SIZES_OF_NETWORKS = ("n_agents", "n_actions", "obs_dim", "state_dim", "discrete")
"""Of an environment: what a resumed run must keep."""
MOST_NAMED = 8
"""Differing settings that a sentence names."""
_WEIGHTLESS = 4
"""Of a setting that no network depends on."""


def difference(content: Mapping[str, Any], run: RunSettings, spec: TeamSpec) -> str:
    """In what a checkpoint's run was another one than this, what decides about its networks first."""
    theirs, ours = flatten(content.get("config", {})), flatten(run.values)
    declared = run.declared
    keys = [k for k in ours if k in theirs and theirs[k] != ours[k] and declared[k].role in SIZING]
    keys.sort(key=lambda key: _weight(key, run))
    if keys and _weight(keys[0], run) < _WEIGHTLESS:
        keys = [k for k in keys if _weight(k, run) < _WEIGHTLESS]
    settings = ", ".join(f"{k}={_said(theirs[k])} (now {_said(ours[k])})" for k in keys[:MOST_NAMED])
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    causes = (other_sizes(content, spec), f"it was made with {settings}{more}" if keys else "")
    return "; ".join(filter(None, causes)) or "it holds other networks than the settings describe"


def _weight(key: str, run: RunSettings) -> int:
    """How far down a setting stands among the causes of a mismatch."""
    reader = run.declared[key].reader.partition("=")[0]
    if key in registry.COMPONENTS:
        return 0
    return 1 if reader in NETWORKS else {"learner": 2, "env": 3}.get(reader, _WEIGHTLESS)


def other_sizes(content: Mapping[str, Any], spec: TeamSpec, looked_at: Collection[str] = ()) -> str:
    """The environment's sizes that a checkpoint has otherwise; empty where none, or where it does not know them."""
    theirs, ours = content.get("spec"), asdict(spec)
    if not isinstance(theirs, Mapping):
        return ""
    sizes = [
        f"{key} {theirs[key]} in the checkpoint, {ours[key]} here"
        for key in looked_at or ours.keys() - {"action_classes"}
        if key in theirs and theirs[key] != ours[key]
    ]
    return f"the environment's sizes differ ({'; '.join(sizes)})" if sizes else ""


def largest_widths(run: RunSettings) -> str:
    """The largest numbers that networks are built from, as settings."""
    sizes = {
        key: run.values[key]
        for key, row in run.declared.items()
        if row.reader.partition("=")[0] in NETWORKS and type(run.values.get(key)) is int
    }
    largest = sorted(sizes, key=lambda key: -sizes[key])[:2]
    return " or ".join(f"{key}={sizes[key]}" for key in largest)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether something was too large: torch has a type of its own for that on GPUs alone."""
    words = ("allocate memory", "out of memory", "Storage size calculation overflowed", "negative dimension")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _said(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)
