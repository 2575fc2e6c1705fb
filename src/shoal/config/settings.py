"""Turns raw settings into the checked settings of every component that a run uses.

Components declare what they read in a ``Settings`` dataclass; YAML files and the command line only override.
Starting from the experiment's own settings, each setting whose name is a kind of component (``learner``, ``mixer``,
``env``, ...) brings that component's settings in. An undeclared setting is an error.
"""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import yaml

from shoal import registry
from shoal.config import files, old_names
from shoal.declare import Check, Role, checked, checks_of, help_of, require_writable, roles_of
from shoal.utils.dotted import flatten
from shoal.utils.errors import LONGEST_SHOWN, UserError, shown

LARGEST_INT = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Declared:
    """One setting as its component declares it."""

    key: str
    type: Any
    default: Any
    help: str
    reader: str
    checks: tuple[Check, ...] = ()
    role: Role = Role.METHOD


def declared_by(settings_class: type[Any], reader: str) -> list[Declared]:
    """The settings of one ``Settings`` dataclass, in order."""
    types_of = typing.get_type_hints(settings_class)
    hashable: Any = settings_class  # as every class is; the checker of types looks at its instances
    helps, checks, roles = help_of(hashable), checks_of(hashable), roles_of(hashable)
    rows = []
    for field in dataclasses.fields(settings_class):
        name, default = field.name, field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        rows.append(Declared(name, types_of[name], default, helps[name], reader, checks[name], roles[name]))
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
        ValueError: no setting of the type has this value; the message continues after "KEY=VALUE ".
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin is Literal:
        return _one_of(value, args)
    if origin in (typing.Union, types.UnionType):
        return _either(value, args)
    if list in (origin, annotation):
        if isinstance(value, str) and value.startswith("["):  # the command line's [my:Watch] is no Python
            value = _flow_list(value)
        if not isinstance(value, list | tuple):
            raise TypeError
        return [convert(item, args[0]) if args else item for item in value]
    if dict in (origin, annotation):
        if not isinstance(value, Mapping):
            raise TypeError
        return dict(value)
    reader = _READERS.get(annotation)
    if reader is None:
        raise TypeError
    return reader(value)


def _one_of(value: Any, choices: Sequence[Any]) -> Any:
    if value not in choices:
        raise TypeError
    return value


def _either(value: Any, options: Sequence[Any]) -> Any:
    """As the first of the types that takes it; null also as text."""
    if type(None) in options and (value is None or value in ("null", "none")):
        return None
    for option in options:
        with contextlib.suppress(TypeError):
            return convert(value, option)
    raise TypeError


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise TypeError


