"""The settings that a run starts from: of two YAML files, or of the checkpoint that it continues from."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shoal import registry
from shoal.config import CONFIG_OPTIONS, files, trust
from shoal.config.settings import declared_by
from shoal.declare import PathText, Role, checked, roles_of
from shoal.recording.reader import checkpoints_of
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError

EXCHANGEABLE = {"runner", "action_selector"}
"""Kinds of component that a resumed run may change."""


def raw_config(
    chosen: Mapping[str, str],
    given: Sequence[files.Layer],
    experiment_settings: type[Any],
    trusted: bool = False,
    arranged: Callable[[Mapping[str, Any]], Sequence[files.Layer]] | None = None,
) -> tuple[dict[str, Any], dict[str, str], dict[str, Any] | None, list[str]]:
    """The unchecked settings of a run, the source of each, the checkpoint that it starts from, if any, and notes.

    A run that continues takes its settings from the checkpoint, and so does a test of a checkpoint (``evaluate``) for
    which no YAML file is ``chosen``. Elsewhere they are default.yaml, the environment's YAML,
    the algorithm's, and what the two change on the run's map. What the user has ``given`` wins over all of it.
    Of a checkpoint's settings those of its start (``Role.START``) are left out; ``experiment_settings`` declares them.
    ``trusted``: the checkpoint may name code outside Shoal, whoever wrote it.
    ``arranged`` makes of all settings together what takes the place of ``given``, once it is known of which run it is.
    """
    updates, named = files.overlay(given)
    for layer in given:
        for key in files.RESERVED:
            if key in layer.settings:
                raise UserError(
                    f"'{key}' ({layer.source}) is no setting: it stands in a YAML that --config or --env-config names."
                )
    if updates.get("resume"):
        content: dict[str, Any] | None
        file, content = checkpoints.load_for_resume(
            checkpoints_of(_path("resume", updates)),
            _load_step(updates),
            warn=lambda text: print(f"warning: {text}", file=sys.stderr),
        )
        trust.check(content, file, trusted, given=named)
        recorded = _recorded(content, file, "resumed", experiment_settings)
        for option, kind in CONFIG_OPTIONS.items():
            if option in chosen:
                named = files.load(kind, chosen[option], files.map_of(recorded["env_args"]), recorded["env"])
                _refuse_other(recorded, named, f"{option}={chosen[option]}")
        _refuse_other_parts(recorded, updates)
        layers = _above_checkpoint(recorded, given, arranged)
        return *files.overlay(layers), content, files.notes(layers)

    if not chosen and updates.get("checkpoint_path") and updates.get("evaluate"):
        file = checkpoints.find(checkpoints_of(_path("checkpoint_path", updates)), _load_step(updates))
        content = checkpoints.require_run(checkpoints.load(file), file)
        trust.check(content, file, trusted, given=named)
        recorded = _recorded(content, file, "evaluated", experiment_settings)
        layers = _above_checkpoint(recorded, given, arranged)
        return *files.overlay(layers), content, files.notes(layers)

    for option in CONFIG_OPTIONS:
        if option not in chosen:
            raise UserError(
                f"{option}=NAME is missing: say for example --config=s2q --env-config=smax (--list shows all names)."
            )
    default = files.Layer("default.yaml", files.read(files.FOLDER / "default.yaml"))
    yamls = [*files.layers("envs", chosen["--env-config"]), *files.layers("algs", chosen["--config"])]
    layers = _above_yamls(default, yamls, given)
    if arranged:
        layers = _above_yamls(default, yamls, arranged(files.overlay(layers)[0]))
    config, sources = files.overlay(layers)
    content = None
    if config.get("checkpoint_path"):
        file = checkpoints.find(checkpoints_of(_path("checkpoint_path", config)), _load_step(config))
        content = checkpoints.require_run(checkpoints.load(file), file)
    return config, sources, content, files.notes(layers)


def _above_checkpoint(
    recorded: dict[str, Any],
    given: Sequence[files.Layer],
    arranged: Callable[[Mapping[str, Any]], Sequence[files.Layer]] | None,
) -> list[files.Layer]:
    """All layers of a run that goes on from a checkpoint."""
    layers = files.renamed([files.Layer("checkpoint", recorded), *given], recorded["env"])
    return _above_checkpoint(recorded, arranged(files.overlay(layers)[0]), None) if arranged else layers


def _above_yamls(default: files.Layer, yamls: Sequence[files.Layer], given: Sequence[files.Layer]) -> list[files.Layer]:
    """All layers of a new run, with what the YAML files change on its environment and map."""
    bare = files.overlay([default, *yamls, *given])[0]
    env = bare.get("env")
    return files.renamed([default, *files.resolved(yamls, env, _map_name(bare)), *given], env)


def _recorded(content: Mapping[str, Any], file: Path, what: str, experiment_settings: type[Any]) -> dict[str, Any]:
    """The settings in a checkpoint, without those of one start."""
    config = content.get("config")
    if not isinstance(config, Mapping) or not {"env", "env_args"} <= config.keys():
        raise UserError(f"{file} does not say with which settings its run was made: it cannot be {what}.")
    roles = roles_of(experiment_settings)
    return {key: value for key, value in config.items() if roles.get(key) is not Role.START}


def _path(key: str, config: Mapping[str, Any]) -> Path:
    """The path in a setting that is still unchecked."""
    return Path(checked((PathText(),), str(config[key]), key))


def _load_step(config: Mapping[str, Any]) -> int:
    """The environment step of the checkpoint to load, of settings that are still unchecked."""
    load_step = config.get("load_step", 0)
    if not isinstance(load_step, int):
        raise UserError(f"load_step={load_step!r} has the wrong type: it is an environment step, a whole number.")
    return load_step


def _map_name(config: Mapping[str, Any]) -> Any:
    """The map of a run whose settings are still unchecked: as given, or else its environment's default."""
    env, given = config.get("env"), files.map_of(config.get("env_args"))
    if given is not None:
        return given
    rows = declared_by(registry.find("env", env).Settings, env) if isinstance(env, str) else []
    return next((row.default for row in rows if row.key in files.MAP_KEYS), None)


def _refuse_other(recorded: Mapping[str, Any], named: Mapping[str, Any], option: str) -> None:
    for key in ("name", "learner", "mac", "mixer", "env"):
        if key in named and not _is_same(key, recorded.get(key), named[key]):
            raise UserError(
                f"{option} does not belong to the run to resume, which has {key}={recorded.get(key)}: leave it out."
            )


def _refuse_other_parts(recorded: Mapping[str, Any], updates: Mapping[str, Any]) -> None:
    """Refuse to resume a run with another component than it was trained with."""
    for kind in registry.COMPONENTS.keys() - EXCHANGEABLE:
        before = recorded.get(kind, "replay" if kind == "memory" else None)
        if kind in updates and not _is_same(kind, before, updates[kind]):
            raise UserError(
                f"A resumed run keeps its {kind} ({before}): leave {kind}={updates[kind]} out, or start a new run "
                "(with checkpoint_path=... from the networks of this one, where they fit)."
            )


def _is_same(kind: str, before: Any, given: Any) -> bool:
    """Whether two names stand for one component: an alias does, and a class of a script, which has another path in
    another script.
    """
    aliases = registry.ALIASES.get(kind, {})
    first, second = (str(aliases.get(name, name)).rpartition(":")[2] for name in (before, given))
    return first == second
