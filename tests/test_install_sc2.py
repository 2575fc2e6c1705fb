"""install_sc2.sh, run for real against a server on this machine that holds small stand-ins for the archives."""

import hashlib
import io
import os
import re
import shutil
import subprocess
import threading
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "install_sc2.sh"
ABSENT = [tool for tool in ("bash", "curl", "unzip") if shutil.which(tool) is None]
needs_tools = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {' '.join(ABSENT)}")

SMAC_MAPS = re.findall(r"\w+", re.findall(r"^smac_maps=\(([^)]*)\)", SCRIPT.read_text(), re.MULTILINE)[0])
COMM_MAPS = ("1o_10b_vs_1r", "1o_2r_vs_4r", "5z_vs_1ul", "bane_vs_hM")


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


def game(build: str = "75689") -> bytes:
    # Does not compress, so that there is something to interrupt.
    data = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(250)) * 25
    return archive({f"StarCraftII/Versions/Base{build}/SC2_x64": b"binary", "StarCraftII/SC2Data/data": data})


class Server(ThreadingHTTPServer):
    """Serves `files`, notes what was asked for, and misbehaves on request.

    Attributes:
        requests: Method, path and Range header of each request.
        cut: By path, the byte at which the connection breaks.
        cuts: How many times it still does.
        ranges: Whether a request for a part of a file gets that part, or the whole file.
        claims: By path, the size that is told in the place of the true one.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut: dict[str, int] = {}
        self.cuts = 1
        self.ranges = True
        self.claims: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def got(self, path: str) -> list[str | None]:
        """The ranges that were asked for of one file."""
        return [wanted for method, asked, wanted in self.requests if (method, asked) == ("GET", path)]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.command, self.path, wanted))
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        size = len(content) - start
        self.send_header("Content-Length", str(size if body else server.claims.get(self.path, size)))
        self.end_headers()
        if not body:
            return
        end = len(content)
        if self.path in server.cut and server.cuts > 0:
            server.cuts -= 1
            end = server.cut[self.path]
            self.close_connection = True
        self.wfile.write(content[start:end])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.files = {
        "/game.zip": game(),
        # What a Mac adds to an archive is no map.
        "/smac.zip": archive(
            {f"SMAC_Maps/{name}.SC2Map": b"smac" for name in SMAC_MAPS} | {"__MACOSX/SMAC_Maps/._3m.SC2Map": b"mac"}
        ),
        "/smacv2.zip": archive({"SMAC_Maps/32x32_flat.SC2Map": b"smacv2", "SMAC_Maps/3m.SC2Map": b"smacv2"}),
        **{f"/comm/{name}.SC2Map": name.encode() for name in COMM_MAPS},
    }
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


class Install:
    """Runs the script for a folder `games/StarCraftII` that nobody else uses."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.server = server
        self.games = folder / "games"
        self.target = self.games / "StarCraftII"
        self.work = self.games / ".StarCraftII.install"
        self.script = folder / "install_sc2.sh"
        self.script.write_text(SCRIPT.read_text())
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "SC2PATH": str(self.target),
            "SC2_GAME_URL": f"{server.url}/game.zip",
            "SMAC_MAPS_URL": f"{server.url}/smac.zip",
            "SMACV2_MAPS_URL": f"{server.url}/smacv2.zip",
            "SMAC_COMM_MAPS_URL": f"{server.url}/comm",
        }

    def trust_the_stand_ins(self) -> None:
        """Puts their checksums in the place of the real ones."""
        text = self.script.read_text()
        for name, path in [
            ("sha256_of_4_10", "/game.zip"),
            *((f"[{name}]", f"/comm/{name}.SC2Map") for name in COMM_MAPS),
        ]:
            ours = hashlib.sha256(self.server.files[path]).hexdigest()
            text, found = re.subn(rf"{re.escape(name)}=[0-9a-f]{{64}}", f"{name}={ours}", text)
            assert found == 1
        self.script.write_text(text)

    def __call__(self, *options: str, python: bool = False) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(self.script), *options, *([] if python else ["--no-python"])]
        return subprocess.run(
            command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
        )

    def maps(self, folder: str = "SMAC_Maps") -> dict[str, bytes]:
        return {path.stem: path.read_bytes() for path in (self.target / "Maps" / folder).iterdir()}

    def has_game(self) -> bool:
        return any(self.target.glob("Versions/Base*/SC2_x64"))

    def leftovers(self) -> list[str]:
        """What lies beside the game, and hidden things among the maps."""
        beside = [path.name for path in self.games.iterdir() if path != self.target] if self.games.exists() else []
        return beside + [path.name for path in self.target.glob("Maps/**/.*")]