def _whole(value: Any) -> int:
    if isinstance(value, str) and "e" in value:  # YAML reads 1e6 as text
        value = _number(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    if abs(value) > LARGEST_INT:
        raise ValueError("is too large: records hold whole numbers below 2**63")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise TypeError from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


_READERS: Mapping[Any, Callable[[Any], Any]] = {
    bool: _truth,
    int: _whole,
    float: _number,
    str: _text,
}
"""Type of a setting -> what reads its values."""


def _flow_list(text: str) -> Any:
    """The list that a text such as ``[a, b]`` is in YAML; the text itself where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


class RunSettings:
    """Every setting of one run, checked, and the components it names.

    ``values`` is the flat mapping (with ``env_args`` nested); ``declared`` says who reads each key and its help;
    ``sources`` says where each one that is not at its default comes from; ``notes`` are sentences about settings that
    were given and have no effect. Kinds of component in ``skip`` are not looked up, and their settings, checked when
    the run began, are left alone.

    Raises:
        UserError: settings are unknown or impossible; one sentence names all of them.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        experiment_settings: type[Any],
        sources: Mapping[str, str] | None = None,
        skip: Collection[str] = (),
    ) -> None:
        self.sources = sources or {}
        self.notes: list[str] = []
        self.values: dict[str, Any] = {"env_args": {}}
        self.declared: dict[str, Declared] = {}
        self.components: dict[str, type[Any]] = {}
        self._settings: dict[type[Any], Any] = {}
        self._problems: list[str] = []
        unread = {key: value for key, value in raw.items() if key != "env_args"}
        unread_env = raw.get("env_args") or {}
        if not isinstance(unread_env, Mapping):
            raise UserError(f"env_args must be a mapping (env_args.map_name=...), not {shown(unread_env)}.")
        unread_env = dict(unread_env)

        queue: list[tuple[str, type[Any], str]] = [("", experiment_settings, "experiment")]
        while queue:
            section, settings_class, reader = queue.pop(0)
            source = unread_env if section else unread
            target = self.values["env_args"] if section else self.values
            fields = {}
            found_before = len(self._problems)
            for row in declared_by(settings_class, reader):
                path = section + row.key
                self.declared[path] = row
                is_component = not section and row.key in registry.COMPONENTS
                try:
                    value = self._take(row, path, source, target)
                except UserError as error:
                    self._problems.append(str(error))
                    if is_component:  # what it would read is not known
                        raise self._refusal() from None
                    continue
                fields[row.key] = target[row.key] = value
                if is_component and row.key not in skip and value is not None:
                    component = self._find(row.key, value)
                    self.components[row.key] = component
                    queue.append(("env_args." if row.key == "env" else "", component.Settings, f"{row.key}={value}"))
            if len(self._problems) > found_before:
                continue
            try:
                self._settings[settings_class] = settings_class(**fields)
            except (UserError, ValueError) as error:  # of settings that do not go together
                self._problems.append(str(error))
        if not skip:
            self._refuse_unread(unread, unread_env)
        if self._problems:
            raise self._refusal()

    def of(self, settings_class: type[Any]) -> Any:
        """The settings of one component of this run, as an instance of its ``Settings``."""
        return self._settings[settings_class]

    def make(self, kind: str, **parts: Any) -> Any:
        """Build the component that the setting ``kind`` names, from its own settings and ``parts``."""
        component = self.components[kind]
        return component(self.of(component.Settings), **parts)

    def _find(self, kind: str, name: str) -> type[Any]:
        """The class of a component. S2Q's release calls its controller as PyMARL2 calls the basic one."""
        if (kind, name) == ("mac", "n_mac") and getattr(self.components.get("learner"), "has_sub_values", False):
            name = "s2q_mac"
        return registry.find(kind, name)

    def _take(self, row: Declared, path: str, source: dict[str, Any], target: dict[str, Any]) -> Any:
        if row.key in target and row.key not in source:
            return target[row.key]  # declared by two components, already read by the first
        if row.key not in source:
            if row.default is dataclasses.MISSING:
                raise UserError(f"The setting '{path}' ({row.help}) has no value: give it in a YAML or as {path}=...")
            return row.default
        value = source.pop(row.key)
        try:
            require_writable(value)
            value = convert(value, row.type)
        except TypeError:
            raise UserError(
                f"{path}={shown(value)} has the wrong type: {row.reader} wants {type_name(row.type)} ({row.help})."
            ) from None
        except ValueError as error:
            raise UserError(f"{path}={shown(value)} {error} ({row.help}).") from None
        return checked(row.checks, value, path, row.help)

    def _refusal(self) -> UserError:
        return UserError(" ".join(dict.fromkeys(self._problems)))  # one that two components found is said once

    def _refuse_unread(self, unread: Mapping[str, Any], unread_env: Mapping[str, Any]) -> None:
        """Refuse undeclared settings, or note it where an old name asks for what Shoal does anyway."""
        given = flatten({**unread, "env_args": unread_env})
        advice: dict[str, str] = {}
        idle: dict[str, list[str]] = {}
        for path, value in given.items():
            source = self.sources.get(path, "")
            # A file of another code, or per_env, speaks of the components that the file names; a user may take others.
            lenient = old_names.is_foreign(source, self.sources) or files.is_per_env(source, self.values["env"])
            readers = _readers_elsewhere(path)
            lenient = lenient or (source.startswith("algs/") and self._is_for_another_memory(readers))
            old = old_names.without_effect(path, value, self.values) if lenient or not readers else None
            if old is not None and not old.harmless:
                advice[path] = old.why
            elif old is not None:
                idle.setdefault(source, []).append(f"{path}={_typed(value)} ({old.why})")
            elif lenient and readers:
                idle.setdefault(source, []).append(f"{path}={_typed(value)} (only {', '.join(readers)} would read it)")
            else:
                advice[path] = self._advice(path, value, readers)
        for source, settings in idle.items():
            self.notes.append(f"without effect{f' in {source}' if source else ''}: {', '.join(settings)}")
        if not advice:
            return
        said = [
            f"'{path}'" + (f" ({self.sources[path]})" if path in self.sources else "") + f": {text}"
            for path, text in advice.items()
        ]
        what = "Unknown setting" if len(said) == 1 else f"{len(said)} unknown settings:"
        self._problems.append(
            f"{what} {'; '.join(said)}. (print_config shows every setting of this run.)".replace("?.", "?")
        )

    def _is_for_another_memory(self, readers: Sequence[str]) -> bool:
        """Whether only a memory would read it, and the user has taken another one than the algorithm's."""
        given = self.sources.get("memory", "algs/").partition("/")[0] not in ("algs", "envs", "default.yaml")
        return given and {reader.partition("=")[0] for reader in readers} == {"memory"}

    def _advice(self, path: str, value: Any, readers: Sequence[str]) -> str:
        """Where a setting that this run does not have belongs; ``readers`` are components elsewhere that have it."""
        section, _, key = path.rpartition(".")
        source = self.sources.get(path, "")
        if section and source.startswith("algs/"):
            algorithm, env = self.values.get("name", "this algorithm"), self.values["env"]
            return f"{algorithm} needs an environment that has this setting; {env} has none"
        other = key if section else f"env_args.{key}"
        if other in self.declared:
            where = "is no setting of the environment" if section else "is a setting of the environment"
            return f"it {where}, say {other}={_typed(value)}"
        if readers:
            return f"nothing in this run reads it, only {', '.join(readers)} would. Remove it"
        near = self._near(key, bool(section)) or self._near(key, not section)
        return f"did you mean {' or '.join(map(repr, near))}?" if near else "there is no such setting. Remove it"

    def _near(self, key: str, of_environment: bool) -> list[str]:
        """Settings of this run called almost so, of the environment or the others."""
        full = {} if of_environment else {"env_args": "env_args"}
        for path in self.declared:
            section, _, name = path.rpartition(".")
            if bool(section) == of_environment:
                full[name] = path
        return [full[name] for name in registry.near(key, list(full), cutoff=0.7)]


def _readers_elsewhere(path: str) -> list[str]:
    """Registered components, used by this run or not, that declare the setting; of ``env_args``, environments.

    What stands outside ``env_args`` is looked for there too.
    """
    section, _, key = path.rpartition(".")
    found = {
        kind: sorted(
            f"{kind}={name}"
            for name in names
            if any(row.key == key for row in declared_by(registry.find(kind, name).Settings, ""))
        )
        for kind, names in registry.COMPONENTS.items()
    }
    suites = found.pop("env")
    if section:
        return suites
    readers = sorted(reader for names in found.values() for reader in names)
    return [*readers, f"{', '.join(suites)} as env_args.{key}"] if suites else readers


def _typed(value: Any) -> str:
    """A value as it stands on the command line, cut where it is long."""
    return value if isinstance(value, str) and len(value) <= LONGEST_SHOWN else shown(value)
