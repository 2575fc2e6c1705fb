"""Ray, joined or started quietly: nothing is reported to anybody, and the signal handlers stay ours."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shoal.utils.errors import UserError
from shoal.utils.extras import needed_for
from shoal.utils.signals import STOP_SIGNALS, restore

_OBJECT_STORE_BYTES = 100 * 2**20  # what is sent is observations and settings
_KNOCK_S = 10.0
_STARTS = 4
HERE = "local"
"""The address that means: start Ray on this machine, for this process alone."""


@dataclass(frozen=True)
class Machine:
    """One machine of a Ray cluster and what it has in all, free or not."""

    name: str
    cpus: float
    gpus: float

    def room_for(self, cpus: float, gpus: float) -> int:
        """How many workers that need so much it holds."""
        fits = [int(have / need + 1e-9) for have, need in ((self.cpus, cpus), (self.gpus, gpus)) if need > 0]
        return min(fits)


@contextmanager
def joined(address: str, num_cpus: float | None = None) -> Iterator[Any]:
    """The module ``ray``, connected to the cluster at ``address`` (HOST:PORT, "auto" or ``HERE``) while this is active.

    ``num_cpus`` is what Ray started here counts with; None takes the machine's.

    Raises:
        UserError: Ray is not installed, is in use by this process already, or the cluster cannot be reached.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read on import and by every process that Ray starts
    with needed_for("Ray", "sweeps"):
        import ray
    if ray.is_initialized():
        raise UserError("This process is connected to a Ray cluster already: it can use one at a time.")
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address == HERE:
        options |= {"num_cpus": num_cpus, "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    with _handlers_kept():
        try:
            _knock(address)
            _init(ray, options)
        except Exception as error:
            why = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
            if address == HERE:
                raise UserError(f"Ray could not be started here: {why}.") from error
            raise UserError(
                f"No Ray cluster can be used at {address!r} ({why}): start one with 'ray start --head', and give its "
                "HOST:PORT, or auto on its machines; set RAY_AUTH_MODE=token for one that asks for a key."
            ) from error
    try:
        yield ray
    finally:
        with _handlers_kept():
            ray.shutdown()


def _init(ray: Any, options: dict[str, Any]) -> None:
    """Connect. Ray that is started on a busy machine gives itself half a minute only, so it may try again."""
    for left in reversed(range(_STARTS if options["address"] == HERE else 1)):
        try:
            ray.init(**options)
            return
        except Exception:
            ray.shutdown()
            if not left:
                raise


def _knock(address: str) -> None:
    """Fail at once where nothing listens: Ray would try for many minutes, deaf to Ctrl-C."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put back the signal handlers that Ray replaces by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    try:
        yield
    finally:
        restore({signum: handler for signum, handler in before.items() if handler is not None})


def machines(ray: Any) -> list[Machine]:
    """The machines of the cluster that are up."""
    return [
        Machine(node["NodeManagerHostname"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]