@pytest.fixture
def untrusting(tmp_path: Path, server: Server) -> Install:
    """The script as it is: it knows the checksums of the real files."""
    return Install(tmp_path, server)


@pytest.fixture
def install(untrusting: Install) -> Install:
    untrusting.trust_the_stand_ins()
    return untrusting


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One sentence on stderr, which tells what to do."""
    assert result.returncode == 1, result.stdout + result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("install_sc2.sh: ")]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


def succeeded(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    assert "missing" not in result.stdout
    return result.stdout


@needs_tools
def test_a_fresh_install_and_a_second_that_does_nothing(install: Install) -> None:
    before = install("--check")
    assert before.returncode == 1
    assert before.stdout.count("missing") == 4
    assert f"SC2PATH={install.target} ./install_sc2.sh --version 4.10 --no-python" in before.stdout
    assert f"SC2PATH={install.target} ./install_sc2.sh --maps-only" in before.stdout
    assert not install.server.requests
    assert not install.games.exists()

    output = succeeded(install("--accept-eula"))
    assert "AI and Machine Learning License" in output
    assert "0.2 MB" in output  # how large, before it is fetched
    assert f"export SC2PATH={install.target}" in output
    assert (install.target / "Versions/Base75689/SC2_x64").read_bytes() == b"binary"
    assert len(SMAC_MAPS) == 23
    # A map of SMAC keeps its place when SMACv2's archive has one of the same name.
    assert install.maps() == {
        **dict.fromkeys(SMAC_MAPS, b"smac"),
        "32x32_flat": b"smacv2",
        **{name: name.encode() for name in COMM_MAPS},
    }
    assert install.leftovers() == []

    install.server.requests.clear()
    assert "nothing to do" in succeeded(install())
    after = succeeded(install("--check"))
    assert "4.10 in" in after
    assert after.count("ok ") == 4
    assert not install.server.requests


@needs_tools
@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_goes_on_by_itself(install: Install, ranges: bool) -> None:
    install.server.cut, install.server.ranges = {"/game.zip": 50_000}, ranges
    succeeded(install("--accept-eula"))
    asked = install.server.got("/game.zip")
    # A server that cannot go on in the middle is asked for everything again.
    assert asked == ([None, "bytes=50000-"] if ranges else [None, "bytes=50000-", None])
    assert install.has_game()
    assert install.leftovers() == []


@needs_tools
def test_a_download_that_stopped_goes_on_in_the_next_run(install: Install) -> None:
    install.server.cut, install.server.cuts = {"/game.zip": 50_000}, 1000
    refused(install("--accept-eula"), "run the same command again")
    assert not install.target.exists()
    assert (install.work / "SC2.4.10.zip.part").stat().st_size == 50_000
    install.server.cuts = 0
    install.server.requests.clear()
    succeeded(install("--accept-eula"))
    assert install.server.got("/game.zip") == ["bytes=50000-"]
    assert install.has_game()
    assert install.leftovers() == []


@needs_tools
def test_what_is_not_the_published_game_is_refused(untrusting: Install) -> None:
    refused(untrusting("--accept-eula"), "wrong checksum", "run again")
    assert not untrusting.target.exists()
    assert untrusting.leftovers() == []


@needs_tools
def test_a_map_that_is_not_the_published_one_is_refused(untrusting: Install) -> None:
    refused(untrusting("--maps-only"), "comm/1o_10b_vs_1r.SC2Map", "wrong checksum")
    assert not set(COMM_MAPS) & set(untrusting.maps())
    assert untrusting.leftovers() == []


@needs_tools
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>an error page</html>", "no whole archive"),
        (game()[:-2000], "no whole archive"),
        (game("75689"), "holds 4.10, not 4.6.2"),
        (archive({"readme": b""}), "no Versions/Base*/SC2_x64"),
    ],
)
def test_an_archive_without_a_checksum_is_looked_at(install: Install, content: bytes, words: str) -> None:
    install.server.files["/game.zip"] = content
    refused(install("--accept-eula", "--version", "4.6.2"), words)
    assert not install.target.exists()
    assert not (install.work / "unpack").exists()


@needs_tools
def test_a_version_without_a_checksum_says_so(install: Install) -> None:
    install.server.files["/game.zip"] = game("69232")
    assert "no checksum is published for 4.6.2" in succeeded(install("--yes", "--version=4.6.2"))
    assert (install.target / "Versions/Base69232").is_dir()
    # The two versions do not share a folder, and their results do not compare.
    refused(install("--yes", "--version", "4.10"), "holds 4.6.2, not 4.10", f"SC2PATH={install.target}-4.10")
    assert install("--check", "--version", "4.10").returncode == 1
    assert install("--check").returncode == 0


@needs_tools
@pytest.mark.skipif(shutil.which("zip") is None, reason="not installed: zip")
def test_the_password_opens_the_archive(install: Install, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(game())) as zipped:
        zipped.extractall(tmp_path)
    subprocess.run(
        ["zip", "-qr", "-P", "iagreetotheeula", "locked.zip", "StarCraftII"], cwd=tmp_path, check=True, timeout=30
    )
    install.server.files["/game.zip"] = (tmp_path / "locked.zip").read_bytes()
    install.trust_the_stand_ins()
    succeeded(install("--accept-eula"))
    assert (install.target / "Versions/Base75689/SC2_x64").read_bytes() == b"binary"


@needs_tools
def test_what_a_killed_run_left_is_cleaned_up(install: Install) -> None:
    # Killed while unpacking the game and while putting maps in place.
    for folder in (install.work / "unpack" / "StarCraftII", install.target / "Maps" / ".staging"):
        folder.mkdir(parents=True)
        (folder / ".half").write_text("a half")
    succeeded(install("--accept-eula"))
    assert install.has_game()
    assert install.leftovers() == []
    # Killed between the two renames that put a new folder in the old one's place.
    install.work.mkdir()
    install.target.rename(install.work / "replaced")
    install.server.requests.clear()
    succeeded(install("--accept-eula"))
    assert install.has_game()
    assert not install.server.got("/game.zip")
    assert install.leftovers() == []


@needs_tools
def test_the_game_comes_to_maps_that_are_there(install: Install) -> None:
    succeeded(install("--maps-only"))
    assert not install.has_game()
    (install.target / "Maps" / "Mine").mkdir()
    (install.target / "Maps" / "Mine" / "arena.SC2Map").write_bytes(b"mine")
    succeeded(install("--accept-eula"))
    assert install.has_game()
    assert install.maps("Mine") == {"arena": b"mine"}
    assert install.server.got("/smac.zip") == [None]
    assert install.leftovers() == []


@needs_tools
def test_what_is_somebody_elses_stays(install: Install) -> None:
    install.target.mkdir(parents=True)
    (install.target / "thesis.tex").write_text("years of work")
    refused(install("--accept-eula"), "thesis.tex", "move it away")
    assert (install.target / "thesis.tex").read_text() == "years of work"
    assert not install.server.got("/game.zip")


@needs_tools
def test_no_game_without_the_license(install: Install) -> None:
    refused(install(), "--accept-eula")
    assert not install.server.got("/game.zip")
    assert not install.target.exists()
    assert install.leftovers() == []


@needs_tools
def test_a_folder_that_cannot_be_made(install: Install, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    install.env["SC2PATH"] = str(tmp_path / "file" / "below" / "StarCraftII")
    refused(install("--accept-eula"), "cannot make", "SC2PATH")
    assert not install.server.requests


@needs_tools
def test_a_disk_that_is_too_small(install: Install) -> None:
    install.server.claims = {"/game.zip": 10**15}
    refused(install("--accept-eula"), "free", "SC2PATH")
    assert not install.server.got("/game.zip")


@needs_tools
def test_a_mirror_that_lacks_something(install: Install) -> None:
    install.server.files["/smacv2.zip"] = archive({"SMAC_Maps/10gen_terran.SC2Map": b"smacv2"})
    refused(install("--maps-only"), "lacks 32x32_flat")
    del install.server.files["/smacv2.zip"]
    refused(install("--maps-only"), "/smacv2.zip answers 404")
    assert install.server.got("/smac.zip") == [None]  # done by the first run
    assert install.leftovers() == []


@needs_tools
def test_smac_hard_from_a_local_copy(install: Install, tmp_path: Path) -> None:
    copy = tmp_path / "smac-hard"
    for name in SMAC_MAPS:
        file = copy / "SMAC_HARD_maps" / f"{name}.SC2Map"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"hard")
    (copy / "smac_hard").mkdir()
    install.env["SMAC_HARD_SOURCE"] = str(copy)
    succeeded(install("--maps-only", "--hard"))
    assert install.maps("SMAC_HARD_maps") == dict.fromkeys(SMAC_MAPS, b"hard")
    assert install.maps()["3m"] == b"smac"
    assert "nothing to do" in succeeded(install("--maps-only", "--hard"))


@needs_tools
def test_packages_are_looked_for_in_the_interpreter_that_is_named(install: Install, tmp_path: Path) -> None:
    # An environment without any of them, so that it does not matter what the tests' own has.
    venv.create(tmp_path / "venv", symlinks=True)
    install.env["PYTHON"] = str(tmp_path / "venv" / "bin" / "python")
    result = install("--check", "--no-game", python=True)
    assert result.returncode == 1
    assert "Python packages" in result.stdout
    assert "pysc2==4.0.0 protobuf<3.21 smac smacv2" in result.stdout
    assert f"PYTHON={install.env['PYTHON']} ./install_sc2.sh --no-game" in result.stdout
    install.env["PYTHON"] = "no-such-python"
    refused(install("--no-game", python=True), "no-such-python", "make setup")
    assert not install.server.requests


@needs_tools
def test_options(install: Install) -> None:
    refused(install("--acept-eula"), "no option --acept-eula", "--help")
    refused(install("--version"), "")
    help_text = subprocess.run(
        ["bash", str(install.script), "--help"], env=install.env, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    script = install.script.read_text()
    # Every variable that the script reads is in its help.
    for variable in re.findall(r"\$\{([A-Z0-9_]+):", script):
        assert variable in help_text or variable == "HOME"


# The image. No Docker here: what can be known without it.

DOCKERFILE = ROOT / "docker" / "Dockerfile"


def test_the_dockerfile_copies_only_what_exists() -> None:
    ignored = {line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")}
    copies = re.findall(r"^COPY (?:--\S+ )*(.+)$", DOCKERFILE.read_text(), re.MULTILINE)
    sources = [source for copy in copies for source in copy.split()[:-1]]
    assert sources == ["install_sc2.sh", "requirements.txt", "."]
    for source in sources:
        assert (ROOT / source).exists()
        assert source not in ignored
    # What the package is built from.
    for name in ("pyproject.toml", "README.md", "src", "requirements.txt"):
        assert (ROOT / name).exists()
        assert name not in ignored


def test_every_build_argument_is_one_of_the_dockerfiles() -> None:
    known = set(re.findall(r"^ARG (\w+)", DOCKERFILE.read_text(), re.MULTILINE))
    texts = [(ROOT / name).read_text() for name in ("docker/run.sh", "docker/Dockerfile", "docs/starcraft.md")]
    used = {name for text in texts for name in re.findall(r"--build-arg \"?(\w+)=", text)}
    assert {"WITH_SC2", "ACCEPT_SC2_EULA", "GPU"} <= used
    assert used <= known


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A `docker` that notes how it was called, with an image only where a file `image` lies."""
    stub = tmp_path / "bin" / "docker"
    stub.parent.mkdir()
    stub.write_text(
        f"""#!/bin/sh
        if [ "$1 $2" = "image inspect" ]; then test -e {tmp_path}/image; exit; fi
        printf '%s\\n' "$@" -- >>{tmp_path}/calls
        """
    )
    stub.chmod(0o755)
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "run.sh", tmp_path / "docker" / "run.sh")
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="not installed: bash")
def test_docker_run_builds_and_hands_the_command_over(docker: Path) -> None:
    def run(*words: str) -> tuple[int, list[list[str]]]:
        (docker / "calls").write_text("")
        result = subprocess.run(
            ["bash", str(docker / "docker" / "run.sh"), *words],
            env={"PATH": f"{docker / 'bin'}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        calls = (docker / "calls").read_text().split("\n--\n")
        return result.returncode, [call.split("\n") for call in calls if call]

    command = ["python", "src/main.py", "--config=s2q", "--env-config=sc2", "with", "env_args.map_name=6h_vs_8z"]
    assert run(*command) == (1, [])  # nobody accepted the license
    assert run() == (1, [])

    status, (build, start) = run("--accept-eula", *command)
    assert status == 0
    assert {"build", "ACCEPT_SC2_EULA=1", "WITH_SC2=1", "GPU=0"} <= set(build)
    assert start[-7:] == ["shoal:cpu", *command]
    assert f"{docker}/results:/home/shoal/shoal/results" in start
    assert "--gpus" not in start

    status, (build, start) = run("--gpus", "all", "--no-sc2", "--build-arg", "WITH_GRF=0", *command)
    assert {"ACCEPT_SC2_EULA=0", "WITH_SC2=0", "GPU=1", "WITH_GRF=0"} <= set(build)
    assert start[start.index("--gpus") + 1] == "all"
    assert start[-7:] == ["shoal:gpu-no-sc2", *command]

    # The license was accepted when the image was built. Another value would fetch the game again.
    (docker / "image").touch()
    status, (build, start) = run(*command)
    assert {"ACCEPT_SC2_EULA=1", "--quiet"} <= set(build)
    status, (start,) = run("--no-build", "--", *command)
    assert start[-7:] == ["shoal:cpu", *command]
