"""Sacred's own options on Shoal's command line: checked before anything starts, so that a bad value is one sentence."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sacred.observers import RunObserver
from sacred.observers.s3_observer import s3_option
from sacred.observers.sql import sql_option
from sacred.observers.tinydb_hashfs.tinydb_hashfs import tiny_db_option

from shoal.declare import FileName
from shoal.recording.mongo_address import redact
from shoal.recording.provenance import git_commit
from shoal.utils.errors import UserError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
TAKEN_CARE_OF = ("--file_storage", "--mongo_db", "--tiny_db", "--sql", "--s3", "--enforce_clean")
"""Options whose part of a run Shoal sets up itself; sacred gets them as if they were not there."""

_OTHER_OBSERVERS: dict[str, Callable[[str, Any], None]] = {
    "--tiny_db": tiny_db_option.apply,
    "--sql": sql_option.apply,
    "--s3": s3_option.apply,
}


def check(args: Mapping[str, Any]) -> None:
    """Refuse values that an option cannot have.

    Args:
        args: the options as docopt has read them.

    Raises:
        UserError: naming the option.
    """
    for option, value in args.items():
        if option.startswith("--") and isinstance(value, str) and not value:
            raise UserError(f"{option} is empty: give it a value, or leave it out.")
    interval = _number(args, "--beat-interval")
    if interval is not None and not interval > 0:
        raise UserError(f"--beat-interval={args['--beat-interval']} is out of range: give seconds above 0.")
    _number(args, "--priority")
    capture = args["--capture"]
    if capture not in (None, "no", "sys", "fd"):
        raise UserError(f"--capture={capture} does not exist: choose from no, sys, fd.")
    level = args["--loglevel"]
    if level is not None and level not in LEVELS and not (level.isascii() and level.isdigit() and int(level) <= 50):
        raise UserError(
            f"--loglevel={level} does not exist: choose from {', '.join(LEVELS)}, or a number from 0 to 50."
        )
    if args["--id"] is not None:
        try:
            FileName().read(args["--id"])
        except ValueError as error:
            raise UserError(f"--id={args['--id']} {error} (the run's folder is called so).") from None
    if args["--enforce_clean"]:
        _enforce_clean()


def _number(args: Mapping[str, Any], option: str) -> float | None:
    text = args[option]
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{option}={text} is no number.")
    return number


def _enforce_clean() -> None:
    git = git_commit(Path(__file__).parent)
    if git is None:
        raise UserError("--enforce_clean: Shoal does not run from a git checkout, so it cannot be checked.")
    if git["dirty"]:
        raise UserError(
            "--enforce_clean: files of Shoal differ from the last commit; commit or stash them (git status)."
        )


def other_observers(args: Mapping[str, Any]) -> list[RunObserver]:
    """The recorders that sacred brings besides files and MongoDB, as the options ask for them.

    Raises:
        UserError: one lacks a package, or cannot record where it shall.
    """
    run = SimpleNamespace(observers=[])
    for option, add in _OTHER_OBSERVERS.items():
        value = args[option]
        if value is None:
            continue
        shown = redact(value)
        try:
            add(value, run)
            if option == "--sql":
                run.observers[-1].engine.connect().close()
        except ImportError as error:
            raise UserError(
                f"{option}={shown} needs a package that is not installed ({error}): install it with pip."
            ) from None
        except Exception as error:  # whatever the recorder's own library raises
            reason = str(error).strip().partition("\n")[0].replace(value, shown)
            raise UserError(f"{option}={shown} cannot record runs: {reason}") from None
    observers: list[RunObserver] = run.observers
    return observers
