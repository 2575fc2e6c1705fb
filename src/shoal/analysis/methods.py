"""Which runs are seeds of one method: same name, and the same settings of everything that decides what is learnt."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from shoal.analysis.records import RecordedRun
from shoal.analysis.sources import flat
from shoal.recording.run_folder import OF_THE_RECORD

NOT_THE_METHOD = {
    *OF_THE_RECORD,
    "absolute_test_nepisode",
    "buffer_cpu_only",
    "checkpoint_path",
    "env_restart_every",
    "env_start_timeout_s",
    "env_timeout_s",
    "evaluate",
    "learner_log_interval",
    "load_step",
    "max_env_restarts",
    "name",
    "ray_address",
    "ray_cpus_per_env",
    "ray_envs_per_worker",
    "resume",
    "runner",
    "runner_log_interval",
    "save_replay",
    "seed",
    "t_max",
    "test_interval",
    "test_nepisode",
    "torch_threads",
    "use_cuda",
    "env_args.map_name",
    "env_args.env_name",
    "env_args.key",
}
"""Settings in which two runs of one method may differ: where it is run, recorded and tested, and for how long (where no
schedule is a fraction of that)."""


def name_algorithms(runs: Sequence[RecordedRun]) -> tuple[dict[int, str], list[str]]:
    """Each run's algorithm, by its position: its name and, where runs of that name differ on one task, in what."""
    settings = [_method(flat(run.config)) for run in runs]
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
    follows = any(key.endswith("_anneal_frac") and value is not None for key, value in config.items())
    outside = NOT_THE_METHOD - {"t_max"} if follows else NOT_THE_METHOD
    return {key: value for key, value in config.items() if key not in outside}


def _differing(settings: list[dict[str, Any]]) -> set[str]:
    """Keys with more than one value; a key that some lack (they are of another version) is no difference."""
    values: dict[str, set[str]] = defaultdict(set)
    for one in settings:
        for key, value in one.items():
            values[key].add(repr(value))
    return {key for key, found in values.items() if len(found) > 1}
