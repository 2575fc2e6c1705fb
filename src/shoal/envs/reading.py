"""What a foreign environment hands over, read in one way: checked, or refused in a sentence.

Everything here raises `UserError` for what it cannot read. `where` begins the sentence: whose environment it is.
"""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim

from shoal.utils.errors import UserError

READABLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""The spaces whose values become numbers of a fixed count; Dict and Tuple may hold them."""

_NUMERIC = "biuf"


def takes(function: Any, name: str) -> bool:
    """Whether a function accepts the keyword argument `name`."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def shown(value: Any) -> str:
    """A value in a sentence: shortened, arrays by their shape."""
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"an array of shape {value.shape}"
    text = reprlib.repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return f"{type(value).__name__} {text}" if isinstance(value, Mapping) else text


def returned(result: Any, names: Sequence[str], where: str, method: str) -> tuple[Any, ...]:
    """What `reset` or `step` returned, as many values as there are `names`."""
    if isinstance(result, tuple | list) and len(result) == len(names):
        return tuple(result)
    got = f"{len(result)} values" if isinstance(result, tuple | list) else f"one {type(result).__name__}"
    raise UserError(
        f"{where}: {method} returned {'None' if result is None else got}, but it must return ({', '.join(names)})."
    )


def check_space(space: Any, where: str) -> None:
    """Refuse an observation space whose values have no fixed count of numbers."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in space.values() if isinstance(space, spaces.Dict) else space:
            check_space(part, where)
    elif not isinstance(space, READABLE):
        kind = type(space)
        name = kind.__name__ if isinstance(space, spaces.Space) else f"{kind.__module__}.{kind.__name__}"
        raise UserError(
            f"{where} has observations of the space {name}, which is no vector: it must be a gymnasium Box, Discrete, "
            "MultiDiscrete or MultiBinary, or a Dict or Tuple of them."
        )


def read_view(space: spaces.Space, value: Any, whose: str) -> np.ndarray:
    """A value of `space` -> float32 [flatdim(space)], as gymnasium's `flatten` orders it.

    The shape must be the space's; dimensions of 1 and flat vectors are let through. A discrete value must lie in its
    space; the bounds of a Box are not checked, since many environments overstep them harmlessly.

    Args:
        space: one that `check_space` lets through.
        value: what the environment says.
        whose: begins the sentence: "env_args.key='x': the observation of agent 'a'".
    """
    out = np.empty(flatdim(space), dtype=np.float32)
    _fill(out, space, value, whose)
    return out


def _fill(out: np.ndarray, space: spaces.Space, value: Any, whose: str) -> None:
    """`read_view` into `out`."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        at = 0
        for part, (name, inner) in zip(_parts(space, value, whose), _named(space), strict=True):
            size = flatdim(inner)
            _fill(out[at : at + size], inner, part, f"{whose}[{name!r}]")
            at += size
        return
    numbers = numbers_in(value)
    if numbers is None:
        raise UserError(f"{whose} is {shown(value)}, which is no array of numbers; its space is {space}.")
    if isinstance(space, spaces.Discrete):
        number = _same_shape(numbers, (), space, whose).reshape(())
        slot = int(number) - int(space.start) if number == np.floor(number) else -1
        if not 0 <= slot < int(space.n):
            raise UserError(f"{whose} is {shown(number)}, which does not lie in its space {space}.")
        out[:] = 0
        out[slot] = 1
    elif isinstance(space, spaces.MultiDiscrete):
        slots = _same_shape(numbers, space.shape, space, whose).reshape(-1) - space.start.reshape(-1)
        counts = space.nvec.reshape(-1)
        if not ((slots >= 0) & (slots < counts) & (slots == np.floor(slots))).all():
            raise UserError(f"{whose} is {shown(numbers)}, which does not lie in its space {space}.")
        out[:] = 0
        out[np.concatenate([[0], np.cumsum(counts)[:-1]]) + slots.astype(np.int64)] = 1
    else:
        numbers = _same_shape(numbers, space.shape, space, whose)
        if isinstance(space, spaces.MultiBinary) and not ((numbers == 0) | (numbers == 1)).all():
            raise UserError(f"{whose} is {shown(numbers)}, which does not lie in its space {space}.")
        with np.errstate(over="ignore"):  # too large for float32 is infinite, which the runner looks for
            out[:] = numbers.reshape(-1)


def _named(space: spaces.Dict | spaces.Tuple) -> Iterable[tuple[Any, spaces.Space]]:
    return space.items() if isinstance(space, spaces.Dict) else enumerate(space)


def _parts(space: spaces.Dict | spaces.Tuple, value: Any, whose: str) -> list[Any]:
    """The parts of a composed value, in the space's order."""
    if isinstance(space, spaces.Dict):
        if isinstance(value, Mapping) and set(value) == set(space):
            return [value[key] for key in space]
        got = f"the keys {sorted(map(str, value))}" if isinstance(value, Mapping) else shown(value)
        raise UserError(f"{whose} has {got}, but its space has the keys {sorted(map(str, space))}.")
    if isinstance(value, tuple | list | np.ndarray) and len(value) == len(space):
        return list(value)
    raise UserError(f"{whose} is {shown(value)}, but its space is a Tuple of {len(space)} parts.")


