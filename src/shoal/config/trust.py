"""Which code a checkpoint may name. Its settings can hold import paths, and importing one runs whatever is there.

A checkpoint that names code outside Shoal carries a signature made with a key that never leaves the user's account.
Resuming it under the same account needs no question; for anybody else's file, ``--trust`` is the answer.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from shoal import registry
from shoal.utils.errors import UserError

OUR_CALLBACKS = ("shoal.callbacks:CSV", "shoal.callbacks:Wandb")
"""Callbacks that ship: no code from outside, though an import path names them."""
SIGNATURE = "signature"
"""Where a checkpoint keeps the signature of its settings."""


def imports_of(values: Mapping[str, Any], skip: Collection[str] = ()) -> dict[str, str]:
    """Import paths of code outside Shoal among a run's settings, by dotted setting name: ``{"mixer": "my:Mixer"}``.

    Callbacks count. An adapter of other people's environments says which of its settings name code (``outside_code``).
    Kinds of component in ``skip`` are left out.
    """
    kinds = [kind for kind in registry.COMPONENTS if kind not in skip]
    found = {kind: str(values[kind]) for kind in kinds if ":" in str(values.get(kind))}
    suite, env_args = str(values.get("env")), values.get("env_args")
    if "env" in kinds and suite in registry.COMPONENTS["env"] and isinstance(env_args, Mapping):
        outside = _outside_code(suite)(env_args)
        found |= {f"env_args.{key}": path for key, path in outside.items()}
    if "callbacks" not in skip:
        named = values.get("callbacks") or []
        listed = named if isinstance(named, list | tuple) else [named]  # text that would be read as a list counts whole
        strange = [str(path) for path in listed if path not in OUR_CALLBACKS]
        found |= {"callbacks": ", ".join(strange)} if strange else {}
    return found


def _outside_code(suite: str) -> Callable[[Mapping[str, Any]], dict[str, str]]:
    return getattr(registry.find("env", suite), "outside_code", lambda env_args: {})


def sign(values: Mapping[str, Any]) -> str:
    """The signature of a run's settings; empty where they name no code outside Shoal, or no key can be kept."""
    if not imports_of(values):
        return ""
    key = _key(make=True)
    return _signed(values, key) if key else ""


def check(
    content: Mapping[str, Any], file: Path, trusted: bool, given: Collection[str] = (), skip: Collection[str] = ()
) -> None:
    """Refuse a checkpoint that names code, unless this account wrote it or the user vouches for it.

    Args:
        content: the checkpoint.
        file: where it was read.
        trusted: whether the user said ``--trust``.
        given: dotted names of settings that the user gave anew, and so vouches for.
        skip: kinds of component that will not be looked up.

    Raises:
        UserError: naming each import path.
    """
    values = content.get("config")
    if trusted or not isinstance(values, Mapping):
        return
    named = {key: path for key, path in imports_of(values, skip).items() if key not in given}
    if not named or _is_ours(values, content.get(SIGNATURE)):
        return
    raise UserError(
        f"{file} names code that is not Shoal's: {', '.join(f'{key}={path}' for key, path in named.items())}. "
        "Importing it runs it. If you trust whoever wrote this file, add --trust."
    )


def _is_ours(values: Mapping[str, Any], signature: Any) -> bool:
    key = _key(make=False)
    return bool(key) and isinstance(signature, str) and hmac.compare_digest(_signed(values, key), signature)


def _signed(values: Mapping[str, Any], key: bytes) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes:
    """This account's key; empty where there is none and none can be kept."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        path = Path(state) / "shoal" / "key"
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written apart and linked, so that two first runs agree on one key.
            mine = path.with_name(f"key.{os.getpid()}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(secrets.token_bytes(32))
            try:
                os.link(mine, path)
            except FileExistsError:
                pass
            finally:
                mine.unlink()
        return path.read_bytes()
    except (OSError, RuntimeError):  # no such folder, no home, a read-only one
        return b""
