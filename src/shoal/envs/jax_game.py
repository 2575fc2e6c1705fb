"""A game written in JAX, and the compiled functions that play many copies of it.

A game says how one copy starts, steps and is seen (``JaxGame``). What is the same for all of them is here: random keys,
time limits, ended copies that stay as they are, resets of some copies alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gymnasium import spaces

from shoal.envs.jax_cache import keep_compiled_programs


class JaxGame:
    """One copy of a game; all methods are pure functions of JAX arrays, which are compiled and vmapped.

    A state is any pytree of arrays. ``Game(settings)`` builds it; JAX need not be loaded before.
    """

    time_limit: int
    """Environment steps after which an episode is truncated. Steps are counted by ``CompiledGame``."""
    action_space: spaces.Space
    """Of the team: ``MultiDiscrete([A] * N)`` or ``Box(-1, 1, (N, d))``."""
    action_classes: Mapping[str, Sequence[int]] = {}
    """Kinds of action, for the shares of them that are recorded."""
    entry_names: Mapping[str, Sequence[str]] = {}
    """What the entries of ``obs`` and ``state`` are."""

    def reset(self, key: Any) -> Any:
        """The state at the start of the episode that ``key`` determines."""
        raise NotImplementedError

    def step(self, key: Any, state: Any, actions: Any) -> tuple[Any, Any, Any]:
        """``actions`` [N] or [N, d] -> the state after them, the team's reward [] and whether the task has ended []."""
        raise NotImplementedError

    def observe(self, state: Any) -> dict[str, Any]:
        """``obs`` [N, D] and, where there are such, ``state`` [S], ``avail_actions`` [N, A] and ``alive`` [N].

        Without ``state`` it is all observations in a row. Without ``avail_actions`` discrete actions are all available.
        """
        raise NotImplementedError

    def judged(self, state: Any) -> dict[str, Any]:
        """What an episode is judged by, numbers [] of its last state."""
        return {}


class CompiledGame:
    """The compiled functions of ``num_envs`` copies of a game, shared by all environments that play it.

    ``reset(carry, keys, mask) -> (carry, out)`` and ``step(carry, actions) -> (carry, out)`` consume (donate) the carry
    that they are given; ``blank()`` makes one whose copies all wait for their first reset. ``out`` is a dict of arrays
    with leading dimension num_envs: ``observation``, ``terminated``, ``truncated``, ``judged`` and, of a step,
    ``reward`` and ``just_ended``.
    """

    def __init__(self, game: JaxGame, num_envs: int) -> None:
        import jax
        import jax.numpy as jnp

        keep_compiled_programs()
        self.game = game
        one = _OneCopy(game)
        key_like = jax.ShapeDtypeStruct((num_envs, 2), jnp.uint32)
        carry_like = jax.eval_shape(jax.vmap(one.reset), key_like)
        self.shapes: dict[str, tuple[int, ...]] = {
            key: like.shape[1:] for key, like in jax.eval_shape(jax.vmap(one.out), carry_like)["observation"].items()
        }
        """Of each key of an observation, without the copies."""

        def blank() -> Any:
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), carry_like)

        def reset(carry: Any, keys: Any, mask: Any) -> tuple[Any, dict[str, Any]]:
            fresh = jax.vmap(one.reset)(keys)
            choose = jax.vmap(lambda m, new, old: jax.tree.map(lambda x, y: jnp.where(m, x, y), new, old))
            carry = choose(mask, fresh, carry)
            return carry, jax.vmap(one.out)(carry)

        def step(carry: Any, actions: Any) -> tuple[Any, dict[str, Any]]:
            ended_before = carry["terminated"] | carry["truncated"]
            carry, reward = jax.vmap(one.step)(carry, actions)
            out = jax.vmap(one.out)(carry)
            ended = (out["terminated"] | out["truncated"]) & ~ended_before
            return carry, {**out, "reward": reward, "just_ended": ended}

        self.blank: Callable[[], Any] = blank
        self.reset = jax.jit(reset, donate_argnums=0)
        self.step = jax.jit(step, donate_argnums=0)


class _OneCopy:
    """One copy's episode: its key, the game's state, the steps so far and how it ended."""

    def __init__(self, game: JaxGame) -> None:
        self._game = game

    def reset(self, key: Any) -> dict[str, Any]:
        import jax
        import jax.numpy as jnp

        episode_key, reset_key = jax.random.split(key)
        over = jnp.array(False)
        state = self._game.reset(reset_key)
        steps = jnp.array(0, jnp.int32)
        return _strong({"key": episode_key, "state": state, "steps": steps, "terminated": over, "truncated": over})

    def step(self, carry: dict[str, Any], actions: Any) -> tuple[dict[str, Any], Any]:
        """The carry after one step, and the team's reward []. One that has ended stays as it is and pays 0."""
        import jax
        import jax.numpy as jnp

        key, step_key = jax.random.split(carry["key"])
        state, reward, ended = self._game.step(step_key, carry["state"], actions)
        steps = carry["steps"] + 1
        truncated = (steps >= self._game.time_limit) & ~ended
        after = _strong({"key": key, "state": state, "steps": steps, "terminated": ended, "truncated": truncated})
        frozen = carry["terminated"] | carry["truncated"]
        kept = jax.tree.map(lambda old, new: jnp.where(frozen, old, new), carry, after)
        return kept, jnp.where(frozen, 0.0, reward)

    def out(self, carry: dict[str, Any]) -> dict[str, Any]:
        """What leaves the device: the observation in its own types, flags [] and what the episode is judged by []."""
        import jax.numpy as jnp

        seen = self._game.observe(carry["state"])
        observation = {"obs": seen["obs"].astype(jnp.float32)}
        observation["state"] = seen.get("state", observation["obs"].reshape(-1)).astype(jnp.float32)
        if isinstance(self._game.action_space, spaces.MultiDiscrete):
            everything = jnp.ones((len(self._game.action_space.nvec), self._game.action_space.nvec[0]))
            observation["avail_actions"] = seen.get("avail_actions", everything).astype(jnp.int8)
        if "alive" in seen:
            observation["alive"] = seen["alive"].astype(jnp.int8)
        flags = {key: carry[key] for key in ("terminated", "truncated")}
        return {"observation": observation, "judged": self._game.judged(carry["state"]), **flags}


def _strong(tree: Any) -> Any:
    """Without weak types, with which a game's first state would have its second step compiled again."""
    import jax

    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), tree)


@functools.cache
def compiled(make_game: Callable[[Any], JaxGame], settings: Any, num_envs: int) -> CompiledGame:
    """The compiled game for these (hashable) settings, made once a process.

    Raises:
        ValueError: fewer than one copy.
        UserError: as ``make_game``, where a package is missing.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs} must be at least 1.")
    return CompiledGame(make_game(settings), num_envs)
