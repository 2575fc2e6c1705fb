"""Win rates of every test, also where the environment tells of wins alone."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shoal.analysis.records import RecordedRun
from shoal.recording import metric_names


def with_all_wins(runs: Sequence[RecordedRun]) -> list[RecordedRun]:
    """The runs, each with a value for every test of the win rates that any run of its task recorded.

    An environment may give its key (``battle_won``) in won episodes alone. An episode without it counts 0, and a run
    records the win rate from the first win on; the tests before that, and all tests of a run that never won, count 0
    just as well. Without this, the runs that never won would be missing from a mean over seeds.
    """
    known: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for run in runs:
        known[_task(run)] |= dict.fromkeys(name for name in run.metrics if metric_names.is_win_rate(name))
    return [with_wins(run, list(known[_task(run)])) for run in runs]


def _task(run: RecordedRun) -> tuple[str, str]:
    return str(run.config.get("env")), run.task


def with_wins(run: RecordedRun, win_rates: Sequence[str]) -> RecordedRun:
    """The run with a value of each of ``win_rates`` for every test: 0 before the first win."""
    metrics, clock = dict(run.metrics), dict(run.clock)
    nothing = np.empty(0)
    for name in win_rates:
        returns = metric_names.return_beside(name)
        if returns not in metrics:
            continue
        steps, values = metrics.get(name, (nothing, nothing))
        before = metrics[returns][0] < (steps[0] if len(steps) else np.inf)
        zeros = np.zeros(int(before.sum()))
        if len(zeros):
            metrics[name] = np.concatenate([metrics[returns][0][before], steps]), np.concatenate([zeros, values])
            seconds = clock.get(returns, np.full(len(before), np.nan))[before]
            clock[name] = np.concatenate([seconds, clock.get(name, nothing)])
    return replace(run, metrics=metrics, clock=clock)
