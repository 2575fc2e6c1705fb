"""docker/docker-compose.yml: it can be read, and everything that it names is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from shoal.recording.mongo import connect
from shoal.recording.mongo_address import MONGO_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docker"
FILE = FOLDER / "docker-compose.yml"


@pytest.fixture
def services():
    return yaml.safe_load(FILE.read_text())["services"]


def filled_in(text, given):
    """The text with its ${...}, as compose does it."""

    def value(match):
        name, fallback = match[1], match[2]
        return given.get(name) or fallback or ""

    return re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", value, text)


def test_it_has_a_server_a_board_and_a_trainer(services):
    assert set(services) == {"mongo", "omniboard", "trainer"}
    assert services["trainer"]["profiles"] == ["train"]


def test_what_is_built_is_there(services):
    omniboard, trainer = services["omniboard"]["build"], services["trainer"]["build"]
    assert (FOLDER / omniboard / "Dockerfile").is_file()
    context = FOLDER / trainer["context"]
    assert (context / trainer["dockerfile"]).is_file()
    declared = re.findall(r"^ARG (\w+)", (context / trainer["dockerfile"]).read_text(), re.MULTILINE)
    assert set(trainer["args"]) <= set(declared)
    for folder in (FOLDER / omniboard, context):
        dockerfile = folder / ("Dockerfile" if folder != context else trainer["dockerfile"])
        for copied in re.findall(r"^COPY (?:--\S+ )*(\S+) ", dockerfile.read_text(), re.MULTILINE):
            assert (folder / copied).exists()


def test_results_are_where_the_image_writes_them(services):
    (volume,) = services["trainer"]["volumes"]
    outside, inside = volume.split(":")
    assert (FOLDER / outside).resolve() == ROOT / "results"
    assert f"VOLUME {inside}\n" in (FOLDER / "Dockerfile").read_text()
    data = yaml.safe_load(FILE.read_text())["volumes"]
    assert {volume.split(":")[0] for volume in services["mongo"]["volumes"]} <= set(data)


def test_who_waits_for_whom(services):
    for name in ("omniboard", "trainer"):
        assert services[name]["depends_on"] == {"mongo": {"condition": "service_healthy"}}
    assert "healthcheck" in services["mongo"]


def test_nothing_is_open_to_other_machines(services):
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_address_is_one_that_we_take_and_the_password_is_asked_for(services):
    urls = {services[name]["environment"][MONGO_VARIABLE] for name in ("omniboard", "trainer")}
    (url,) = urls
    database = connect(filled_in(url, {"MONGO_PASSWORD": "s3cret"}))
    assert database.runs.full_name == "sacred.runs"
    assert database.shown == "mongodb://***@mongo:27017/sacred"
    assert "MONGO_PASSWORD:?" in services["mongo"]["environment"]["MONGO_INITDB_ROOT_PASSWORD"]
    assert "docker/.env" in (ROOT / ".gitignore").read_text().splitlines()
    names = re.findall(r"^(\w+)=", (FOLDER / ".env.example").read_text(), re.MULTILINE)
    assert set(names) <= set(re.findall(r"\$\{(\w+)", FILE.read_text()))
    assert "MONGO_PASSWORD=\n" in (FOLDER / ".env.example").read_text()


def test_compose_itself_takes_it(tmp_path):
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("NOT TESTED with docker compose: it is missing")
    (tmp_path / "env").write_text("MONGO_PASSWORD=s3cret\n")
    command = [
        "docker",
        "compose",
        "--env-file",
        str(tmp_path / "env"),
        "-f",
        str(FILE),
        "--profile",
        "train",
        "config",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
