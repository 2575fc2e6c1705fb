"""Which runs are seeds of one method: same name, and the same settings of everything that decides what is learnt."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from shoal.analysis.records import RecordedRun
from shoal.declare import Role


def name_algorithms(runs: Sequence[RecordedRun]) -> tuple[dict[int, str], list[str]]:
    """Each run's algorithm, by its position: its name and, where runs of that name differ on one task, in what."""
    settings = [_method(run.settings) for run in runs]
    by_name: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for k, run in enumerate(runs):
        by_name[str(run.config.get("name", "?"))][run.task].append(k)
    names, all_keys = {}, []
    for name, tasks in by_name.items():
        keys = sorted({key for members in tasks.values() for key in _differing([settings[k] for k in members])})
        all_keys += [key for key in keys if key not in all_keys]
        for k in (k for members in tasks.values() for k in members):
            chosen = [f"{key}={settings[k][key]}" for key in keys if key in settings[k]]
            names[k] = name + (f" ({', '.join(chosen)})" if chosen else "")
    return names, all_keys


def _method(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the method; the length of a run is one where schedules are fractions of it."""
    from shoal.roles import role_of  # imports every component

    follows = any(key.endswith("_anneal_frac") and value is not None for key, value in config.items())
    of_method = {Role.METHOD, Role.LENGTH} if follows else {Role.METHOD}
    return {key: value for key, value in config.items() if role_of(key) in of_method}


def _differing(settings: list[dict[str, Any]]) -> set[str]:
    """Keys with more than one value; a key that some lack (they are of another version) is no difference."""
    values: dict[str, set[str]] = defaultdict(set)
    for one in settings:
        for key, value in one.items():
            values[key].add(repr(value))
    return {key for key, found in values.items() if len(found) > 1}
