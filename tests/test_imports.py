"""Imports run one way: which part of the package may import which."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal

ROOT = Path(shoal.__file__).parent

EVERYWHERE = {"declare"}
"""What a settings class needs to say what its fields may be: networks declare settings, too."""

MAY_IMPORT: dict[str, set[str]] = {
    "declare": {"utils"},
    "utils": set(),
    "envs": {"utils"},
    "modules": {"utils"},
    "callbacks": {"utils"},
    "recording": {"utils"},
    "components": {"utils"},
    "controllers": {"components", "modules", "utils"},
    "runners": {"controllers", "components", "modules", "envs", "recording", "utils"},
    "learners": {"controllers", "components", "modules", "utils"},
    "analysis": {"config", "recording", "roles", "utils"},
    "roles": {"experiment", "registry"},
    "reproduce": {
        "sweeps",
        "analysis",
        "callbacks",
        "experiment",
        "recording",
        "config",
        "registry",
        "learners",
        "controllers",
        "modules",
        "components",
        "envs",
        "utils",
    },
    "sweeps": {"command_line", "analysis", "experiment", "recording", "config", "utils"},
    "session": {"analysis", "callbacks", "experiment", "recording", "config", "utils"},
    "own_classes": {"config", "registry", "utils"},
    "live_run": {"session", "callbacks", "experiment", "recording", "config", "utils"},
    "api": {
        "live_run",
        "session",
        "own_classes",
        "callbacks",
        "experiment",
        "learners",
        "controllers",
        "config",
        "registry",
        "utils",
    },
    "onnx_team": {"controllers", "utils"},
    "deployment": {
        "onnx_team",
        "experiment",
        "learners",
        "controllers",
        "components",
        "recording",
        "config",
        "utils",
    },
    "command_line": {
        "session",
        "deployment",
        "experiment",
        "recording",
        "config",
        "registry",
        "envs",
        "utils",
    },
    "command": {"command_line", "sweeps", "analysis", "reproduce", "utils"},
    "registry": {"utils"},
    "config": {"registry", "recording", "utils"},
    "experiment": {
        "config",
        "registry",
        "learners",
        "runners",
        "controllers",
        "components",
        "modules",
        "envs",
        "callbacks",
        "recording",
        "utils",
    },
}
"""Part of the package -> the other parts that it may import, also inside a function. Sweeps start whole runs, and so
stand above the command line of one; the ``shoal`` command stands above everything."""

AS_TYPES: dict[str, set[str]] = {"callbacks": {"experiment", "runners"}}
"""Part -> those that it may name under ``TYPE_CHECKING`` alone: a callback is handed the experiment that it watches."""

OLD_DOORS = {
    "analysis/action_map.py",
    "analysis/actions.py",
    "analysis/codebook.py",
    "analysis/confidence.py",
    "analysis/payoff_exploration.py",
    "analysis/payoff_game.py",
    "analysis/sisl.py",
    "analysis/sisl_baselines.py",
}
"""Commands under the names that they had before ``reproduce`` was a package; nothing imports them."""

ENTRY_POINTS = {"__main__", "__init__"}
"""What nothing imports but a process's start, and the package's own names."""


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(tree: ast.AST, types: bool) -> Iterator[ast.AST]:
    """All below ``tree``; without ``types`` not what only the checker of types reads."""
    for node in ast.iter_child_nodes(tree):
        if types or not is_for_types(node):
            yield node
            yield from nodes(node, types)


def imported(path: Path, types: bool = True) -> set[str]:
    """Full names of the modules that a file imports, those inside its functions too."""
    package = ("shoal", *path.relative_to(ROOT).parts[:-1])
    found = set()
    for node in nodes(ast.parse(path.read_text()), types):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def parts_imported(path: Path, types: bool) -> set[str]:
    return {name.split(".")[1] for name in imported(path, types) if name.startswith("shoal.")} - {"__version__"}


def sources(part: str) -> list[Path]:
    files = sorted((ROOT / part).rglob("*.py")) if (ROOT / part).is_dir() else [ROOT / f"{part}.py"]
    assert files, f"there is no {part} any more"
    return files


def test_every_part_has_a_rule() -> None:
    assert {part_of(path) for path in ROOT.rglob("*.py")} == set(MAY_IMPORT) | ENTRY_POINTS


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_imports_run_one_way(part: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {other}"
        for path in sources(part)
        if path.relative_to(ROOT).as_posix() not in OLD_DOORS
        for types, allowed in ((False, MAY_IMPORT[part]), (True, MAY_IMPORT[part] | AS_TYPES.get(part, set())))
        for other in parts_imported(path, types) - allowed - EVERYWHERE - {part}
    }
    assert not wrong


def test_parts_form_no_cycle() -> None:
    """Not even through imports inside functions, which the rules cover, too."""
    graphlib.TopologicalSorter(MAY_IMPORT).prepare()  # raises CycleError, which names the cycle


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported; not what only the checker of types reads."""
    for node in body:
        yield node
        if is_for_types(node):
            continue
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from at_import([*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])])


def test_no_import_cycle() -> None:
    names = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(("shoal", *path.relative_to(ROOT).with_suffix("").parts))
        names[name.removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        found = set()
        for node in at_import(ast.parse(path.read_text()).body):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        graph[name] = {other for other in found if other in names and other != name}
    assert sum(map(len, graph.values())) > 300
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_environments_know_nothing_of_torch() -> None:
    torch_like = {"torch", "tensordict"}
    wrong = [path.name for path in sources("envs") if {name.split(".")[0] for name in imported(path)} & torch_like]
    assert not wrong


def test_parser_sees_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "envs").mkdir()
    source = tmp_path / "envs" / "some.py"
    source.write_text(
        "import torch.nn as nn\nfrom shoal import registry\nfrom . import team\ndef f():\n  from ..utils.x import y\n"
    )
    assert imported(source) == {"torch.nn", "shoal.registry", "shoal.envs.team", "shoal.utils.x.y"}
