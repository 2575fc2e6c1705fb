"""The YAML files: finding them by name or path, reading them, merging them.

Three keys are not settings. ``extends: NAME`` lays the file over another one of its kind; ``per_env:`` holds, by the
name of an environment suite, what changes in it; ``per_map:``, by the name of a map (or of one environment of a suite),
what changes on it. docs/settings.md tells users about them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from shoal.config import old_names
from shoal.registry import COMPONENTS, nearest
from shoal.utils.errors import UserError, shown

FOLDER = Path(__file__).parent
TYPED = "command line"
"""The source of what the user types."""
Kind = Literal["algs", "envs"]
_PER_ENV = ", env "
RESERVED = ("extends", "per_env", "per_map")
MAP_KEYS = ("map_name", "env_name")
"""The settings of environments that name what ``per_map`` is looked up by; no suite has both."""


@dataclass(frozen=True)
class Layer:
    """The settings that one source gives, and what it changes in which environment suite and on which map."""

    source: str
    settings: Mapping[str, Any]
    per_env: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    per_map: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What to tell the user about names that other codes use."""


def resolved(layers: Iterable[Layer], env: Any, map_name: Any) -> list[Layer]:
    """``layers``, then what they change in the suite ``env``, then what they change on the map ``map_name``.

    What is no name (None, or a wrong type, which is refused later) changes nothing.
    """
    stack = list(layers)
    in_env = [
        Layer(f"{layer.source}{_PER_ENV}{env}", layer.per_env[env]) for layer in stack if _named(env, layer.per_env)
    ]
    on_map = [
        Layer(f"{layer.source}, map {map_name}", layer.per_map[map_name])
        for layer in stack
        if _named(map_name, layer.per_map)
    ]
    return [*stack, *in_env, *on_map]


def is_per_env(source: str, env: str) -> bool:
    """Whether ``source`` is what a file changes in the suite ``env`` (``per_env``)."""
    return source.endswith(f"{_PER_ENV}{env}")


def renamed(layers: Iterable[Layer], env: Any) -> list[Layer]:
    """``layers`` with what old versions called otherwise in the suite ``env`` under the names of today.

    Raises:
        UserError: a layer gives one setting two values by two names.
    """
    return [
        replace(layer, settings=read.settings, notes=[*layer.notes, *read.notes])
        for layer in layers
        for read in [old_names.in_env_args(layer.settings, env, layer.source)]
    ]


def _named(name: Any, entries: Mapping[str, Any]) -> bool:
    return isinstance(name, str) and name in entries


def map_of(env_args: Any) -> Any:
    """The map or environment that ``env_args`` name, which ``per_map`` is looked up by; None where they name none."""
    if not isinstance(env_args, Mapping):
        return None
    return next((env_args[key] for key in MAP_KEYS if key in env_args), None)


def names(kind: Kind) -> list[str]:
    """Names of the YAML files that ship with Shoal."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.yaml"))


def one_line(kind: Kind, name: str) -> str:
    """What the file's first comment says."""
    first = (FOLDER / kind / f"{name}.yaml").read_text().partition("\n")[0]
    return first.removeprefix("#").strip()


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: the file is missing, does not parse or is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}, column {where.column + 1}" if where else ""
        raise UserError(
            f"The settings file {path} is not valid YAML{line}: {getattr(error, 'problem', error)}."
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"The settings file {path} must be a mapping of setting names to values.")
    return content


def layers(kind: Kind, name: str) -> list[Layer]:
    """The file that ``name`` stands for and those that it extends, the furthest first.

    ``name`` is that of a file in ``config/<kind>`` or, where it ends in .yaml/.yml or holds a slash, a path. An
    environment may also be named by the import path of its class, ``my_module:MyEnv``, and then has no file.

    Raises:
        UserError: a file is unknown or broken, or files extend each other in a circle.
    """
    if kind == "envs" and ":" in name and not name.endswith((".yaml", ".yml")):
        return [Layer(name, {"env": name})]
    found: list[Layer] = []
    passed: list[Path] = []
    source, path = _find(kind, name)
    while True:
        if path.resolve() in [p.resolve() for p in passed]:
            circle = " -> ".join(str(p) for p in [*passed, path])
            raise UserError(f"Settings files extend each other in a circle, {circle}: take one 'extends' out.")
        passed.append(path)
        content = read(path)
        extends, per_env, per_map = (content.pop(key, None) for key in RESERVED)
        found[:0] = from_source(source, content, _checked_envs(per_env, path), _checked("per_map", per_map, path))
        if extends is None:
            return found
        if not isinstance(extends, str):
            raise UserError(f"The settings file {path} extends {extends!r}: it must be one name or path.")
        source, path = _find(kind, extends, path)


def from_source(
    source: str,
    settings: Mapping[str, Any],
    per_env: Mapping[str, Mapping[str, Any]] | None = None,
    per_map: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Layer]:
    """The layers of one source: its settings under our names, over those that its code takes for granted, if any.

    Raises:
        UserError: it asks, by a name of another code, for what Shoal does not do.
    """
    own = old_names.translate(settings, source)
    in_envs = {name: old_names.translate(entry, f"{source}, env {name}") for name, entry in (per_env or {}).items()}
    on_maps = {name: old_names.translate(entry, f"{source}, map {name}") for name, entry in (per_map or {}).items()}
    notes = [note for read in (own, *in_envs.values(), *on_maps.values()) for note in read.notes]
    in_env, on_map = ({name: read.settings for name, read in table.items()} for table in (in_envs, on_maps))
    behind = [Layer(f"{source}{old_names.BEHIND}", own.behind)] if own.behind else []
    return [*behind, Layer(source, own.settings, in_env, on_map, notes)]


