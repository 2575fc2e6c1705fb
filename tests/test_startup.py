"""What a start imports: nothing heavy before it is needed. (How long it takes: ``benchmarks/startup.py``.)"""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from shoal import registry
from shoal.command_line.listing import list_components
from support.launch import environment

HEAVY = {"torch", "jax", "ray", "pandas", "sacred", "matplotlib", "numpy", "tensordict", "gymnasium", "optuna", "scipy"}
"""Packages that take a tenth of a second or more."""


def imported_by(code: str, cwd: Path) -> set[str]:
    """The packages that a process has imported after ``code``."""
    whole = f"import sys\n{code}\nprint('\\n' + ' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", whole], cwd=cwd, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import shoal",
        "from shoal.command_line.main import main; main(['src/main.py', '--help'])",
        "from shoal.command_line.main import main; main(['src/main.py'])",
        "from shoal.command_line.main import main; main(['src/main.py', '--list'])",
        "from shoal.command_line.main import main; main(['src/main.py', 'doctor', '--help'])",
        "from shoal.command import main; main(['--help'])",
        "from shoal.command import main; main(['list'])",
        "from shoal.command import main; main(['evaluate', '--help'])",
        "from shoal.command import main; main(['trian'])",
        "from shoal.command import main; main(['sync', '--help'])",
        "from shoal.command import main; main(['export', '--help'])",
        "from shoal.command import main\ntry: main(['sweep', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported_to_say_something(code: str, tmp_path: Path) -> None:
    assert not imported_by(code, tmp_path) & HEAVY


def test_a_run_imports_neither_pandas_nor_another_environment(tmp_path: Path) -> None:
    run = "['src/main.py', '--config=vdn', '--env-config=matrix_game', 'with', 't_max=1', 'test_nepisode=1']"
    found = imported_by(f"from shoal.command_line.main import main; main({run})", tmp_path)
    assert {"torch", "sacred"} <= found
    assert not found & {"pandas", "jax", "ray", "optuna", "scipy", "pymongo", "tensorboardX", "pettingzoo"}


def test_sacred_is_as_usual_where_pandas_is_there_already(tmp_path: Path) -> None:
    code = "import pandas\nfrom shoal.utils.lean_imports import import_sacred\nimport_sacred()\nimport_sacred()"
    assert "pandas" in imported_by(code, tmp_path)
    later = "from shoal.utils.lean_imports import import_sacred\nimport_sacred()\nimport pandas; pandas.DataFrame()"
    assert {"pandas", "sacred"} <= imported_by(later, tmp_path)


def test_the_collector_is_back_at_work_after_the_first_imports(tmp_path: Path) -> None:
    start = "from shoal.utils.lean_imports import uncollected; import gc"
    look = "assert gc.isenabled(); assert gc.get_freeze_count() {} 0"
    imported_by(f"{start}\nwith uncollected(): assert not gc.isenabled()\n{look.format('>')}", tmp_path)
    failed = f"{start}\ntry:\n  with uncollected(): import nowhere\nexcept ImportError: pass\n{look.format('==')}"
    imported_by(failed, tmp_path)
    imported_by(f"import torch\n{start}\nwith uncollected(): pass\n{look.format('==')}", tmp_path)
    imported_by(f"{start}\ngc.disable()\nwith uncollected(): pass\nassert not gc.isenabled()", tmp_path)


@pytest.mark.parametrize("kind", registry.COMPONENTS)
def test_lines_read_from_the_source_are_those_of_the_classes(kind: str) -> None:
    for name, path in registry.COMPONENTS[kind].items():
        module, _, class_name = path.partition(":")
        doc = getattr(importlib.import_module(module), class_name).__doc__
        assert registry.one_line(kind, name) == doc.strip().partition("\n")[0]
        assert f"  {name:<20} {registry.one_line(kind, name)}" in list_components()


def test_the_front_door_starts_without_any_package(tmp_path: Path) -> None:
    """The doctor is reached whatever is missing, so its way must not import more than the standard library."""
    code = "from shoal.command_line.main import main; main(['src/main.py', 'doctor', '--help'])"
    third_party = imported_by(code, tmp_path) - set(sys.stdlib_module_names) - {"shoal", "__main__"}
    assert {name for name in third_party if not _comes_with_python(name)} == set()


def _comes_with_python(name: str) -> bool:
    """What site and its .pth files import at any start."""
    bare = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True)
    return name in {one.partition(".")[0] for one in bare.stdout.split()}
