"""A search for settings with Optuna: TPE proposes a trial, its runs are jobs of the sweep, their tests its value."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from shoal.analysis.records import RecordedRun
from shoal.analysis.wins import with_wins
from shoal.config import files
from shoal.recording import metric_names
from shoal.sweeps.plan import nested
from shoal.sweeps.pool import Job
from shoal.utils.dotted import flatten
from shoal.utils.errors import UserError
from shoal.utils.extras import needed_for

STUDY_FILE, BEST_FILE = "study.log", "best.yaml"
_STUDY, _JUDGE = "search", "judged_by"
_SHOWN = 5


@dataclass(frozen=True)
class SearchSettings:
    """What stands behind ``--optuna``, as KEY=VALUE."""

    trials: int
    space: Path
    metric: str = ""
    """What a run is judged by; empty: the win rate if a run of the first trial has one, else the return."""
    last: int = 5
    """Tests at a run's end whose mean counts."""
    direction: Literal["maximize", "minimize"] = "maximize"
    seed: int = 0
    """Of the proposals."""


def read_settings(words: Sequence[str]) -> SearchSettings:
    """Understand ``trials=40 space=space.yaml ...``.

    Raises:
        UserError: something is missing, unknown or out of range.
    """
    given = dict(word.partition("=")[::2] for word in words)
    known = list(SearchSettings.__dataclass_fields__)
    for key in given:
        if key not in known:
            raise UserError(f"--optuna does not know '{key}': it takes {', '.join(known)}, as in trials=40.")
    for key in ("trials", "space"):
        if not given.get(key):
            raise UserError("--optuna needs the number of trials and the space to search: trials=40 space=space.yaml.")
    try:
        numbers: dict[str, Any] = {key: int(given[key]) for key in ("trials", "last", "seed") if key in given}
    except ValueError:
        raise UserError("--optuna: trials, last and seed are whole numbers, as in trials=40 last=5.") from None
    direction = given.get("direction", "maximize")
    if direction not in ("maximize", "minimize") or min(numbers["trials"], numbers.get("last", 1)) < 1:
        raise UserError("--optuna: trials and last are at least 1, and direction is maximize or minimize.")
    if not 0 <= numbers.get("seed", 0) < 2**31:
        raise UserError(f"--optuna: seed={given['seed']} is out of range: it lies between 0 and {2**31 - 1}.")
    return SearchSettings(space=Path(given["space"]), metric=given.get("metric", ""), direction=direction, **numbers)  # type: ignore[arg-type]


def read_space(path: Path) -> dict[str, Any]:
    """The distributions of a YAML file, by the dotted names of the settings.

    Raises:
        UserError: an entry is neither a list of choices nor a range.
    """
    with needed_for("--optuna", "sweeps"):
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, Any] = {}
    for key, entry in flatten(files.read(path)).items():
        help_ = f"'{key}' in {path} needs a list of choices, or a range such as {{low: 0.0001, high: 0.01, log: true}}"
        if isinstance(entry, list) and entry and all(isinstance(x, str | int | float | bool | None) for x in entry):
            space[key] = CategoricalDistribution(entry)
            continue
        if not isinstance(entry, Mapping) or not {"low", "high"} <= entry.keys() <= {"low", "high", "log", "step"}:
            raise UserError(f"{help_}.")
        try:
            numbers = {k: _number(v) for k, v in entry.items() if k != "log"}
            whole = all(isinstance(value, int) for value in numbers.values())
            step = {"step": numbers["step"]} if "step" in numbers else {}
            kind: Any = IntDistribution if whole else FloatDistribution
            space[key] = kind(numbers["low"], numbers["high"], log=bool(entry.get("log", False)), **step)
        except (TypeError, ValueError) as error:
            raise UserError(f"{help_}: {error}.") from error
    if not space:
        raise UserError(f"The space {path} is empty: name the settings to search, each with choices or a range.")
    return space


def _number(value: Any) -> int | float:
    if isinstance(value, str):  # YAML reads 1e-4 as text
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


def example_of(space: Mapping[str, Any]) -> dict[str, Any]:
    """One point of the space, to check that the settings exist."""
    return {key: d.choices[0] if hasattr(d, "choices") else d.low for key, d in space.items()}


