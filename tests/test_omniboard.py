"""Omniboard, started as docs/recording.md says, shows a run and its curves to a browser."""

import importlib.util
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from support.launch import MAIN, curves, in_process, wait_until

ROOT = MAIN.parents[1]
START = ROOT / "omniboard" / "start.js"
METRICS = ["return_mean", "test_return_mean"]

pytestmark = pytest.mark.slow


def needed() -> str:
    """What this machine lacks, or nothing."""
    if shutil.which("node") is None:
        return "node is missing"
    if not (START.parent / "node_modules" / "omniboard").is_dir():
        return "Omniboard is not installed (make test-omniboard does)"
    return ""


@pytest.fixture
def omniboard(tmp_path):
    """Starts it on an address; returns its own address and what it says."""
    if lack := needed():
        pytest.skip(f"NOT TESTED with Omniboard: {lack}")
    started = []

    def begin(target, **more):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = tmp_path / "omniboard.log"
        with log.open("w") as out:
            variables = {**os.environ, "SHOAL_MONGO_URL": target, "PORT": str(port), **more}
            started.append(subprocess.Popen(["node", str(START)], env=variables, stdout=out, stderr=out))
        return f"http://127.0.0.1:{port}", log

    yield begin
    for process in started:
        process.kill()
        process.wait()


def says(log, words):
    wait_until(lambda: words in log.read_text(), 120, f"Omniboard to say {words!r}")


def test_a_browser_sees_the_run_and_its_curves(shared_mongo, tmp_path, omniboard):
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("NOT TESTED with Omniboard: playwright is missing (requirements-dev.txt installs it)")
    from support.browse_omniboard import CHROMIUM, browse

    if CHROMIUM is None:
        pytest.skip("NOT TESTED with Omniboard: chromium is missing (apt-get install chromium)")
    args = ["--config=vdn", "--env-config=matrix_game", "with", "runner=episode", "seed=3", "t_max=60", "batch_size=4"]
    args += ["buffer_size=40", "test_nepisode=2", "test_interval=10", "runner_log_interval=10", "name=seen_here"]
    assert in_process(tmp_path, "-m", shared_mongo.target("seen"), *args) == 0
    url, log = omniboard(shared_mongo.target("seen"))
    says(log, "established successfully")
    picture = tmp_path / "omniboard.png"
    text, drawn = browse(url, 1, picture, METRICS)
    for words in ("1 experiments", "seen_here", "COMPLETED", "Metrics Plot", "Captured Out", "Artifacts"):
        assert words in text
    recorded = curves(tmp_path / "results" / "sacred" / "1")
    seen = {one["name"]: list(zip(one["x"], one["y"], strict=True)) for one in drawn}
    assert set(seen) == set(METRICS)
    for name in METRICS:
        assert [step for step, _ in seen[name]] == [step for step, _ in recorded[name]]
        assert [value for _, value in seen[name]] == pytest.approx([value for _, value in recorded[name]])
    assert picture.stat().st_size > 20_000


def test_it_waits_for_a_server_that_is_not_up_yet(own_mongo, omniboard):
    own_mongo.stop()
    _, log = omniboard(own_mongo.target("later"))
    says(log, "Retrying")
    own_mongo.start()
    says(log, "established successfully")


def test_it_listens_on_this_machine_only(shared_mongo, omniboard):
    url, log = omniboard(shared_mongo.target("local"))
    says(log, f"Omniboard: {url}")
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 5):
        pass
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        if not address.startswith("127."):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, port), 5)


@pytest.mark.parametrize(
    ("target", "words"),
    [("a:b:c:d", "SHOAL_MONGO_URL is no address"), ("127.0.0.1:9:x", "is taken: choose another one with PORT=")],
)
def test_it_refuses_in_a_sentence(omniboard, target, words):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        _, log = omniboard(target, PORT=str(taken.getsockname()[1]))
        says(log, words)


def test_the_version_is_pinned():
    assert '"omniboard": "2.16.1"' in (START.parent / "package.json").read_text()
    assert "omniboard/node_modules/" in (Path(ROOT) / ".gitignore").read_text().splitlines()
