"""One HTML page about a set of runs, which opens offline: pictures are inside it, and nothing is fetched."""

import base64
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
import yaml

from shoal.analysis import plots, tables
from shoal.analysis.comparison import Comparison, compare, seed_notes
from shoal.analysis.protocol import protocol_table
from shoal.analysis.study import Study
from shoal.utils.errors import UserError

SECTIONS = {
    "curves": "Learning curves",
    "scores": "Scores",
    "efficiency": "Efficiency",
    "protocol": "Protocol",
    "failures": "Failures",
    "runs": "Runs",
    "settings": "Settings",
}
STATUSES = {"COMPLETED", "FAILED", "INTERRUPTED", "RUNNING", "DIED"}


class Picture(NamedTuple):
    """An image of the page."""

    src: str
    """Itself, as a data URL."""
    width: int
    """On the screen, in pixels: two thirds of its own, so that it is sharp and its text has the size of the page's."""


def write_report(study: Study, out: Path, threshold: float, title: str = "Report") -> Path:
    """Write the page ``out``.

    Args:
        study: the runs.
        out: the HTML file.
        threshold: normalised score whose first reaching is the efficiency.
        title: its heading.

    Raises:
        UserError: ``out`` cannot be written.
    """
    comparison: Comparison | None = None
    no_aggregates = ""
    try:
        comparison = compare(study)
    except UserError as error:
        no_aggregates = str(error)
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("report.html")
    page = template.render(
        title=title,
        facts=_facts(study),
        sections=list(SECTIONS.items()),
        notes=comparison.notes if comparison else seed_notes(study),
        pictures=_pictures(study, comparison, threshold),
        tables={name: tables.shown(table) for name, table in _tables(study, comparison, threshold).items()},
        normalisation=plots.normalisation(study, study.tasks),
        common=", ".join(comparison.tasks) if comparison else "",
        bootstrap=plots.BOOTSTRAP,
        no_aggregates=no_aggregates,
        metric=study.metric,
        differing=", ".join(study.differing),
        settings=_settings(study),
        statuses=STATUSES,
        numbers=re.compile(r"-$|-?[\d.,]+(e-?\d+)?( \[.*\])?$"),
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"The page {out} cannot be written ({error.strerror}): name another with --out.") from error
    return out


def _facts(study: Study) -> str:
    statuses = Counter(run.status for run in study.runs)
    counted = sum(len(seeds.runs) for seeds in study.cells.values())
    said = ", ".join(f"{n} {status}" for status, n in statuses.most_common())
    return (
        f"{_number(len(study.runs), 'run')} ({said}), {counted} of them count, of "
        f"{_number(len(study.algorithms), 'algorithm')} on {_number(len(study.tasks), 'map')}; judged by "
        f"{study.metric}. Written {datetime.now():%Y-%m-%d %H:%M}."
    )


def _number(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _pictures(study: Study, comparison: Comparison | None, threshold: float) -> dict[str, Picture]:
    """Name -> every picture that can be drawn of the study."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "picture.png"

        def drawn(draw: Callable[..., Path], *args: Any) -> Picture:
            content = draw(*args).read_bytes()
            width = int.from_bytes(content[16:20])  # where a PNG says it
            return Picture("data:image/png;base64," + base64.b64encode(content).decode(), width * 2 // 3)

        pictures = {
            "curves": drawn(plots.curves, study, out),
            "efficiency": drawn(plots.efficiency, study, threshold, out),
        }
        if study.has_clock:
            pictures["hours"] = drawn(plots.curves, study, out, "hours")
        if comparison:
            pictures["aggregates"] = drawn(plots.aggregates, study, comparison, out)
            pictures["profiles"] = drawn(plots.profiles, study, comparison, out)
            if len(comparison.scores) > 1:
                pictures["improvements"] = drawn(plots.improvements, study, comparison, out)
    return pictures


def _tables(study: Study, comparison: Comparison | None, threshold: float) -> dict[str, pd.DataFrame]:
    made = {
        "scores": tables.scores_table(study),
        "efficiency": tables.efficiency_table(study, threshold),
        "protocol": protocol_table(study),
        "runs": tables.runs_table(study.runs, study.metric),
    }
    if comparison:
        made["aggregates"] = tables.aggregates_table(comparison)
        made["improvements"] = tables.improvements_table(comparison)
    failures = failures_table(study)
    return made | ({"failures": failures} if len(failures) else {})


def failures_table(study: Study) -> pd.DataFrame:
    """Runs that do not count, with the reason, and those that count but did not end as they should."""
    reasons = {id(left.run): f"does not count: {left.reason}" for left in study.left_out}
    rows = []
    for k, run in enumerate(study.runs):
        reason = reasons.get(id(run), "")
        if reason or run.status != "COMPLETED":
            row = {"run": run.id, "algorithm": study.names[k], "map": run.task, "seed": run.config.get("seed")}
            rows.append(
                row | {"status": run.status, "what": reason or "counts all the same", "error": run.failure or None}
            )
    return pd.DataFrame(rows)


def _settings(study: Study) -> list[tuple[str, str]]:
    """All settings of each algorithm on each map, from the first of its runs."""
    found: dict[str, str] = {}
    for k, run in enumerate(study.runs):
        name = f"{study.names[k]} on {run.task} (run {run.id})"
        if not any(key.startswith(f"{study.names[k]} on {run.task} (") for key in found):
            found[name] = yaml.safe_dump(run.config, sort_keys=True)
    return list(found.items())
