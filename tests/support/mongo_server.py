"""A server that speaks MongoDB's protocol (SecantusDB, in a process of its own), to be killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import PyMongoError

PROGRAM = shutil.which("secantusd-py", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


class MongoServer:
    """One server on one folder and one port, so that it comes back as it was."""

    def __init__(self, folder: Path, auth: bool = False) -> None:
        if PROGRAM is None:
            pytest.skip(
                "NOT TESTED against a MongoDB server: secantusd-py is missing (requirements-dev.txt installs it)"
            )
        self.folder, self.auth = folder, auth
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Any] = []

    def target(self, database: str) -> str:
        """Its address, as `-m` takes it."""
        return f"127.0.0.1:{self.port}:{database}"

    def start(self) -> "MongoServer":
        """Returns when it answers."""
        assert PROGRAM is not None
        command = [PROGRAM, "--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(self.folder)]
        command += ["--standalone", "--cache-size", "64M", *(["--auth"] if self.auth else [])]
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder.with_suffix(".log"), "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder.parent)
        deadline = time.monotonic() + 120
        while True:
            try:
                with pymongo.MongoClient(port=self.port, serverSelectionTimeoutMS=500) as client:
                    client.admin.command("ping")
                return self
            except PyMongoError:
                assert self._process.poll() is None, self.folder.with_suffix(".log").read_text()
                assert time.monotonic() < deadline, "the server does not answer"

    def kill(self) -> None:
        """As a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """In order."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def pause(self) -> None:
        """It takes connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """All that it stored; to be called while it is down."""
        shutil.rmtree(self.folder)

    def database(self, name: str) -> Any:
        """A client's view of a database."""
        client: Any = pymongo.MongoClient(port=self.port, serverSelectionTimeoutMS=20_000)
        self._clients.append(client)
        return client[name]

    def close(self) -> None:
        """End it and its clients."""
        for client in self._clients:
            client.close()
        self.stop()


def contents(database: Any) -> dict[str, list[Any]]:
    """Every document of every collection."""
    return {name: list(database[name].find(sort=[("_id", 1)])) for name in sorted(database.list_collection_names())}


def points(database: Any, run_id: Any) -> dict[str, list[tuple[int, float]]]:
    """metric -> (step, value) of a run, read as Omniboard does: from what its document refers to."""
    found = {}
    for reference in database.runs.find_one({"_id": run_id})["info"].get("metrics", []):
        (metric,) = [m for m in database.metrics.find({"run_id": run_id}) if str(m["_id"]) == reference["id"]]
        assert metric["name"] == reference["name"]
        found[metric["name"]] = list(zip(metric["steps"], metric["values"], strict=True))
        assert len(metric["timestamps"]) == len(metric["steps"])
    return found
