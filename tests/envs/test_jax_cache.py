"""Compiled programs are kept between processes, change no number, and are never worth an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.envs import jax_cache
from support.launch import environment

pytest.importorskip("jax")

PROGRAM = """
from shoal.envs.jax_cache import keep_compiled_programs
import jax, jax.numpy as jnp
folder = keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hits = []
from jax._src import monitoring
monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
f = jax.jit(lambda x: jnp.cumsum(jnp.sin(x) @ x.T))
print(folder, len(hits), *[value.hex() for value in f(jnp.arange(12.0).reshape(3, 4)).tolist()], sep="|")
print(len(hits))
"""


def play(**variables: str) -> tuple[str, int, list[str]]:
    """The folder that a process keeps its programs in, how many it found there, and the numbers that it computes."""
    env = environment(JAX_PLATFORMS="cpu", **variables)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, hits = done.stdout.splitlines()
    folder, _, *numbers = first.split("|")
    return folder, int(hits), numbers


def test_a_second_process_finds_what_the_first_compiled_and_computes_the_same(tmp_path: Path) -> None:
    _, _, expected = play(SHOAL_JAX_CACHE="off")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "SHOAL_JAX_CACHE": ""}
    folder, found, numbers = play(**cache)
    assert Path(folder).parent == tmp_path / "cache" / "shoal" / "jax"
    assert (found, numbers) == (0, expected)
    again, found, numbers = play(**cache)
    assert again == folder
    assert found > 0
    assert numbers == expected


def test_a_broken_entry_is_passed_over(tmp_path: Path) -> None:
    cache = {"SHOAL_JAX_CACHE": str(tmp_path)}
    folder, _, expected = play(**cache)
    entries = list(Path(folder).glob("*-cache"))
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    assert play(**cache) == (folder, 0, expected)


@pytest.mark.parametrize("word", ["off", "0", "False"])
def test_it_can_be_turned_off(word: str, tmp_path: Path) -> None:
    assert play(XDG_CACHE_HOME=str(tmp_path), SHOAL_JAX_CACHE=word)[0] == "None"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert play(SHOAL_JAX_CACHE=str(tmp_path / "file" / "jax"))[:2] == ("None", 0)


def test_a_cache_that_the_user_chose_for_jax_stays(tmp_path: Path) -> None:
    theirs = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "theirs"), "XDG_CACHE_HOME": str(tmp_path / "ours")}
    assert play(SHOAL_JAX_CACHE="", **theirs)[0] == "None"
    assert not (tmp_path / "ours").exists()
    assert os.listdir(tmp_path / "theirs")


def test_processors_do_not_share_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled for one may hold instructions that another does not know."""
    monkeypatch.setenv("SHOAL_JAX_CACHE", "/somewhere")
    here = jax_cache._folder()
    monkeypatch.setattr(Path, "read_text", lambda path: "flags : another one")
    there = jax_cache._folder()
    assert here is not None
    assert there is not None
    assert here.parent == there.parent
    assert here != there
