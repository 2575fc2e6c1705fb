"""Extras: what each brings, also where the package is installed, and the sentence for those who lack one."""

import importlib.metadata
from pathlib import Path

import pytest

from shoal.utils import extras
from shoal.utils.errors import UserError
from shoal.utils.extras import CORE, install_command, needed_for, requirements


def test_the_installed_package_says_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installed copy has no pyproject.toml: its metadata tells."""
    declared = requirements()
    metadata = [*declared[CORE], *(f'{line} ; extra == "{extra}"' for extra in declared for line in declared[extra])]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: metadata)
    monkeypatch.setattr(extras, "_PYPROJECT", tmp_path / "pyproject.toml")
    assert requirements() == declared
    assert install_command("smax") == 'pip install "shoal[smax]"'


def test_a_missing_package_is_a_sentence_with_its_extra() -> None:
    sentence = r"^Sweeps needs the Python package 'nowhere'.*\[sweeps\]"
    with pytest.raises(UserError, match=sentence), needed_for("Sweeps", "sweeps"):
        import nowhere.inside  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="shoal"), needed_for("Sweeps", "sweeps"):
        import shoal.nowhere  # noqa: F401
