"""The evaluation protocol of cooperative MARL (Gorsane et al., arXiv 2209.10485), held against a set of runs."""

import pandas as pd

from shoal.analysis.comparison import RECOMMENDED_SEEDS
from shoal.analysis.study import Study
from shoal.recording import metric_names

TEST_EPISODES = 32
ABSOLUTE_FACTOR = 10


def protocol_table(study: Study) -> pd.DataFrame:
    """What is asked, what the runs that count do, and whether that is it."""
    runs = [run for seeds in study.cells.values() for run in seeds.runs]
    counts = [len(seeds.runs) for seeds in study.cells.values()]
    episodes = {int(run.config.get("test_nepisode", 0)) for run in runs}
    intervals = {task: {run.test_interval for run in runs if run.task == task} for task in study.tasks}
    longer = {int(run.config.get("absolute_test_nepisode", 0)) for run in runs}
    recorded = sum(metric_names.absolute(study.metric) in run.metrics for run in runs)
    commits = {run.commit for run in runs if run.commit}
    rows = [
        ("independent runs of each algorithm on each map", f"{RECOMMENDED_SEEDS}", span(counts), min(counts) >= 10),
        (
            "environment steps between tests",
            "the same for all on a map",
            "; ".join(f"{task}: {span(found)}" for task, found in intervals.items()),
            all(len(found) == 1 for found in intervals.values()),
        ),
        (
            "greedy episodes in a test",
            f"{TEST_EPISODES}, the same for all",
            span(episodes),
            len(episodes) == 1 and min(episodes) >= TEST_EPISODES,
        ),
        (
            "absolute metric",
            f"best policy of each run, {ABSOLUTE_FACTOR} times the episodes of a test",
            f"recorded by {recorded} of {len(runs)} runs" + (f", {span(longer)} episodes" if recorded else ""),
            recorded == len(runs) and min(longer) >= ABSOLUTE_FACTOR * max(episodes),
        ),
        ("aggregation", "IQM with 95% stratified bootstrap intervals", "the same", True),
        ("one version of the code", "said", ", ".join(sorted(commits)) or "not recorded", len(commits) == 1),
    ]
    table = pd.DataFrame(rows, columns=["what", "protocol", "these runs", "met"])
    return table.assign(met=table["met"].map({True: "yes", False: "no"}))


def span(numbers: set[int] | list[int]) -> str:
    """``3``, or ``2 to 5``."""
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
