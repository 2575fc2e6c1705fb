"""What a person watching a run sees."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shoal.recording import metric_names
from shoal.recording.console_text import duration, sparkline, speed, test_text

_DRAW_INTERVAL_S = 0.5
_LIFT_INTERVAL_S = 0.1
_SAMPLE_INTERVAL_S = 0.5
_SPEED_WINDOW_S = 30.0
_SPARKLINE_LENGTH = 30


class Console:
    """A live display on a terminal, plain lines elsewhere.

    The live display (progress bar, speed, time left, last test) is drawn on the real terminal,
    past sacred's capture, and is gone when it closes. Permanent lines go through `sys.stdout`,
    looked up when they are written, so sacred records them; they scroll by above the display.
    So does everything that others print to `sys.stdout` or `sys.stderr` in the meantime.
    The cursor is never hidden: even a killed run leaves a usable terminal.

    Where there is no terminal, a progress line is printed at most every `plain_interval_s`
    seconds, and one line per test.

    Nothing here raises when a terminal or a pipe goes away: the run matters more than its display.

    Args:
        t_max: Environment steps at which the run ends.
        live: Draw the live display; None decides from the terminal behind `stream`.
        plain_interval_s: Seconds between two progress lines where there is no live display.
        stream: Terminal for the live display; None for `sys.__stderr__`.
        t_start: Environment steps already taken when the run started (not 0 after a resume).
        clock: Seconds from any monotonic origin.
    """

    def __init__(
        self,
        t_max: int,
        live: bool | None = None,
        plain_interval_s: float = 30.0,
        stream: TextIO | None = None,
        t_start: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.t_max = t_max
        self._clock = clock
        self._plain_interval_s = plain_interval_s
        self._state: tuple[int, int, Mapping[str, float]] = (t_start, 0, {})
        self._tests: list[float] = []
        self._last_test = ""
        self._last_test_t_env = t_start

        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._lifted = 0
        self._rows = 0
        self._drawn_at = 0.0
        self._stream = stream if stream is not None else sys.__stderr__
        self._wanted_live = live
        self._closed = True
        self.open()

    def open(self) -> None:
        """Shows progress, also again after `close`; elapsed time and speed count from here. The constructor opens."""
        if not self._closed:
            return
        self.t_start = self._state[0]
        self._start = self._clock()
        self._next_plain = self._start + self._plain_interval_s
        self._next_sample = self._start
        self._samples: deque[tuple[float, int]] = deque([(self._start, self.t_start)])
        self._moved = False
        self._closed = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._proxies: list[tuple[str, _AboveTheDisplay]] = []
        wanted = self._wanted_live
        self._live = _can_be_live(self._stream) if wanted is None else wanted and self._stream is not None
        if self._live:
            self._rich = RichConsole(file=self._stream, force_terminal=True, highlight=False)
            for name in ("stdout", "stderr"):
                proxy = _AboveTheDisplay(getattr(sys, name), self)
                setattr(sys, name, proxy)
                self._proxies.append((name, proxy))
            self._thread = threading.Thread(target=self._keep_drawing, name="console", daemon=True)
            self._thread.start()
        atexit.register(self.close)

    # What the experiment tells us.

    def progress(self, t_env: int, episode: int, latest: Mapping[str, float]) -> None:
        """Says how far the run is. Cheap: call it after every episode.

        Args:
            t_env: Environment steps taken so far, those before a resume included.
            episode: Episodes finished so far.
            latest: The last value of every metric (`Logger.latest`).
        """
        self._state = (t_env, episode, latest)
        self._moved = True
        now = self._clock()
        if now < self._next_sample:
            return
        self._next_sample = now + _SAMPLE_INTERVAL_S
        self._samples.append((now, t_env))
        while len(self._samples) > 2 and self._samples[0][0] < now - _SPEED_WINDOW_S:
            self._samples.popleft()
        if not self._live and not self._closed and now >= self._next_plain:
            self._next_plain = now + self._plain_interval_s
            self.print(self._plain_line())

    def test_result(self, t_env: int, metrics: Mapping[str, float]) -> None:
        """Leaves one permanent line about a test.

        Args:
            t_env: Environment steps taken when the test began.
            metrics: Those of a test, by their names (`metric_names`). Means over episodes are shown: the return first,
                then the win rate, then the rest, episode length last (shares of kinds of action are for the record
                alone).
        """
        text = test_text(metrics)
        judge = metric_names.judge(metrics)
        with self._lock:
            self._tests += [metrics[judge]] if judge in metrics else []
            self._last_test, self._last_test_t_env = text, t_env
        self.print(f"test at t_env {t_env:,}: {text or 'no metrics'}")

    def print(self, text: str) -> None:
        """Writes `text` and a line end to `sys.stdout`, above the live display."""
        with self._lifted_display():
            _write(sys.stdout, text + "\n")

    def warn(self, text: str) -> None:
        """Prints `text`, marked as a warning."""
        self.print(f"warning: {text}")

    def close(self) -> None:
        """Removes the live display, gives `sys.stdout` and `sys.stderr` back and says where the run stopped.

        May be called more than once; `print`, `warn` and `test_result` still work afterwards.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._stop.set()
        with self._lock:
            self._closed = True
            self._erase()
            self._live = False
            for name, proxy in self._proxies:
                proxy.finish()
                # Where someone put a stream over ours in the meantime, ours stays below and only passes on.
                if getattr(sys, name) is proxy:
                    setattr(sys, name, proxy.wrapped)
        if self._thread is not None:
            self._thread.join(timeout=2)
        atexit.unregister(self.close)
        if self._moved:
            self.print(self._closing_line())

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Numbers.

    def steps_per_second(self) -> float | None:
        """Environment steps per second over the last half minute; None before there are any."""
        samples = list(self._samples)
        (t0, steps0), (t1, steps1) = samples[0], samples[-1]
        return (steps1 - steps0) / (t1 - t0) if t1 > t0 else None

    def seconds_left(self) -> float | None:
        """Seconds to `t_max` at the mean speed since the start, tests included; None while unknown."""
        done = self._state[0] - self.t_start
        left = max(self.t_max - self._state[0], 0)
        elapsed = self._clock() - self._start
        return left * elapsed / done if done > 0 else None

    # Plain lines.

    def _numbers(self) -> list[tuple[str, str]]:
        latest = dict(self._state[2])
        numbers = []
        if "return_mean" in latest:
            numbers.append(("return", metric_names.number(latest["return_mean"])))
        if "epsilon" in latest:
            numbers.append(("epsilon", f"{latest['epsilon']:.3f}"))
        losses = [name for name in latest if name.startswith("loss")]
        loss = next((name for name in ("loss_td", "loss", *losses) if name in latest), None)
        if loss is not None:
            numbers.append(("loss", metric_names.number(latest[loss])))
        return numbers

    def _percent(self) -> float:
        return 100 * min(self._state[0] / self.t_max, 1) if self.t_max > 0 else 100.0

    def _plain_line(self) -> str:
        t_env, episode, _ = self._state
        parts = [
            f"t_env {t_env:,} of {self.t_max:,} ({self._percent():.1f}%)",
            f"episode {episode:,}",
            speed(self.steps_per_second()),
            f"{duration(self._clock() - self._start)} elapsed",
            f"{duration(self.seconds_left())} left",
            *(f"{name} {value}" for name, value in self._numbers()),
        ]
        return ", ".join(parts)

    def _closing_line(self) -> str:
        t_env, episode, _ = self._state
        elapsed = self._clock() - self._start
        mean = (t_env - self.t_start) / elapsed if elapsed > 0 else None
        verb = "finished" if t_env >= self.t_max else "stopped"
        return (
            f"{verb} at t_env {t_env:,} of {self.t_max:,} after {duration(elapsed)}, episode {episode:,}, {speed(mean)}"
        )

    # The live display: draw, lift, put back.

    def _keep_drawing(self) -> None:
        while not self._stop.wait(_DRAW_INTERVAL_S):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if not self._live or self._lifted or self._closed:
            return
        # One column stays free: text in the last one would make some terminals wrap.
        width = max(self._rich.width - 1, 20)
        try:
            with self._rich.capture() as capture:
                for row in self._frame(width):
                    self._rich.print(row, width=width, no_wrap=True, overflow="ellipsis", crop=True)
            text = capture.get()
        except Exception:  # a display that cannot be drawn is no reason to stop a run
            self._live = False
            return
        # Erasing and drawing in one write does not flicker.
        self._live = _write(self._stream, self._erasure() + text)
        self._rows = text.count("\n")
        self._drawn_at = time.monotonic()

    def _erasure(self) -> str:
        return f"\r\x1b[{self._rows}A\x1b[J" if self._rows else ""

    def _erase(self) -> None:
        if self._rows:
            _write(self._stream, self._erasure())
            self._rows = 0

    @contextmanager
    def _lifted_display(self) -> Iterator[None]:
        # A forked worker inherits the lock, perhaps held, and no drawing thread: it has nothing to lift.
        if os.getpid() != self._pid:
            yield
            return
        with self._lock:
            self._erase()
            self._lifted += 1
            try:
                yield
            finally:
                self._lifted -= 1
                # A flood of lines is not slowed down by as many drawings: the thread will do it.
                if time.monotonic() - self._drawn_at > _LIFT_INTERVAL_S:
                    self._draw()

    def _frame(self, width: int) -> list[Table | Text]:
        t_env, episode, _ = self._state
        first = Table.grid(padding=(0, 2), expand=True)
        cells: list[Any] = []
        if width >= 90:
            first.add_column(ratio=1, no_wrap=True)
            cells.append(ProgressBar(total=max(self.t_max, 1), completed=t_env))
        cells += [
            Text(f"{self._percent():.1f}%", style="bold"),
            Text(f"{t_env:,}/{self.t_max:,}"),
            Text(speed(self.steps_per_second())),
            Text(f"{duration(self._clock() - self._start)} elapsed"),
            Text(f"{duration(self.seconds_left())} left", style="cyan"),
        ]
        for _ in range(5):
            first.add_column(no_wrap=True, overflow="ellipsis")
        first.add_row(*cells)

        second = Text()
        for name, value in [("episode", f"{episode:,}"), *self._numbers()]:
            second.append(f"{name} ", style="dim").append(f"{value}   ")
        rows: list[Table | Text] = [first, second]
        if self._last_test:
            third = Text().append("last test ", style="dim").append(self._last_test)
            third.append(f"  at {self._last_test_t_env:,}", style="dim")
            encoding = (getattr(self._stream, "encoding", None) or "").lower()
            if len(self._tests) > 1 and encoding.startswith("utf"):
                third.append("  " + sparkline(self._tests[-_SPARKLINE_LENGTH:]), style="green")
            rows.append(third)
        return rows


class _AboveTheDisplay:
    """Stands for `sys.stdout` or `sys.stderr` while the display is live: whole lines pass above it."""

    def __init__(self, wrapped: TextIO, console: Console) -> None:
        self.wrapped = wrapped
        self._console = console
        self._partial = ""

    def write(self, text: str) -> int:
        console = self._console
        if console._closed or os.getpid() != console._pid:
            return self.wrapped.write(text)
        with console._lock:
            lines, end, self._partial = (self._partial + text).rpartition("\n")
            if end:
                with console._lifted_display():
                    self.wrapped.write(lines + end)
                    self.wrapped.flush()
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        self.write("".join(lines))

    def finish(self) -> None:
        """Lets out a line that never ended."""
        if self._partial:
            _write(self.wrapped, self._partial + "\n")
            self._partial = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


def _can_be_live(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    except ValueError:  # closed
        return False


def _write(stream: TextIO | None, text: str) -> bool:
    """Writes and flushes; False if the stream is gone."""
    if stream is None:
        return False
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):  # hung up, broken pipe, closed file
        return False
    return True
