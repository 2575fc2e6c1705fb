import importlib.metadata
import itertools
import json
import os
import subprocess
import sys
import venv

import psutil
import pytest

from shoal.command_line import doctor
from shoal.command_line.doctor import Check, main, report
from support.launch import MAIN, wait_until


class QuickProbe:
    def __init__(self, code, timeout_s=None, **environment):
        self.answer = {"cuda": None, "gpus": [], "threads": 2} if "torch" in code else {"devices": ["cpu (cpu)"]}
        if "play" in code:
            self.answer = {"what": "a game", "seconds": 1.5}

    def result(self):
        return self.answer


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(doctor, "_Probe", QuickProbe)


@pytest.fixture
def versions(monkeypatch):
    """Pretends that other versions are installed; None for not installed."""
    pretended = {}
    real = importlib.metadata.version

    def version(name):
        found = pretended[name] if name in pretended else real(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    return pretended


def the(checks, group, name):
    (found,) = (check for check in checks if (check.group, check.name) == (group, name))
    return found


def test_every_suite_is_looked_at_and_every_gap_has_a_command():
    checks = report()
    groups = [group for group, _ in itertools.groupby(check.group for check in checks)]  # each in one piece
    assert groups[:2] == ["core", "optional"]
    assert sorted(groups[2:]) == [
        "grf",
        "gymma",
        "matrix_game",
        "pettingzoo",
        "sc2",
        "sc2hard",
        "sc2v2",
        "sisl",
        "smax",
        "toy_modes",
    ]
    assert all(check.fix for check in checks if not check.ok)
    assert the(checks, "core", "python").ok


@pytest.mark.parametrize(
    ("name", "version", "command"),
    [("setuptools", "82.0.0", "pip install 'setuptools"), ("sacred", None, "pip install 'sacred")],
)
def test_what_every_run_needs_fails_the_doctor(versions, capsys, name, version, command):
    versions[name] = version
    check = the(report(), "core", name)
    assert (check.ok, check.needed, check.state) == (False, True, "BROKEN")
    assert check.fix.startswith(command)
    assert main() == 1
    output = capsys.readouterr().out
    assert f"fix {name} first" in output
    assert check.fix in output


def test_an_optional_package_does_not(versions):
    versions["jaxmarl"] = versions["pymongo"] = None
    checks = report()
    assert the(checks, "smax", "jaxmarl").state == "missing"
    assert the(checks, "optional", "pymongo").fix == 'pip install -e ".[mongo]"'
    broken = [check.name for check in checks if check.needed and not check.ok]
    assert main() == (1 if broken else 0)
    assert "pymongo" not in broken


def test_a_python_that_is_too_old_or_too_new(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert not the(report(), "core", "python").ok


def test_starcraft_is_found_where_sc2path_says(monkeypatch, tmp_path, versions):
    versions["protobuf"] = "3.20.3"
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    missing = the(report(), "sc2", "StarCraft II")
    assert not missing.ok
    assert missing.fix == "./install_sc2.sh"
    assert str(tmp_path) in missing.detail

    (tmp_path / "Versions" / "Base75689").mkdir(parents=True)
    maps = tmp_path / "Maps" / "SMAC_Maps"
    maps.mkdir(parents=True)
    assert not the(report(), "sc2v2", "maps").ok
    (maps / "3m.SC2Map").write_text("")
    checks = report()
    assert the(checks, "sc2", "StarCraft II").detail == f"4.10 in {tmp_path}"
    assert the(checks, "sc2", "maps").ok
    assert the(checks, "sc2", "SMAC-Comm maps").fix == "./install_sc2.sh --maps-only"
    assert "32x32_flat" in the(checks, "sc2v2", "maps").detail
    assert the(checks, "sc2", "protobuf").ok


def test_a_protobuf_that_starcraft_cannot_use(versions):
    versions["protobuf"] = "7.36.2"
    check = the(report(), "sc2", "protobuf")
    assert not check.ok
    assert check.fix == "pip install 'protobuf>=3.20,<3.21'"


def test_a_pymunk_that_waterworld_cannot_use(versions):
    versions["pymunk"] = "7.1.0"
    check = the(report(), "sisl", "pymunk")
    assert (check.ok, check.detail) == (False, "7.1.0, but Waterworld needs <7")
    assert check.fix == 'pip install -e ".[sisl]"'


def test_the_other_smac_on_pypi_is_not_taken_for_ours(monkeypatch, tmp_path):
    (tmp_path / "smac").mkdir()
    (tmp_path / "smac" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert "uninstall" in the(report(), "sc2", "smac").fix
    (tmp_path / "smac" / "env").mkdir()
    assert the(report(), "sc2", "smac").ok


def test_a_suite_that_cannot_be_checked_does_not_stop_the_doctor(monkeypatch):
    def look():
        raise PermissionError("no")

    monkeypatch.setitem(doctor._SUITES, "sc2", look)
    assert "no" in the(report(), "sc2", "check").detail


def test_the_report_is_readable_and_every_command_stands_once(versions, capsys):
    versions["protobuf"] = "7.36.2"
    main()
    output = capsys.readouterr().out
    assert "matrix_game" in output
    assert output.count("pip install 'protobuf>=3.20,<3.21'") == 1
    assert "# sc2, sc2v2" in output


def test_without_rich_it_is_still_printed(monkeypatch, capsys, versions):
    versions["rich"] = None
    monkeypatch.setitem(sys.modules, "rich.table", None)
    assert main() == 1
    assert "torch device: CPU (a CPU-only build), 2 CPU threads" in capsys.readouterr().out


def test_only_what_is_ready_is_played_and_only_when_asked(monkeypatch, versions):
    versions["jaxmarl"] = None
    played = {check.group for check in report() if check.name == "play"}
    assert {"matrix_game", "toy_modes", "gymma"} <= played
    assert "smax" not in played
    assert not [check for check in report(quick=True) if check.name == "play"]
    versions["sacred"] = None  # nothing can be played without the core
    assert not [check for check in report() if check.name == "play"]


def test_a_suite_that_cannot_be_played_is_not_called_ready(monkeypatch):
    class Fails(QuickProbe):
        def __init__(self, code, timeout_s=None, **environment):
            super().__init__(code, timeout_s, **environment)
            if "matrix_game" in code:
                self.answer = "ValueError: no game"

    monkeypatch.setattr(doctor, "_Probe", Fails)
    check = the(report(), "matrix_game", "play")
    assert (check.ok, check.detail, check.state) == (False, "ValueError: no game", "missing")
    assert check.fix


def test_the_doctor_starts_where_nothing_is_installed(tmp_path):
    venv.create(tmp_path, with_pip=False)
    python, program = str(tmp_path / "bin" / "python"), str(MAIN)
    bare = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    seen = subprocess.run([python, program, "doctor"], capture_output=True, text=True, env=bare, timeout=120)
    assert seen.returncode == 1
    assert "No run can start: fix torch, numpy" in seen.stdout
    assert seen.stderr == ""
    run = subprocess.run([python, program, "--list"], capture_output=True, text=True, env=bare, timeout=120)
    assert run.returncode == 1
    assert "doctor says what to install" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_option_that_it_has_not(capsys):
    assert main(["--fast"]) == 1
    assert "--quick" in capsys.readouterr().err
    assert main(["--help"]) == 0


@pytest.mark.parametrize(
    ("answer", "ok", "detail"),
    [
        ({"cuda": "12.8", "gpus": ["H200"], "threads": 4}, True, "H200 (CUDA 12.8), 4 CPU threads"),
        (
            {"cuda": "12.8", "gpus": [], "threads": 4},
            True,
            "CPU (built for CUDA 12.8, but no GPU is usable), 4 CPU threads",
        ),
        ("ImportError: libtorch.so", False, "ImportError: libtorch.so"),
        ("no answer in 20 s", True, "no answer in 20 s"),
    ],
)
def test_devices(answer, ok, detail):
    check = doctor._torch_device(answer)
    assert (check.ok, check.detail, check.needed) == (ok, detail, True)


def test_commands_name_all_that_they_serve():
    gap = Check("a", "x", False, "", "fix")
    assert doctor._fixes([gap, gap, Check("b", "x", False, "", "fix"), Check("c", "x", True, "", "no")]) == [
        ("a, b", "fix")
    ]


class TestProbe:
    @pytest.fixture
    def probe(self, monkeypatch):
        monkeypatch.undo()
        return doctor._Probe

    def test_it_returns_what_the_code_prints(self, probe):
        code = "import json, os; print('noise'); print(json.dumps({'a': os.environ['B']}))"
        assert probe(code, B="c").result() == {"a": "c"}

    def test_an_error_a_crash_and_a_hang_are_sentences(self, probe, monkeypatch):
        assert probe("raise ImportError('libcuda')").result() == "ImportError: libcuda"
        assert probe("import os; os.abort()").result() == "ended with status -6"
        monkeypatch.setattr(doctor, "_PROBE_TIMEOUT_S", 0.2)
        assert probe("import time; time.sleep(60)").result() == "no answer in 0.2 s"

    @pytest.mark.parametrize("suite", ["matrix_game", "toy_modes", "gymma", "sisl"])
    def test_a_step_is_really_played(self, probe, suite):
        (check,) = doctor._played([suite])
        assert check.ok, check.detail
        (broken,) = doctor._played(["no such suite"])
        assert "Unknown --env-config" in broken.detail

    def test_what_hangs_is_ended_with_all_that_it_started(self, probe, monkeypatch):
        monkeypatch.setattr(doctor, "_PROBE_TIMEOUT_S", 1.0)
        code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
        hung = probe(code)
        child = int(hung._process.stdout.readline())
        assert hung.result() == "no answer in 1 s"

        def ended():
            return not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE

        wait_until(ended, 30, "the end of what the probe started")

    def test_the_probes_themselves(self, probe):
        assert json.dumps(probe(doctor._TORCH_PROBE).result()["threads"]).isdigit()
