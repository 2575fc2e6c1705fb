"""What a reproduction ends with: pictures, its table, and a verdict next to each of the paper's claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.reproduce.declaration import Reproduction, Trained, Verdict

if TYPE_CHECKING:
    from shoal.analysis.records import RecordedRun

TABLE, VERDICT = "table", "verdict.md"
TOO_SHORT = "--quick runs are too short to judge a claim by"


def write(reproduction: Reproduction, trained: Trained, quick: bool = False) -> tuple[list[Verdict], list[Path]]:
    """Draw the pictures, write the table and the verdicts.

    Returns:
        The verdicts, and all files that were written.

    Raises:
        UserError: the folder cannot be written to, or a run recorded nothing to draw.
    """
    from shoal.analysis import tables  # pandas takes a second to import

    tables.make_folder(trained.out)
    pictures = reproduction.draw(trained)
    notes = [text for text in (reproduction.note, interruptions(trained.all)) if text]
    written = tables.write(reproduction.tabulate(trained), trained.out / TABLE, "\n\n".join(notes))
    verdicts = reproduction.judge(trained)
    if quick:
        verdicts = [replace(verdict, holds=None, found=f"{verdict.found} ({TOO_SHORT})") for verdict in verdicts]
    verdict = tables.write_text(as_markdown(reproduction, verdicts, notes), trained.out / VERDICT)
    return verdicts, [*pictures, *written, verdict]


def as_markdown(reproduction: Reproduction, verdicts: list[Verdict], notes: list[str]) -> str:
    """The page with the verdicts."""
    lines = [
        f"# {reproduction.paper}, {reproduction.figure}",
        "",
        f"{reproduction.claim} The paper's numbers: {reproduction.paper_numbers}",
        "",
        "| the paper's claim | here | verdict |",
        "| --- | --- | --- |",
        *(f"| {verdict.claim} | {verdict.found} | **{verdict.word}** |" for verdict in verdicts),
    ]
    return "\n".join([*lines, *(f"\n{note}" for note in notes)]) + "\n"


def interruptions(runs: list[RecordedRun]) -> str:
    """What resuming has done to the runs: without its replay memory a run continues as another one would."""
    changed = [run for run in runs if len(run.records) > 1 and not run.config.get("save_buffer")]
    if not changed:
        return ""
    return (
        f"{len(changed)} of {len(runs)} runs were stopped and resumed from a checkpoint without their replay memory: "
        "uninterrupted ones would differ a little."
    )
