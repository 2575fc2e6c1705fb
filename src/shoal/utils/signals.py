"""Ending a run in order: Ctrl-C, SIGTERM and their like ask it to stop at the next safe point."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop by the signal ``signum``; ``checkpoint`` is where it saved what it had, if it did."""

    def __init__(self, signum: int, checkpoint: Path | None = None) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.checkpoint = checkpoint


class StopNow(KeyboardInterrupt):
    """Ctrl-C before there is anything to save, or for the second time: the run ends where it is.

    Not to be confused with a ``KeyboardInterrupt`` that an environment raises.
    """


STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
"""What asks a run to stop: Ctrl-C, a closed terminal, and what batch systems send before they kill (Slurm: SIGTERM, or
what ``--signal`` names, by custom SIGUSR1 or SIGUSR2; PBS and others: SIGXCPU)."""


def handle_stops(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Have ``handler`` called for every stop signal. Returns the handlers before, for ``restore``.

    One that somebody chose to ignore stays ignored: ``nohup`` does so with SIGHUP. (Shells ignore SIGINT for whatever
    they run in the background; one that is sent there is meant all the same.)
    """
    before: dict[int, Any] = {}
    for signum in STOP_SIGNALS:
        current = signal.getsignal(signum)
        if current is None or (current is signal.SIG_IGN and signum not in (signal.SIGINT, signal.SIGTERM)):
            continue
        before[signum] = signal.signal(signum, handler)
    return before


def restore(handlers: Mapping[int, Any]) -> None:
    """Undo ``handle_stops``."""
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


_LOOK_S = 0.5


@contextmanager
def stops_interrupt() -> Iterator[None]:
    """While active, Ctrl-C raises ``StopNow`` and any other stop signal ``Interrupted``: for before there is anything
    to save, and for after.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise StopNow if signum == signal.SIGINT else Interrupted(signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = handle_stops(interrupt)
    try:
        yield
    finally:
        restore(before)


class StopRequest:
    """While active, a stop signal sets ``signum`` instead of ending the process; a second Ctrl-C does end it.

    From then on ``look`` is called now and then, wherever the main thread is: it may raise where that has been for too
    long.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.look: Callable[[], None] | None = None
        self._previous: dict[int, Any] = {}
        self._done = threading.Event()

    def __bool__(self) -> bool:
        return self.signum is not None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = handle_stops(self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        restore(self._previous)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
            if self.look is not None:
                threading.Thread(target=self._remind, name="stop", daemon=True).start()
        elif signum == signal.SIGINT:
            raise StopNow
        elif self.look is not None:
            self.look()

    def _remind(self) -> None:
        """Interrupt the main thread, which alone handles signals, even out of a sleep."""
        while not self._done.wait(_LOOK_S):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer, even a sleep, but no C code that does not listen; in the main thread alone.

    Raises:
        TimeoutError: it took longer.
    """

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took more than {seconds:g} seconds")

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:  # somebody else's alarm clock
        yield
        return
    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def end_with(parent: int, signum: int = signal.SIGTERM) -> None:
    """Have this process sent ``signum`` when the one that started it, ``parent``, ends in whatever way (on Linux).

    The kernel goes by the thread: it must have been started by one that lives as long as the process.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signum)
        if os.getppid() != parent:  # it ended before the request took effect
            os._exit(1)


def signal_name(signum: int) -> str:
    """SIGKILL for 9; a number for a signal without a name."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