def given(named: Sequence[str], updates: Mapping[str, Any]) -> list[Layer]:
    """What stands behind ``with``: YAML files, the one that wins first as sacred has them, and over them KEY=VALUE."""
    read_in = [layer for name in reversed(named) for layer in from_source(name, read(Path(name)))]
    return [*read_in, *from_source(TYPED, updates)]


def typed(words: Sequence[str]) -> list[Layer]:
    """The same, of the words themselves.

    Raises:
        UserError: they contradict each other, or a file cannot be read.
    """
    from sacred.arg_parser import get_config_updates

    for word in words:
        try:
            get_config_updates([word])
        except (TypeError, ValueError, RecursionError, MemoryError) as error:  # the list in a set, as in {[1]}
            raise UserError(f"{shown(word)} cannot be read: {error}.") from None
        if "=" not in word and word and not word.endswith((".yaml", ".yml")) and not Path(word).exists():
            raise UserError(f"{shown(word)} behind 'with' is neither KEY=VALUE nor a YAML file.")
    try:
        updates, named = get_config_updates(words)
    except TypeError:  # env_args=3 env_args.map_name=3m
        raise UserError(
            "A setting behind 'with' has both a value and settings of its own (KEY=... and KEY.X=...): leave one out."
        ) from None
    return given(named, updates)


def notes(layers: Iterable[Layer]) -> list[str]:
    """What all ``layers`` tell the user, each once."""
    return list(dict.fromkeys(note for layer in layers for note in layer.notes))


def load(kind: Kind, name: str, map_name: Any = None, env: Any = None) -> dict[str, Any]:
    """The settings of a file over those that it extends, with what they change in the suite and on the map."""
    return overlay(resolved(layers(kind, name), env, map_name))[0]


def _find(kind: Kind, name: str, extended_by: Path | None = None) -> tuple[str, Path]:
    """What a file is called and where it lies; a path in ``extends`` starts at the folder of the file that says it."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name) if extended_by is None else extended_by.parent / name
        if extended_by is not None and not path.is_file():
            raise UserError(
                f"The settings file {extended_by} extends {path}, which does not exist: give a path from the folder "
                "of that file, or a name from --list."
            )
        return str(path), path
    if name not in names(kind):
        option = "--config" if kind == "algs" else "--env-config"
        what = f"Unknown {option} '{name}'" if extended_by is None else f"{extended_by} extends the unknown '{name}'"
        raise UserError(
            f"{what}: did you mean {nearest(name, names(kind))}? "
            "(--list shows them all; a path to a YAML file of your own works too.)"
        )
    return f"{kind}/{name}.yaml", FOLDER / kind / f"{name}.yaml"


def _checked(section: str, given: Any, path: Path) -> dict[str, dict[str, Any]]:
    """``per_env`` or ``per_map`` of the file ``path``, an entry without content as an empty one."""
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        what, example = ("environment", "sc2") if section == "per_env" else ("map", "corridor")
        raise UserError(
            f"{section} in {path} must be a mapping of {what} names to settings, such as "
            f"{{{example}: {{lr: 0.0005}}}}, not {given!r}."
        )
    entries = {name: {} if entry is None else entry for name, entry in given.items()}
    for name, entry in entries.items():
        here = f"{section}.{name} in {path}"
        if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
            raise UserError(f"{here} must be a mapping of setting names to values, not {entry!r}.")
        for key in RESERVED:
            if key in entry:
                raise UserError(f"{here} holds '{key}', which stands only at the top of a file.")
        env_args = entry.get("env_args")
        choosing = [f"env_args.{key}" for key in MAP_KEYS if isinstance(env_args, dict) and key in env_args]
        for key in (*(["env"] if "env" in entry else []), *choosing):
            raise UserError(f"{here} sets {key}, by which entries are chosen: leave that out.")
    return entries


def _checked_envs(per_env: Any, path: Path) -> dict[str, dict[str, Any]]:
    """``per_env`` of the file ``path``, whose names are those of suites or import paths."""
    entries = _checked("per_env", per_env, path)
    for name in entries:
        if name not in COMPONENTS["env"] and ":" not in name:
            raise UserError(
                f"per_env.{name} in {path} names no environment: did you mean {nearest(name, list(COMPONENTS['env']))}?"
            )
    return entries


def merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` overridden by ``update``; nested mappings merge key by key."""
    merged = dict(base)
    for key, value in update.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def overlay(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings of ``layers``, each over the one before, and the source of each by its dotted name."""
    settings: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    for layer in layers:
        settings = merge(settings, layer.settings)
        sources = merge(sources, _marked(layer.settings, layer.source))
    return settings, dict(_leaves(sources))


def _marked(settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The mapping with ``source`` in place of every value."""
    return {k: _marked(v, source) if isinstance(v, Mapping) else source for k, v in settings.items()}


def _leaves(tree: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of everything in nested mappings that is not itself a mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{section}{key}.")
        else:
            yield f"{section}{key}", value