def numbers_in(value: Any) -> np.ndarray | None:
    """A numeric array, or None for what is no such thing (None, text, complex or ragged values)."""
    if isinstance(value, Mapping | str | bytes):
        return None
    try:
        numbers = np.asarray(value)
    except Exception:  # whatever a foreign object raises here, it is no array
        return None
    return numbers if numbers.dtype.kind in _NUMERIC else None


def number_in(value: Any) -> float | int | None:
    """One number, plain or as an array or tensor of any library of shape `()`, booleans as 0 or 1; else None."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in _NUMERIC:
        return None  # `item` of a duration would be an integer
    if not isinstance(value, int | float):
        if getattr(value, "shape", None) != ():
            return None
        try:
            value = value.item()
        except Exception:  # whatever a foreign object raises here, it is no number
            return None
    try:
        if isinstance(value, int):
            return int(value) if math.isfinite(value) else None
        return float(value) if isinstance(value, float | np.floating) else None
    except OverflowError:  # an integer too large to be averaged
        return None


def _same_shape(numbers: np.ndarray, shape: tuple[int, ...] | None, space: spaces.Space, whose: str) -> np.ndarray:
    wanted = tuple(shape or ())
    if numbers.shape != wanted:
        squeezed, due = ([d for d in s if d != 1] for s in (numbers.shape, wanted))
        flat = min(len(squeezed), len(due)) <= 1 and numbers.size == int(np.prod(wanted))
        if squeezed != due and not flat:
            raise UserError(f"{whose} has the shape {numbers.shape}, but its space is {space}.")
    return numbers


NO_ACTION = "has no available action: offer at least one at every step, such as one that does nothing for the dead."


def read_mask(mask: Any, size: int, where: str, agent: Any, needed: bool = True) -> np.ndarray:
    """Which of `size` actions an agent may take -> bool [size].

    Args:
        mask: numbers or booleans; what is above 0 is available.
        size: how many actions the agent has.
        where: begins the sentence.
        agent: what the environment calls the agent.
        needed: refuse a mask without a single action.
    """
    numbers = numbers_in(mask)
    if numbers is None or numbers.size != size or not (numbers >= 0).all():
        raise UserError(
            f"{where}: the available actions of agent {agent!r} are {shown(mask)}, but must be {size} times 0 or 1."
        )
    available: np.ndarray = numbers.reshape(-1) > 0
    if needed and not available.any():
        raise UserError(f"{where}: agent {agent!r} {NO_ACTION}")
    return available


def per_agent(values: Any, n_agents: int, whose: str) -> list[Any]:
    """One value per agent, from a sequence."""
    try:
        parts = None if isinstance(values, Mapping | str | bytes) else list(values)
    except TypeError:  # no sequence
        parts = None
    if parts is not None and len(parts) == n_agents:
        return parts
    got = shown(values) if parts is None else f"a list of {len(parts)}"
    raise UserError(f"{whose} must be a list with one entry for each of the {n_agents} agents, not {got}.")


def _or_each(n_agents: int) -> str:
    return f", or one for each of the {n_agents} agents" if n_agents > 1 else ""


def read_reward(rewards: Any, n_agents: int, how: Literal["sum", "mean"], where: str) -> float:
    """The team's reward, from a number, one number per agent (`[N]`, `[N, 1]`), or a mapping from agents to numbers."""
    if isinstance(rewards, int | float):
        return float(rewards)
    values = numbers_in(list(rewards.values()) if isinstance(rewards, Mapping) else rewards)
    fits = values is not None and (values.size == n_agents or (values.size == 1 and not isinstance(rewards, Mapping)))
    if values is None or not fits:
        raise UserError(f"{where}: the reward is {shown(rewards)}, but it must be one number{_or_each(n_agents)}.")
    values = values.astype(np.float64)
    return float(values.sum() if how == "sum" else values.mean())


def read_flags(flags: Any, n_agents: int, name: str, where: str) -> np.ndarray:
    """Who has come to an end -> bool [N], from one boolean, one per agent, or a mapping from agents to booleans.

    In a mapping, `"__all__"` speaks for all if it is there.
    """
    if isinstance(flags, bool):
        return np.full(n_agents, flags)
    parts, one_will_do = flags, True
    if isinstance(flags, Mapping):
        one_will_do = "__all__" in flags
        parts = flags["__all__"] if one_will_do else [flags[agent] for agent in sorted(flags, key=str)]
    values = numbers_in(parts)
    fits = values is not None and (values.size == n_agents or (values.size == 1 and one_will_do))
    if values is None or not fits or not ((values == 0) | (values == 1)).all():
        raise UserError(f"{where}: {name} is {shown(flags)}, but it must be True or False{_or_each(n_agents)}.")
    return np.broadcast_to(values.astype(bool).reshape(-1), (n_agents,))


def read_info(info: Any, where: str, method: str) -> dict[Any, Any]:
    """The team's info; an empty one where there is None, or where every agent has an info of its own in a list."""
    if isinstance(info, Mapping):
        return dict(info)
    if info is None or (isinstance(info, tuple | list) and all(isinstance(part, Mapping) for part in info)):
        return {}
    raise UserError(f"{where}: the info that {method} returned is {shown(info)}, but it must be a dictionary.")
