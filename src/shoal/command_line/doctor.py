"""`python src/main.py doctor`: check the installation, play a step of every suite that is ready, and print fixes.

Imports the standard library alone, so that it starts whatever is missing or broken.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from shoal.envs.sc2_folder import game_folder
from shoal.utils.extras import CORE, install_command, requirements
from shoal.utils.program import typed

_TOOLS = {"all", "dev", "docs"}
"""Extras that add nothing to a run: not looked at."""
_SC2_VERSIONS = {"69232": "4.6.2", "70154": "4.7.1", "75689": "4.10"}
_PROBE_TIMEOUT_S = 20.0
_LAUNCH_TIMEOUT_S = 300.0
_SRC = str(Path(__file__).resolve().parents[1])

HELP = """Checks the installation and prints the command that fixes what is missing.

  {doctor} [--quick]

Plays one step of every environment suite whose packages are there; --quick leaves that out.
Exit status: 1 if something that every run needs is missing or broken, else 0.
"""

_TORCH_PROBE = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
gpus = [torch.cuda.get_device_name(i) for i in range(count)]
print(json.dumps({"cuda": torch.version.cuda, "gpus": gpus, "threads": torch.get_num_threads()}))
"""
_JAX_PROBE = """
import json, jax
print(json.dumps({"devices": [f"{d.platform} ({d.device_kind})" for d in jax.devices()]}))
"""


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        group: "core", "optional" or the name of an environment suite.
        name: What was looked at.
        ok: Whether it is there and fits.
        detail: What was found.
        fix: The command that fixes it; empty if there is nothing to fix.
        needed: Whether every run needs it.
    """

    group: str
    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = False

    @property
    def state(self) -> Literal["ok", "missing", "BROKEN"]:
        """How bad it is: what only a suite needs is missing, what every run needs is broken."""
        return "ok" if self.ok else "BROKEN" if self.needed else "missing"


def report(quick: bool = False) -> list[Check]:
    """Looks at everything, and unless ``quick`` plays a step of every suite that seems ready.

    Takes a minute, ``quick`` a few seconds; imports nothing heavy into this process, never raises.
    """
    # Slow, and able to hang or crash in a driver: in processes of their own, while we look at the rest.
    torch_probe = _Probe(_TORCH_PROBE)
    jax_probe = _Probe(_JAX_PROBE, XLA_PYTHON_CLIENT_PREALLOCATE="false")
    checks = [_python(), *_packages()]
    for suite, look in _SUITES.items():
        try:
            checks += look()
        except Exception as error:  # a folder that cannot be read, a damaged installation
            checks.append(Check(suite, "check", False, f"could not be checked: {error}", _REINSTALL))
    checks += [_torch_device(torch_probe.result()), _jax_devices(jax_probe.result())]
    if not quick and all(check.ok for check in checks if check.needed):
        not_ready = {check.group for check in checks if not check.ok}
        checks += _played([suite for suite in _SUITES if suite not in not_ready])
    groups = list(dict.fromkeys(["core", "optional", *(check.group for check in checks)]))
    return sorted(checks, key=lambda check: groups.index(check.group))


def main(arguments: list[str] | None = None) -> int:
    """Prints the report.

    Returns:
        1 if something that every run needs is missing or does not fit (or the arguments are not understood), else 0.
    """
    arguments = arguments or []
    if {"-h", "--help"} & set(arguments):
        print(HELP.format(doctor=typed("doctor")))
        return 0
    unknown = [argument for argument in arguments if argument != "--quick"]
    if unknown:
        print(f"error: doctor does not know {unknown[0]!r}: it takes --quick, or nothing.", file=sys.stderr)
        return 1
    checks = report(quick="--quick" in arguments)
    try:
        _print_table(checks)
    except Exception:  # rich itself is missing or broken
        for check in checks:
            print(f"{check.group:12}{check.state:9}{check.name}: {check.detail}")
    fixes = _fixes(checks)
    if fixes:
        print("\nTo fix what is not ready (only what you want to use):")
        for suites, command in fixes:
            print(f"  {command}    # {suites}")
    broken = [check.name for check in checks if check.needed and not check.ok]
    print(f"\nNo run can start: fix {', '.join(broken)} first." if broken else "\nThe core is fine.")
    return 1 if broken else 0


def _fixes(checks: Iterable[Check]) -> list[tuple[str, str]]:
    """Each command once, with the groups that it serves."""
    groups: dict[str, list[str]] = {}
    for check in checks:
        if not check.ok and check.fix:
            known = groups.setdefault(check.fix, [])
            if check.group not in known:
                known.append(check.group)
    return [(", ".join(names), command) for command, names in groups.items()]


def _print_table(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("for", "", "what", "found"):
        table.add_column(column, no_wrap=column != "found", overflow="fold")
    colours = {"ok": "green", "missing": "yellow", "BROKEN": "bold red"}
    last = ""
    for check in checks:
        group = "" if check.group == last else check.group
        last = check.group
        table.add_row(group, Text(check.state, style=colours[check.state]), check.name, Text(check.detail))
    Console(highlight=False).print(table)


# The core.


def _python() -> Check:
    found = platform.python_version()
    ok = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Check("core", "python", ok, f"{found} at {sys.executable}", "python3.11 -m venv .venv", needed=True)


def _packages() -> list[Check]:
    checks = [_required(line, CORE) for line in requirements()[CORE]]
    seen = {check.name for check in checks}
    for extra, lines in requirements().items():
        for line in lines if extra not in _TOOLS else []:
            check = _required(line, extra)
            if check.name not in seen:
                checks.append(check)
                seen.add(check.name)
    return checks


def _required(line: str, extra: str) -> Check:
    """Whether the package that a requirement names is there and fits."""
    name = _name(line)
    found = _version(name)
    ok = found is not None and _fits(line, found)
    detail = found or "not installed"
    if found and not ok:
        detail += f", but {line[len(name) :]} is wanted"
    if extra == CORE:
        return Check("core", name, ok, detail, f"pip install '{line}'", needed=True)
    return Check("optional", name, ok, f"{detail} ([{extra}])", install_command(extra))


def _name(line: str) -> str:
    """The distribution that a requirement is about."""
    return re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except Exception:  # not found, or its metadata is damaged
        return None


def _fits(requirement: str, version: str) -> bool:
    for module in ("packaging.requirements", "pip._vendor.packaging.requirements"):
        try:
            requirements = importlib.import_module(module)
        except ImportError:
            continue
        return bool(requirements.Requirement(requirement).specifier.contains(version, prereleases=True))
    return True  # nothing to judge by


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _has_folder(package: str, folder: str) -> bool:
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations if spec else None) or []
    return any((Path(place) / folder).is_dir() for place in places)


class _Probe:
    """A few lines of python in a process of their own, which print one JSON object."""

    def __init__(self, code: str, timeout_s: float | None = None, **environment: str) -> None:
        self._timeout_s = _PROBE_TIMEOUT_S if timeout_s is None else timeout_s
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    def result(self) -> dict[str, Any] | str:
        """What the code printed, or why it did not. Nothing that the code started is left."""
        try:
            output, errors = self._process.communicate(timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            self._end()
            self._process.communicate()
            return f"no answer in {self._timeout_s:g} s"
        self._end()
        try:
            answer = json.loads(output.splitlines()[-1])
            return answer if isinstance(answer, dict) else str(answer)
        except (IndexError, ValueError):
            lines = errors.strip().splitlines()
            return lines[-1][:200] if lines else f"ended with status {self._process.returncode}"

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _torch_device(answer: dict[str, Any] | str) -> Check:
    if isinstance(answer, str):
        # A slow disk is no reason to refuse a run.
        ok = answer.startswith("no answer")
        return Check("core", "torch device", ok, answer, f"{_install('torch')} --force-reinstall", needed=True)
    gpus, cuda = answer["gpus"], answer["cuda"]
    threads = f"{answer['threads']} CPU threads"
    if gpus:
        detail = f"{', '.join(gpus)} (CUDA {cuda}), {threads}"
    else:
        why = f"built for CUDA {cuda}, but no GPU is usable" if cuda else "a CPU-only build"
        detail = f"CPU ({why}), {threads}"
    return Check("core", "torch device", True, detail, needed=True)


def _jax_devices(answer: dict[str, Any] | str) -> Check:
    if isinstance(answer, str):
        return Check("smax", "jax devices", False, answer, install_command("smax"))
    return Check("smax", "jax devices", True, ", ".join(answer["devices"]))


# The environment suites.


def _install(distribution: str) -> str:
    """The pip line for a package, with the version that Shoal wants."""
    lines = (line for extra in requirements().values() for line in extra)
    wanted = next((line for line in lines if _name(line).lower() == distribution.lower()), distribution)
    return f"pip install '{wanted}'"


def _package(suite: str, distribution: str, module: str | None = None, fix: str | None = None) -> Check:
    """Is it there? By its metadata, or by `module` where several distributions bring it."""
    version = _version(distribution)
    ok = version is not None if module is None else _importable(module)
    detail = (version or "installed") if ok else "not installed"
    return Check(suite, module or distribution, ok, detail, fix or _install(distribution))


def _smax() -> list[Check]:
    return [_package("smax", name, fix=install_command("smax")) for name in ("jaxmarl", "jax", "jaxlib")]


def _built_in(suite: str) -> list[Check]:
    return [Check(suite, "built in", True, "needs nothing else")]


_INSTALL_SC2 = "./install_sc2.sh"
_PACKAGES_SC2 = f"{_INSTALL_SC2} --no-game"


def _sc2() -> list[Check]:
    smac = _package("sc2", "smac", "smac", _PACKAGES_SC2)
    if smac.ok and not _has_folder("smac", "env"):
        # PyPI's "smac" tunes hyperparameters.
        other = "another package of that name"
        smac = Check("sc2", "smac", False, other, f"pip uninstall -y smac && {_PACKAGES_SC2}")
    return [smac, *_starcraft("sc2", "3m", "SMAC_Maps"), _maps("sc2", "SMAC-Comm maps", "5z_vs_1ul", "SMAC_Maps")]


def _sc2v2() -> list[Check]:
    smac = _package("sc2v2", "smacv2", "smacv2", _PACKAGES_SC2)
    return [smac, *_starcraft("sc2v2", "32x32_flat", "SMAC_Maps")]


def _sc2hard() -> list[Check]:
    return [
        _package("sc2hard", "smac_hard", "smac_hard", f"{_PACKAGES_SC2} --hard"),
        _maps("sc2hard", "maps", "2s3z", "SMAC_HARD_maps", f"{_INSTALL_SC2} --maps-only --hard"),
    ]


def _starcraft(suite: str, map_name: str, folder_of_maps: str) -> list[Check]:
    checks = [_package(suite, "pysc2", "pysc2", _PACKAGES_SC2)]
    protobuf = _version("protobuf")
    old = protobuf is not None and _fits("protobuf<3.21", protobuf)
    checks.append(
        Check(
            suite,
            "protobuf",
            old,
            f"{protobuf or 'not installed'}{'' if old else ', but StarCraft II needs <3.21'}",
            "pip install 'protobuf>=3.20,<3.21'",
        )
    )

    folder = game_folder()
    builds = sorted(path.name.removeprefix("Base") for path in (folder / "Versions").glob("Base*") if path.is_dir())
    if builds:
        found = ", ".join(_SC2_VERSIONS.get(build, f"build {build}") for build in builds)
        checks.append(Check(suite, "StarCraft II", True, f"{found} in {folder}"))
    else:
        missing = "no Versions/Base* in it" if folder.is_dir() else "no such folder"
        checks.append(Check(suite, "StarCraft II", False, f"{folder}: {missing} (SC2PATH names it)", _INSTALL_SC2))
    return [*checks, _maps(suite, "maps", map_name, folder_of_maps)]


def _maps(suite: str, name: str, needed: str, folder: str, fix: str = f"{_INSTALL_SC2} --maps-only") -> Check:
    """Whether one map of a set is there, which stands for all of them."""
    maps = game_folder() / "Maps" / folder
    if (maps / f"{needed}.SC2Map").is_file():
        return Check(suite, name, True, f"{len(list(maps.glob('*.SC2Map')))} in {maps}")
    return Check(suite, name, False, f"no {needed}.SC2Map in {maps}", fix)


def _gymma() -> list[Check]:
    return [_package("gymma", name) for name in ("lbforaging", "rware")]


def _pettingzoo() -> list[Check]:
    return [_package("pettingzoo", "pettingzoo", fix=install_command("sisl"))]


def _sisl() -> list[Check]:
    version = _version("pymunk")
    ok = version is not None and _fits("pymunk<7", version)
    detail = (version or "not installed") + (", but Waterworld needs <7" if version and not ok else "")
    fix = install_command("sisl")
    others = [_package("sisl", name, name, fix) for name in ("pettingzoo", "Box2D", "pygame", "scipy")]
    return [*others, Check("sisl", "pymunk", ok, detail, fix)]


def _grf() -> list[Check]:
    return [_package("grf", name, name, "./install_grf.sh") for name in ("gfootball", "gym")]


_REINSTALL = install_command("all")
_SUITES = {
    "smax": _smax,
    "matrix_game": lambda: _built_in("matrix_game"),
    "toy_modes": lambda: _built_in("toy_modes"),
    "sc2": _sc2,
    "sc2v2": _sc2v2,
    "sc2hard": _sc2hard,
    "gymma": _gymma,
    "pettingzoo": _pettingzoo,
    "sisl": _sisl,
    "grf": _grf,
}
"""What to look for, by the name that --env-config has for the suite."""
_REPAIR = {"sc2": _INSTALL_SC2, "sc2v2": _INSTALL_SC2, "sc2hard": f"{_INSTALL_SC2} --hard", "grf": "./install_grf.sh"}


# Playing.


def _played(suites: list[str]) -> list[Check]:
    """One check for each suite: whether a step of it can be played."""
    code = "import shoal.command_line.doctor; shoal.command_line.doctor.play({!r})"
    places = os.pathsep.join(filter(None, [_SRC, os.environ.get("PYTHONPATH")]))
    probes = {
        suite: _Probe(code.format(suite), _LAUNCH_TIMEOUT_S, PYTHONPATH=places, JAX_PLATFORMS="cpu") for suite in suites
    }
    checks = []
    for suite, probe in probes.items():
        answer = probe.result()
        if isinstance(answer, str):
            checks.append(Check(suite, "play", False, answer, _REPAIR.get(suite, _REINSTALL)))
        else:
            detail = f"played a step of {answer['what']} after {answer['seconds']:.1f} s"
            checks.append(Check(suite, "play", True, detail))
    return checks


@dataclass(frozen=True)
class _EnvironmentAlone:
    env: Annotated[str, "environment suite"]


def play(suite: str) -> None:
    """Builds the environment that ``--env-config=suite`` names, plays a step, prints a JSON object about it.

    For a process of its own: it imports what the environment needs.
    """
    from shoal.config import files
    from shoal.config.settings import RunSettings

    began = time.monotonic()
    preset = files.load("envs", suite)
    preset = files.load("envs", suite, files.map_of(preset.get("env_args")), preset.get("env"))
    raw: dict[str, Any] = {key: preset[key] for key in ("env", "env_args") if key in preset}
    settings = RunSettings(raw, _EnvironmentAlone)
    env_class = settings.components["env"]
    env = env_class(settings.of(env_class.Settings))
    try:
        observation, _ = env.reset(seed=1)
        avail = observation.get("avail_actions")
        env.step(env.action_space.sample() if avail is None else avail.argmax(-1))
    finally:
        env.close()
    what = str(next((raw["env_args"][k] for k in (*files.MAP_KEYS, "key") if k in raw.get("env_args", {})), suite))
    print(json.dumps({"what": what, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
