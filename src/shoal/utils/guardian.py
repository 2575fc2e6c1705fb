"""No process outlives the one that it works for, wherever it has hidden: a mark in its environment gives it away.

A process started by a marked one inherits the mark, in a session of its own and after its parents have ended too. Run
as a script, this file waits for the process that started it to end, however it ends, and kills what bears the mark.
It imports the standard library alone, to be small and there at once.

    python -I -S guardian.py MARK PARENT_PID
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

VARIABLE = "SHOAL_WORKS_FOR"
_LOOK_S = 0.25


def marked(mark: str) -> list[int]:
    """The processes on this machine whose mark begins with ``mark``; none where there is no /proc (not Linux)."""
    wanted = f"\0{VARIABLE}={mark}".encode()
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    environment = b"\0" + file.read()
            except OSError:  # it has ended, or is not ours
                continue
            if wanted in environment and int(name) != os.getpid():
                found.append(int(name))
    return found


def end_marked(mark: str, patience_s: float = 5.0) -> None:
    """Kill every process whose mark begins with ``mark``, and those that they start meanwhile."""
    deadline = time.monotonic() + patience_s
    clean = 0
    while clean < 2 and time.monotonic() < deadline:  # one that is just being started bears no mark for a moment
        alive = marked(mark)
        clean = 0 if alive else clean + 1
        for pid in alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


class Guardian:
    """Watches over what this process starts while ``marking``, in a process of its own that outlives this one.

    Raises:
        OSError: it cannot be started (too many processes or open files).
    """

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self.mark, str(os.getpid())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # whoever reads the run's output waits for its end
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @contextlib.contextmanager
    def marking(self, name: str = "") -> Iterator[None]:
        """What is started meanwhile bears the mark, and ``name`` behind it."""
        from multiprocessing import resource_tracker  # which the script has no use for

        resource_tracker.ensure_running()  # now, unmarked: it clears up after all others
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = f"{self.mark}-{name}-"
        try:
            yield
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before

    def end(self, name: str) -> None:
        """Kill what bears the mark and ``name``."""
        end_marked(f"{self.mark}-{name}-")

    def close(self) -> None:
        """Kill all that bears the mark, and stop watching."""
        end_marked(self.mark)
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def unmarked() -> Iterator[None]:
    """What is started meanwhile outlives the one that it works for: a service that sees to its own end."""
    mark = os.environ.pop(VARIABLE, None)
    try:
        yield
    finally:
        if mark is not None:
            os.environ[VARIABLE] = mark


def main(mark: str, parent: int) -> None:
    """Wait for the end of ``parent``, then leave nothing that bears ``mark``."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
        signal.signal(signum, signal.SIG_IGN)  # a batch system sends them to every process of a job
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    end_marked(mark)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
