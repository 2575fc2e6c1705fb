"""What a Ray worker does for a sweep: it starts one run's process on its machine, and ends it when it is asked to."""

import os
import platform
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a run's process ended: its exit status, and what kept it from being started, if something did."""

    status: int
    why: str = ""


class Host:
    """One run's process on one machine. Lives in a Ray worker of two threads: one waits, one may ask to stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def machine(self) -> str:
        """The machine's name. Answers as soon as Ray has found room for the run."""
        return platform.node()

    def run(self, arguments: list[str], cwd: str, code: str, output: str, gpus: float) -> Ended:
        """Run ``python -m shoal.sweeps.child`` to its end.

        Args:
            arguments: of the module, without this process's number, which is put behind them.
            cwd: working directory.
            code: folder of the package ``shoal``.
            output: file that takes all that is printed.
            gpus: share of GPUs that Ray has set aside; without one the process sees none.
        """
        if not Path(output).parent.is_dir():
            return Ended(
                1, f"{platform.node()} does not see the folder {Path(output).parent}: share it, or use one machine"
            )
        variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [code, variables.get("PYTHONPATH")]))
        variables["PYTHONUNBUFFERED"] = "1"
        variables.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # runs that share a GPU leave each other room
        if not gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, "-m", "shoal.sweeps.child", *arguments, str(os.getpid())]
        with self._lock:
            if self._stopped:
                return Ended(-signal.SIGTERM)
            with open(output, "ab") as out:
                self._process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=variables,
                    stdout=out,
                    stderr=out,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
        return Ended(self._process.wait())

    def stop(self) -> None:
        """Ask the run to save a checkpoint and end."""
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
