"""The YAML files: found by name or path, read with care, merged key by key."""

import pytest

from shoal.config import files
from shoal.utils.errors import UserError


@pytest.mark.parametrize("kind", ["algs", "envs"])
def test_every_shipped_file_says_in_one_line_what_it_is(kind):
    assert files.names(kind)
    for name in files.names(kind):
        assert len(files.one_line(kind, name)) > 20
        assert (files.FOLDER / kind / f"{name}.yaml").read_text().startswith("# ")
        assert files.load(kind, name)


def test_a_path_is_a_file_of_the_users(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nlr: 5e-4\n")
    assert files.load("algs", str(mine)) == {"name": "mine", "lr": "5e-4"}


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert files.read(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: [1, 2\nlr: 3\n", ["not valid YAML", "line 2"]),
        (b"- a\n- b\n", ["must be a mapping"]),
        (b"just words\n", ["must be a mapping"]),
        (b"1: one\n", ["must be a mapping"]),
        (b"name: \xff\xfe\n", ["not valid YAML"]),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(tmp_path, content, words):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        files.read(path)
    for word in [str(path), *words]:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.yaml cannot be read: No such file"):
        files.read(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("kind", "name", "option", "near"),
    [("algs", "s2", "--config", "'s2q'"), ("envs", "matrixgame", "--env-config", "'matrix_game'")],
)
def test_an_unknown_name_is_answered_with_the_nearest(kind, name, option, near):
    with pytest.raises(UserError) as refusal:
        files.load(kind, name)
    assert option in str(refusal.value)
    assert near in str(refusal.value)


def test_merging_goes_key_by_key_and_changes_neither_side():
    base = {"a": 1, "env_args": {"x": 1, "y": {"p": 1}}, "payoff": [1, 2]}
    update = {"b": 2, "env_args": {"y": {"q": 2}, "z": 3}, "payoff": [3]}
    copies = repr(base), repr(update)
    merged = files.merge(base, update)
    assert merged == {
        "a": 1,
        "b": 2,
        "env_args": {"x": 1, "y": {"p": 1, "q": 2}, "z": 3},
        "payoff": [3],
    }
    assert (repr(base), repr(update)) == copies


def test_merging_replaces_a_mapping_by_a_value_and_back():
    assert files.merge({"a": {"b": 1}}, {"a": 2}) == {"a": 2}
    assert files.merge({"a": 2}, {"a": {"b": 1}}) == {"a": {"b": 1}}