class Search:
    """A study in ``folder``, which continues where an earlier command left it.

    Args:
        folder: the sweep's.
        settings: how to search.
        space: what to search.
        jobs_of: makes a trial's jobs from its settings and its tag; all of one algorithm.

    Raises:
        UserError: the folder holds a study of something else.
    """

    def __init__(
        self,
        folder: Path,
        settings: SearchSettings,
        space: Mapping[str, Any],
        jobs_of: Callable[[dict[str, Any], str], list[Job]],
    ) -> None:
        with needed_for("--optuna", "sweeps"):
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._s, self._space, self._jobs_of = settings, space, jobs_of
        self._states = optuna.trial.TrialState
        storage = JournalStorage(JournalFileBackend(str(folder / STUDY_FILE)))
        self.study = optuna.create_study(
            study_name=_STUDY, storage=storage, direction=settings.direction, load_if_exists=True
        )
        what = {
            "space": {key: optuna.distributions.distribution_to_json(d) for key, d in space.items()},
            "metric": settings.metric,
            "last": settings.last,
            "direction": settings.direction,
        }
        before = self.study.user_attrs.get("what")
        if before not in (None, what):
            raise UserError(f"{folder} holds a search for something else ({before}): give this one another --name.")
        judged = settings.metric or self.study.user_attrs.get(_JUDGE)
        if not judged and any(t.state == self._states.COMPLETE for t in self.study.trials):
            raise UserError(
                f"{folder} holds a search of an earlier version, which did not keep what its trials were judged by: "
                "give this one another --name."
            )
        self.study.set_user_attr("what", what)
        # Another seed for each start: the same one would propose the first trials again.
        seed = settings.seed + len(self.study.trials)
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._failed_before = sum(t.state == self._states.FAIL for t in self.study.trials)
        self._open: dict[int, list[Job]] = {}
        self._left_open = [t for t in self.study.trials if t.state == self._states.RUNNING]

    @property
    def trials(self) -> int:
        """How many are wanted."""
        return self._s.trials

    @property
    def wants_more(self) -> bool:
        """Whether there are trials that have not been started by this command; others for those that failed before."""
        return bool(self._left_open) or len(self.study.trials) - self._failed_before < self._s.trials

    def more(self) -> list[Job]:
        """The jobs of one more trial: of one that an earlier command had begun, or else of a new one."""
        if self._left_open:
            trial = self._left_open.pop(0)
            number, changes = trial.number, trial.params
        else:
            asked = self.study.ask(dict(self._space))
            number, changes = asked.number, asked.params
        self._open[number] = self._jobs_of(changes, _tag(number))
        return self._open[number]

    def settle(self) -> list[str]:
        """Tell the study of trials whose runs have all ended. Returns a line about each."""
        lines = []
        for number, jobs in list(self._open.items()):
            states = {job.state for job in jobs}
            if states & {"waiting", "running", "stopped"}:
                continue
            del self._open[number]
            value = math.nan if "failed" in states else self.value_of(jobs)
            trial = self.study.trials[number]
            given = ", ".join(f"{key}={_short(value)}" for key, value in trial.params.items())
            if math.isnan(value):
                self.study.tell(number, state=self._states.FAIL)
                lines.append(f"trial {number} failed: {given}")
            else:
                self.study.tell(number, value)
                metric = self._s.metric or self.study.user_attrs[_JUDGE]
                best = self.study.best_value
                lines.append(f"trial {number}: {metric} {value:.4g} with {given}; best so far {best:.4g}")
        return lines

    def value_of(self, jobs: Sequence[Job]) -> float:
        """The mean over a trial's runs of the mean of their last tests; NaN where one has none."""
        runs = [self._recorded(job) for job in jobs]
        metric = self._metric_of(runs)
        means = []
        for run in runs:
            whole = with_wins(run, [metric]) if metric_names.is_win_rate(metric) else run
            tests = whole.metrics[metric][1][-self._s.last :].tolist() if metric in whole.metrics else []
            means.append(sum(tests) / len(tests) if tests else math.nan)
        return sum(means) / len(means) if means else math.nan

    def _metric_of(self, runs: Sequence[RecordedRun]) -> str:
        """What all trials are judged by: as asked, or the judge of the first trial with a test (``metric_names``).

        It stays, whatever later trials record: a return and a win rate do not compare.
        """
        metric: str = self._s.metric or self.study.user_attrs.get(_JUDGE, "")
        if not metric:
            recorded = {name for run in runs for name, (steps, _) in run.metrics.items() if len(steps)}
            metric = metric_names.judge(recorded)
            if metric in recorded:
                self.study.set_user_attr(_JUDGE, metric)
        return metric

    def _recorded(self, job: Job) -> RecordedRun:
        """The job's run, its starts put together; without metrics where its record cannot be read."""
        assert job.record is not None
        return job.folder.whole(job.record) or RecordedRun(job.record, {}, {})

    def best(self) -> list[tuple[int, float, dict[str, Any]]]:
        """The best trials: number, value and settings, the best first."""
        done = [t for t in self.study.trials if t.state == self._states.COMPLETE and t.value is not None]
        done.sort(key=lambda t: t.value or 0.0, reverse=self._s.direction == "maximize")
        return [(t.number, float(t.value or 0.0), dict(t.params)) for t in done[:_SHOWN]]

    def best_jobs(self) -> list[Job]:
        """The finished jobs of the best trials, those of earlier commands too."""
        jobs = [job for number, _, changes in self.best() for job in self._jobs_of(changes, _tag(number))]
        for job in jobs:
            job.look()
        return jobs

    def write_best(self, folder: Path) -> Path | None:
        """Write the best trial's settings as a YAML file for the command line; None where no trial has a value."""
        best = self.best()
        if not best:
            return None
        number, value, changes = best[0]
        path = folder / BEST_FILE
        path.write_text(
            f"# Trial {number} of {len(self.study.trials)}: {value:.4g}. python src/main.py ... with {path}\n"
            + yaml.safe_dump(json.loads(json.dumps(nested(changes))))
        )
        return path


def _tag(number: int) -> str:
    return f"trial{number:03}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
