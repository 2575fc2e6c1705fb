"""What the documentation site has beyond docs/: the texts of the root folder, every setting, the API. mkdocs calls it.

The same Markdown files are read in the repository and on the site, so links are written for the repository and
rewritten here where the site has a page for their target.
"""

import dataclasses
import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "results/README.md": "results_folder.md",
}
"""Pages that lie outside docs/ in the repository -> where the site has them."""

LINK = r"(\]\()([^)#:\s]+)(#[^)\s]*)?(\))"
"""A relative link of Markdown."""

ROOMS = {
    "": "Python API and command line",
    "config": "config: settings and where they come from",
    "envs": "envs: every environment as a gymnasium.Env",
    "runners": "runners: whole episodes from a vector environment",
    "components": "components: what flows between the parts, and what shapes it",
    "controllers": "controllers: observations in, actions out",
    "modules": "modules: networks",
    "learners": "learners: losses, updates, targets",
    "callbacks": "callbacks: watching a run",
    "experiment": "experiment: one run, start to finish",
    "command_line": "command_line: the shoal command",
    "recording": "recording: where a run is recorded, and how a record is read",
    "analysis": "analysis: recorded runs as tables and figures",
    "reproduce": "reproduce: the papers' figures and tables",
    "sweeps": "sweeps: many runs",
    "utils": "utils: checkpoints, seeds, signals, errors",
}
"""Folder of the package ("" for the modules outside folders) -> title of its page."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the generated API pages into the navigation."""
    (reference,) = [part["Reference"] for part in config.nav or [] if "Reference" in part]
    reference += [{room or "shoal": f"reference/api_{room or 'top'}.md"} for room in api_modules()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    pages = {target: (ROOT / source).read_text(encoding="utf-8") for source, target in OUTSIDE.items()}
    pages["index.md"] = "---\nhide: [navigation]\n---\n" + pages["index.md"]
    pages["reference/settings.md"] = settings_page()
    pages |= api_pages()
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links that are written for the repository."""
    here = page.file.src_uri
    source = next((source for source, target in OUTSIDE.items() if target == here), f"docs/{here}")
    return re.sub(LINK, lambda match: _link(match, source, here), markdown)


def _link(match: re.Match[str], source: str, here: str) -> str:
    """A link of the file ``source`` of the repository, as the page ``here`` of the site must write it."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
    page = OUTSIDE.get(target, target.removeprefix("docs/"))
    if page == target:  # no page: mkdocs reports it
        return match[0]
    return f"{match[1]}{posixpath.relpath(page, posixpath.dirname(here) or '.')}{match[3] or ''}{match[4]}"


def settings_page() -> str:
    """Every setting of the experiment and of every registered component, from their declarations."""
    from shoal import registry
    from shoal.config.settings import declared_by
    from shoal.experiment import ExperimentSettings

    parts = [
        "# Every setting",
        "`print_config` shows those of one run, with their values and where each value comes from. Defaults below are "
        "the code's; YAML files (`src/shoal/config`) and the command line override them. Settings of environments are "
        "written `env_args.NAME`.",
        "## The run",
        _table(declared_by(ExperimentSettings, "experiment")),
    ]
    for kind, names in registry.COMPONENTS.items():
        parts.append(f"## {kind}")
        for name in names:
            component: Any = registry.find(kind, name)
            rows = declared_by(component.Settings, name)
            parts += [f"### `{kind}={name}`", f"{registry.one_line(kind, name)}\n", _table(rows)]
    return "\n\n".join(parts)


def _table(rows: list[Any]) -> str:
    from shoal.config.settings import type_name

    if not rows:
        return "No settings of its own."
    lines = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        checks = [str(check) for check in row.checks if type(check).__str__ is not object.__str__]
        kind = ", ".join([type_name(row.type), *(check for check in checks if "(" not in check)])
        kind = kind.replace(str(2**63 - 1), "2^63 - 1")
        default = "needed" if row.default is dataclasses.MISSING else f"`{_cell(json.dumps(row.default))}`"
        lines.append("| " + " | ".join([f"`{row.key}`", _cell(kind), default, _cell(row.help)]) + " |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ").replace("<", "&lt;")


def api_pages() -> dict[str, str]:
    """One page for each room of the package, from the docstrings of its modules, and an index of them."""
    pages, index = {}, ["# API\n", "From the docstrings, a page for each part of the package.\n"]
    for room, modules in api_modules().items():
        page, title = f"reference/api_{room or 'top'}.md", ROOMS[room]
        pages[page] = f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in modules)
        index.append(f"* [{title}](api_{room or 'top'}.md)")
    return {"reference/api.md": "\n".join(index) + "\n", **pages}


def api_modules() -> dict[str, list[str]]:
    """Folder of the package -> its modules that define anything public, by their full names."""
    package = ROOT / "src" / "shoal"
    rooms: dict[str, list[str]] = {room: [] for room in ROOMS}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        text = path.read_text(encoding="utf-8")
        if parts[-1] == "__main__" or not re.search(r"^(class|def) [a-zA-Z]", text, re.MULTILINE):
            continue
        name = ".".join(["shoal", *(part for part in parts if part != "__init__")])
        rooms[parts[0] if len(parts) > 1 else ""].append(name)
    return {room: modules for room, modules in rooms.items() if modules}
