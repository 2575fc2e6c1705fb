"""What a setting's declaration may say besides its type and help: which values are possible, and what it is for.

    width: Annotated[int, "width of the hidden layer", Range(1)] = 64
    name: Annotated[str, "name of the run", FileName(), Role.NAME] = "run"

``RunSettings`` refuses the impossible values of a whole run; ``Checked`` refuses them where a program builds a
component's settings itself.
"""

import dataclasses
import difflib
import enum
import functools
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from shoal.utils.errors import UserError, shown


class OutOfRangeError(UserError, ValueError):
    """A setting has an impossible value."""


class Role(enum.Enum):
    """What a setting is for. Which settings tell two methods or two runs apart, and which networks fit, follows.

    Two runs of one method on one task differ in nothing but settings of other roles than METHOD.
    """

    METHOD = "what is learnt, from what and how"
    """The role of a setting that names none."""
    TASK = "which task of its suite is played"
    """Methods are compared on one task; the sizes of networks depend on it."""
    LENGTH = "how long is trained"
    """Part of the method where a schedule is a fraction of it."""
    SEED = "what is random"
    NAME = "what the run is called"
    START = "what this start begins with or only does"
    """A run that continues with another one does not take these over."""
    MEASURE = "what is measured, and how often"
    """Training is the same without it, but its record holds other points."""
    RECORD = "where and how often the run is stored"
    """The same run, stored elsewhere."""
    HARDWARE = "on what the run is computed"
    """Processes, threads, devices and the time that they are given."""


class Check:
    """A restriction of a setting's values, written into its ``Annotated`` after the help."""

    def read(self, value: Any) -> Any:
        """``value`` as the component shall have it.

        Raises:
            ValueError: it is impossible; the message continues after "KEY=VALUE ".
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Range(Check):
    """Finite numbers from ``least`` to ``most``, or ``above`` and ``below`` where the end itself is impossible.

    Of a list, every entry. Null passes.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return (
            (isinstance(number, int) or math.isfinite(number))
            and (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"from {self.least} to {self.most}"
        words = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        said = [f"{word} {end}" for word, end in words.items() if end is not None]
        return {"at least 0": "0 or more", "above 0": "positive"}.get(" and ".join(said), " and ".join(said))

    def read(self, value: Any) -> Any:
        numbers = value if isinstance(value, list | tuple) else [value]
        wrong = [n for n in numbers if isinstance(n, int | float) and n not in self]
        if wrong:
            each = " (each number)" if numbers is value else ""
            raise ValueError(f"is out of range: it must be {self}{each}")
        return value


@dataclasses.dataclass(frozen=True)
class OneOf(Check):
    """A choice; a number may stand for its digits. ``Literal`` types have this check without being marked."""

    choices: tuple[Any, ...]

    def read(self, value: Any) -> Any:
        if value in self.choices or str(value) in self.choices:
            return value
        names = [str(choice) for choice in self.choices]
        nearest = difflib.get_close_matches(str(value), names, n=1, cutoff=0.4)
        hint = f"does not exist: did you mean {nearest[0]!r}? It " if nearest else ""
        raise ValueError(f"{hint}must be one of {', '.join(names)}")


@dataclasses.dataclass(frozen=True)
class FileName(Check):
    """Text that is part of names of files and folders, and so must not lead elsewhere."""

    longest: int = 100
    """In bytes: names of folders and files are made of it, and the longest that file systems take is 255."""

    def read(self, value: Any) -> Any:
        if not value or value != value.strip() or value.startswith("."):
            raise ValueError("cannot name files: it must not be empty, begin with a dot or have spaces around it")
        odd = sorted({character for character in value if character == "/" or not character.isprintable()})
        if odd:
            raise ValueError(f"cannot name files: take {', '.join(map(repr, odd))} out")
        if len(value.encode()) > self.longest:
            raise ValueError(f"is too long to name files: use at most {self.longest} bytes")
        return value


@dataclasses.dataclass(frozen=True)
class PathText(Check):
    """A path, in which ``~`` is the user's home."""

    needed: bool = False
    """Whether it must not be empty."""

    def read(self, value: Any) -> Any:
        require_writable(value)
        if self.needed and not value:
            raise ValueError("is no path: name a folder ('.' is this one)")
        try:
            return str(Path(value).expanduser()) if value else value
        except RuntimeError as error:  # ~somebody who has no account
            raise ValueError(f"cannot be found: {error}") from error


def require_writable(value: Any) -> None:
    """Refuse text, in lists and mappings too, that no record and no path can hold.

    Raises:
        ValueError: the message continues after "KEY=VALUE ".
    """
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("holds a NUL character: take it out")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("is not valid UTF-8: write it in UTF-8") from None
    elif isinstance(value, Mapping):
        for entry in (*value.keys(), *value.values()):
            require_writable(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            require_writable(entry)


@functools.cache
def checks_of(settings_class: Any) -> dict[str, tuple[Check, ...]]:
    """The checks of each field of a ``Settings`` dataclass."""
    found = {}
    for name, (kind, *marks) in _declared(settings_class).items():
        choices = tuple(choice for part in _options(kind) for choice in typing.get_args(part))
        found[name] = (*([OneOf(choices)] if choices else []), *(mark for mark in marks if isinstance(mark, Check)))
    return found


def roles_of(settings_class: Any) -> dict[str, Role]:
    """What each field of a ``Settings`` dataclass is for."""
    return {
        name: next((mark for mark in marks if isinstance(mark, Role)), Role.METHOD)
        for name, (_, *marks) in _declared(settings_class).items()
    }


def help_of(settings_class: Any) -> dict[str, str]:
    """The help of each field of a ``Settings`` dataclass; empty where it has none."""
    return {
        name: next((mark for mark in marks if isinstance(mark, str)), "")
        for name, (_, *marks) in _declared(settings_class).items()
    }


def _declared(settings_class: Any) -> dict[str, tuple[Any, ...]]:
    """The type of each field and what stands behind it."""
    hints = typing.get_type_hints(settings_class, include_extras=True)
    return {
        name: typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,) for name, hint in hints.items()
    }


def _options(kind: Any) -> list[Any]:
    """The ``Literal`` types among those that a field may have."""
    options = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    return [option for option in options if typing.get_origin(option) is typing.Literal]


def checked(checks: tuple[Check, ...], value: Any, path: str, help_text: str = "") -> Any:
    """``value`` of the setting ``path``, after its checks.

    Raises:
        OutOfRangeError: it is impossible.
    """
    try:
        for check in checks if value is not None else ():
            value = check.read(value)
    except ValueError as error:
        meaning = f" ({help_text})" if help_text else ""
        raise OutOfRangeError(f"{path}={shown(value)} {error}{meaning}.") from None
    return value


class Checked:
    """Base of ``Settings`` dataclasses that refuse impossible values also where a program builds them."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            OutOfRangeError: naming the first that is impossible.
        """
        own: Any = type(self)
        help_texts = help_of(own)
        for name, checks in checks_of(own).items():
            checked(checks, getattr(self, name), name, help_texts[name])
