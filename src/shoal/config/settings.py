"""Turns raw settings into the checked settings of every component that a run uses.

Components declare what they read in a ``Settings`` dataclass; YAML files and the command line only override.
Starting from the experiment's own settings, each setting whose name is a kind of component (``learner``, ``mixer``,
``env``, ...) brings that component's settings in. What nobody declared is an error.
"""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from shoal import registry
from shoal.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Declared:
    """One setting as its component declares it."""

    key: str
    type: Any
    default: Any
    help: str
    reader: str


def declared_by(settings_class: type[Any], reader: str) -> list[Declared]:
    """The settings of one ``Settings`` dataclass, in order."""
    hints = typing.get_type_hints(settings_class, include_extras=True)
    rows = []
    for field in dataclasses.fields(settings_class):
        annotation, text = hints[field.name], ""
        if typing.get_origin(annotation) is Annotated:
            annotation, text = typing.get_args(annotation)[:2]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        rows.append(Declared(field.name, annotation, default, text, reader))
    return rows


def type_name(annotation: Any) -> str:
    """The type as a user would say it."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if a is type(None) else type_name(a) for a in args)
    if origin is list:
        return f"list of {type_name(args[0])}" if args else "list"
    if origin is dict:
        return "mapping"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "value"}
    return names.get(annotation, str(annotation))


def convert(value: Any, annotation: Any) -> Any:
    """``value`` as the declared type.

    Whole floats pass as int (``t_max=1e6``), ints and texts such as YAML's ``5e-4`` as float.

    Raises:
        TypeError: the value is of another type.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin is Literal:
        if value in args:
            return value
        raise TypeError
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and (value is None or value in ("null", "none")):
            return None
        for option in args:
            with contextlib.suppress(TypeError):
                return convert(value, option)
        raise TypeError
    if origin is list or annotation is list:
        if not isinstance(value, list | tuple):
            raise TypeError
        return [convert(item, args[0]) if args else item for item in value]
    if origin is dict or annotation is dict:
        if not isinstance(value, Mapping):
            raise TypeError
        return dict(value)
    if annotation is bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
        raise TypeError
    if isinstance(value, bool):
        raise TypeError
    if annotation is int:
        if isinstance(value, str) and "e" in value:  # YAML reads 1e6 as text
            value = convert(value, float)
        if isinstance(value, int):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise TypeError
    if annotation is float:
        if not isinstance(value, int | float | str):
            raise TypeError
        try:
            number = float(value)
        except ValueError:
            raise TypeError from None
        if math.isnan(number):  # no comparison refuses it
            raise TypeError
        return number
    if annotation is str and isinstance(value, str):
        return value
    raise TypeError


class RunSettings:
    """Every setting of one run, checked, and the components it names.

    ``values`` is the flat mapping (with ``env_args`` nested); ``declared`` says who reads each key and its help;
    ``sources`` says where each one that is not at its default comes from. Kinds of component in ``skip`` are not looked
    up, and their settings, checked when the run began, are left alone.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        experiment_settings: type[Any],
        sources: Mapping[str, str] | None = None,
        skip: Collection[str] = (),
    ) -> None:
        self.sources = sources or {}
        self.values: dict[str, Any] = {"env_args": {}}
        self.declared: dict[str, Declared] = {}
        self.components: dict[str, type[Any]] = {}
        self._settings: dict[type[Any], Any] = {}
        unread = {key: value for key, value in raw.items() if key != "env_args"}
        unread_env = raw.get("env_args") or {}
        if not isinstance(unread_env, Mapping):
            raise UserError(f"env_args must be a mapping (env_args.map_name=...), not {unread_env!r}.")
        unread_env = dict(unread_env)

        queue: list[tuple[str, type[Any], str]] = [("", experiment_settings, "experiment")]
        while queue:
            section, settings_class, reader = queue.pop(0)
            source = unread_env if section else unread
            target = self.values["env_args"] if section else self.values
            fields = {}
            for row in declared_by(settings_class, reader):
                path = section + row.key
                value = self._take(row, path, source, target)
                fields[row.key] = target[row.key] = value
                self.declared[path] = row
                if not section and row.key in registry.COMPONENTS and row.key not in skip and value is not None:
                    component = registry.find(row.key, value)
                    self.components[row.key] = component
                    queue.append(("env_args." if row.key == "env" else "", component.Settings, f"{row.key}={value}"))
            try:
                self._settings[settings_class] = settings_class(**fields)
            except ValueError as error:  # how networks, which know nothing of the command line, refuse a value
                raise UserError(str(error)) from error
        if not skip:
            self._refuse(unread, "")
            self._refuse(unread_env, "env_args.")

    def of(self, settings_class: type[Any]) -> Any:
        """The settings of one component of this run, as an instance of its ``Settings``."""
        return self._settings[settings_class]

    def make(self, kind: str, **parts: Any) -> Any:
        """Build the component that the setting ``kind`` names, from its own settings and ``parts``."""
        component = self.components[kind]
        return component(self.of(component.Settings), **parts)

    def _take(self, row: Declared, path: str, source: dict[str, Any], target: dict[str, Any]) -> Any:
        if row.key in target and row.key not in source:
            return target[row.key]  # declared by two components, already read by the first
        if row.key not in source:
            if row.default is dataclasses.MISSING:
                raise UserError(f"The setting '{path}' ({row.help}) has no value: give it in a YAML or as {path}=...")
            return row.default
        value = source.pop(row.key)
        try:
            return convert(value, row.type)
        except TypeError:
            raise UserError(
                f"{path}={value!r} has the wrong type: {row.reader} wants {type_name(row.type)} ({row.help})."
            ) from None

    def _refuse(self, unread: Mapping[str, Any], section: str) -> None:
        for key in unread:
            known = [path.removeprefix(section) for path in self.declared if path.startswith(section)]
            if not section:
                known = [path for path in known if "." not in path] + ["env_args"]
            readers = sorted(_readers_elsewhere(key)) if not section else []
            source = self.sources.get(section + key)
            what = f"Unknown setting '{section}{key}'" + (f" ({source})" if source else "")
            if section and source and source.startswith("algs/"):
                raise UserError(f"{what}: env={self.values['env']} has none, so this algorithm is not for it.")
            if readers:
                raise UserError(f"{what}: nothing in this run reads it, only {', '.join(readers)} would. Remove it.")
            raise UserError(
                f"{what}: did you mean {registry.nearest(key, known)}? (print_config shows every setting of this run.)"
            )


def _readers_elsewhere(key: str) -> set[str]:
    """Registered components, used by this run or not, that declare ``key``."""
    found = set()
    for kind, names in registry.COMPONENTS.items():
        for name in names:
            if kind == "env":
                continue
            if any(row.key == key for row in declared_by(registry.find(kind, name).Settings, "")):
                found.add(f"{kind}={name}")
    return found
