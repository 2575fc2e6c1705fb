"""The texts link to what exists, in the repository and on the site."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from test_imports import ENTRY_POINTS, MAY_IMPORT

load_config = pytest.importorskip("mkdocs.config", reason="requirements-dev.txt installs mkdocs").load_config

ROOT = Path(__file__).resolve().parents[2]
NAVIGATION = (ROOT / "mkdocs.yml").read_text()
SOURCES = (ROOT, ROOT / "src" / "shoal")
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts" / "docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_the_repository_leads_to_a_file(text: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text.read_text())
    lost = [link for link in links if "://" not in link and not (text.parent / link).exists()]
    assert not lost


@pytest.mark.parametrize(
    ("source", "here", "written", "link"),
    [
        ("README.md", "index.md", "docs/results.md#sisl", "results.md#sisl"),
        ("README.md", "index.md", "CONTRIBUTING.md", "contributing.md"),
        ("docs/recording.md", "recording.md", "../results/README.md", "results_folder.md"),
        ("results/README.md", "results_folder.md", "../docs/recording.md#mongodb", "recording.md#mongodb"),
        ("docs/lan.md", "lan.md", "sisl.md", "sisl.md"),
    ],
)
def test_links_are_rewritten_for_the_site(site: ModuleType, source: str, here: str, written: str, link: str) -> None:
    text = re.sub(site.LINK, lambda match: site._link(match, source, here), f"[a]({written})")
    assert text == f"[a]({link})"


def test_the_settings_page_has_every_setting_of_every_component(site: ModuleType) -> None:
    page = site.settings_page()
    assert "### `learner=s2q_learner`" in page
    assert "| `suppress_floor` |" in page
    assert re.search(r"\| `env` \| text \| needed \|", page)


def test_every_part_of_the_package_has_an_api_page_in_the_navigation(site: ModuleType) -> None:
    pages = site.api_pages()
    assert "::: shoal.learners.s2q\n" in pages["reference/api_learners.md"]
    config = load_config(str(ROOT / "mkdocs.yml"), hooks=[], plugins=[])
    (reference,) = [part["Reference"] for part in site.on_config(config).nav if "Reference" in part]
    assert {page for entry in reference for page in entry.values()} == {"reference/settings.md", *pages}


def test_every_text_is_in_the_navigation() -> None:
    assert not [path.name for path in ROOT.glob("docs/*.md") if f" {path.name}\n" not in NAVIGATION]


def test_the_architecture_page_and_the_api_pages_have_every_room_and_every_other_file(site: ModuleType) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "src" / "shoal"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert set(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE)) == rooms
    assert set(site.ROOMS) == rooms | {""}
    files = {path.name for path in package.glob("[a-z]*.py")}
    assert not {name for name in files if f"`{name}`" not in page}


def test_the_architecture_page_shows_which_room_may_import_which() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    shown = {}
    for names, others in re.findall(r"^([a-z_, ]+?) +-> ([a-z_, ]+)$", page, re.MULTILINE):
        for name in names.split(", "):
            shown[name] = set(others.split(", ")) - {"utils"}
    assert shown.pop("utils") == {"none"}
    assert shown.pop("entry points") == {"all"}
    assert shown == {part: others - {"utils"} for part, others in MAY_IMPORT.items() if part != "utils"}
    named = re.search(r"The entry points are (.+?)\.\s", page, re.DOTALL)
    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[1])) == ENTRY_POINTS


def test_the_architecture_page_names_only_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"\b((?:\w+/)*\w+\.py)\b", page)
    assert named
    missing = [name for name in named if not any((folder / name).is_file() for folder in SOURCES)]
    assert not missing
