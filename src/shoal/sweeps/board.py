"""What a person watching a sweep sees: a table on a terminal, a line for each change elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shoal.recording import metric_names
from shoal.sweeps.folder import Seen
from shoal.sweeps.pool import Job

_LOOK_S = 3.0
_LINE_S = 60.0
_STYLES = {"waiting": "dim", "running": "cyan", "finished": "green", "failed": "red", "stopped": "yellow"}
_ORDER = ("running", "failed", "waiting", "stopped", "finished")


class Board:
    """Shows the jobs while it is active. On a terminal as a table drawn again and again, the running ones first."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._console = console or Console(file=sys.stdout)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._looked_at = self._told_at = time.monotonic()
        self._seen: dict[str, Seen] = {}

    def __enter__(self) -> "Board":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def changed(self, job: Job, jobs: Sequence[Job]) -> None:
        """Tell of a job whose state has changed."""
        name = job.folder.path.name
        again = f" (start {job.starts})" if job.starts > 1 else ""
        match job.state:
            case "running":
                if self._live is None:
                    self.say(f"started   {name}{again}")
            case "finished":
                self.say(f"finished  {name}: {self._result(job)} in {_duration(job.seconds)}; {_counts(jobs)}")
            case "waiting":
                step = job.folder.last_step()
                where = f"from its checkpoint at {step:,}" if step >= 0 else "from the beginning"
                self.say(f"failed    {name}{again}: {job.note}; restarted {where}")
            case "failed":
                self.say(f"FAILED    {name}: {job.note}; its output: {job.folder.output}")
            case "stopped":
                step = job.folder.last_step()
                self.say(
                    f"stopped   {name}, " + (f"with a checkpoint at {step:,}" if step >= 0 else "no checkpoint yet")
                )

    def show(self, jobs: Sequence[Job]) -> None:
        """Draw the table, or now and then a line, with how far the running jobs are."""
        now = time.monotonic()
        if self._live is not None:
            if now - self._looked_at > _LOOK_S or not self._seen:
                self._look(jobs, now)
            self._live.update(self._table(jobs), refresh=True)
        elif now - self._told_at > _LINE_S:
            self._told_at = now
            self._look(jobs, now)
            running = [f"{job.folder.path.name} {self._progress(job)}" for job in jobs if job.state == "running"]
            self.say(f"          {_counts(jobs)}" + (f": {', '.join(running)}" if running else ""))

    def _look(self, jobs: Sequence[Job], now: float) -> None:
        self._looked_at = now
        for job in jobs:
            name = job.folder.path.name
            if job.state == "running" or name not in self._seen:
                self._seen[name] = job.folder.seen()

    def _result(self, job: Job) -> str:
        self._seen[job.folder.path.name] = job.folder.seen()
        return self._score(job) or "no test recorded"

    def _score(self, job: Job) -> str:
        metrics = self._seen.get(job.folder.path.name, Seen()).metrics or {}
        judge = metric_names.judge(metrics)
        if judge not in metrics:
            return ""
        short = "return" if judge == metric_names.TEST_RETURN else "won"
        return f"{short} {metric_names.shown(judge, metrics[judge][1])}"

    def _progress(self, job: Job) -> str:
        share = min(1.0, self._seen.get(job.folder.path.name, Seen()).t_env / max(job.run.t_max, 1))
        return f"{100 * share:.0f}%"

    def _table(self, jobs: Sequence[Job]) -> Table:
        table = Table(title=f"{self._title}: {_counts(jobs)}", title_justify="left", box=None, pad_edge=False)
        for column in ("run", "state", "done", "last test", "time", "starts", "machine", ""):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        rows = sorted(jobs, key=lambda job: _ORDER.index(job.state))
        room = max(3, self._console.height - 5)
        for job in rows[:room]:
            running = time.monotonic() - job.started_at if job.state == "running" else 0.0
            spent = job.seconds + running
            table.add_row(
                job.folder.path.name,
                Text(job.state, style=_STYLES[job.state]),
                "100%" if job.state == "finished" else self._progress(job),
                self._score(job),
                _duration(spent) if spent else "",
                str(job.starts) if job.starts > 1 else "",
                job.machine,
                Text(job.note, style="dim"),
            )
        if len(rows) > room:
            table.add_row(Text(f"... and {len(rows) - room} more", style="dim"))
        return table


def _counts(jobs: Sequence[Job]) -> str:
    counts = Counter(job.state for job in jobs)
    others = ", ".join(
        f"{counts[state]} {state}" for state in ("running", "waiting", "failed", "stopped") if counts[state]
    )
    return f"{counts['finished']} of {len(jobs)} finished" + (f", {others}" if others else "")


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
