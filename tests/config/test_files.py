"""The YAML files: found by name or path, read with care, merged key by key and map by map."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from shoal import registry
from shoal.config import files
from shoal.config.settings import RunSettings, declared_by
from shoal.experiment import ExperimentSettings
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


# One file for all maps, and files that extend each other.


def write(path, content):
    path.write_text(content)
    return str(path)


def test_what_a_file_changes_on_a_map_lies_over_its_own_values(tmp_path):
    mine = write(
        tmp_path / "mine.yaml",
        "lr: 1\nenv_args: {a: 1, b: 1}\nper_map:\n  3m: {lr: 2, env_args: {b: 2}}\n  MMM2:\n",
    )
    alone = {"lr": 1, "env_args": {"a": 1, "b": 1}}
    assert files.load("algs", mine) == alone
    assert files.load("algs", mine, "3m") == {"lr": 2, "env_args": {"a": 1, "b": 2}}
    for other in ("MMM2", "3M", "", None, 3, ["3m"]):
        assert files.load("algs", mine, other) == alone


def test_an_extending_file_is_merged_over_the_other_and_then_the_map_is_looked_up(tmp_path):
    write(
        tmp_path / "far.yaml",
        "a: far\nb: far\nc: far\nd: far\nper_map:\n  3m: {c: far 3m, d: far 3m}\n  8m: {e: far 8m}\n",
    )
    (tmp_path / "near").mkdir()
    write(tmp_path / "near" / "middle.yaml", "extends: ../far.yaml\nb: middle\n")
    last = write(tmp_path / "last.yaml", "extends: near/middle.yaml\nc: last\nper_map:\n  3m: {d: last 3m}\n")
    assert files.load("algs", last) == {"a": "far", "b": "middle", "c": "last", "d": "far"}
    assert files.load("algs", last, "3m") == {"a": "far", "b": "middle", "c": "far 3m", "d": "last 3m"}
    assert files.load("algs", last, "8m")["e"] == "far 8m"


def test_what_a_file_changes_in_a_suite_lies_over_its_values_and_under_those_of_the_map(tmp_path):
    far = write(
        tmp_path / "far.yaml",
        "a: far\nb: far\nc: far\nd: far\nper_env:\n  sc2: {b: far sc2, c: far sc2, d: far sc2}\n  smax:\n"
        "per_map:\n  3m: {c: far 3m}\n",
    )
    last = write(tmp_path / "last.yaml", "extends: far.yaml\nb: last\nper_env:\n  sc2: {c: last sc2, d: last sc2}\n")
    alone = {"a": "far", "b": "last", "c": "far", "d": "far"}
    for other in ("smax", "SC2", "", None, 3, ["sc2"]):
        assert files.load("algs", last, env=other) == alone
    stack = files.layers("algs", last)
    settings, sources = files.overlay(files.resolved(stack, "sc2", "3m"))
    assert settings == {"a": "far", "b": "far sc2", "c": "far 3m", "d": "last sc2"}
    assert sources == {"a": far, "b": f"{far}, env sc2", "c": f"{far}, map 3m", "d": f"{last}, env sc2"}


@pytest.mark.parametrize(("kind", "name", "key"), [("algs", "s2q", "learner"), ("envs", "smax", "env")])
def test_a_file_may_extend_one_that_ships(tmp_path, kind, name, key):
    mine = write(tmp_path / "mine.yaml", f"extends: {name}\nname: mine\n")
    assert files.load(kind, mine) == files.load(kind, name) | {"name": "mine"}
    assert [layer.source for layer in files.layers(kind, mine)] == [f"{kind}/{name}.yaml", mine]
    assert key in files.layers(kind, mine)[0].settings


def test_every_setting_is_traced_to_the_file_that_had_the_last_word(tmp_path):
    write(tmp_path / "base.yaml", "a: 1\nb: 1\nc: 1\nx: {p: 1, q: 1}\ny: 1\nz: {p: 1}\nper_map: {3m: {c: 2}}\n")
    base, mine = (
        tmp_path / "base.yaml",
        write(tmp_path / "mine.yaml", "extends: base.yaml\nb: 1\nx: {q: 3}\ny: {p: 4}\nz: 5\n"),
    )
    stack = files.layers("algs", mine)
    settings, sources = files.overlay(files.resolved(stack, None, "3m"))
    assert settings == {"a": 1, "b": 1, "c": 2, "x": {"p": 1, "q": 3}, "y": {"p": 4}, "z": 5}
    assert sources == {
        "a": str(base),
        "b": mine,
        "c": f"{base}, map 3m",
        "x.p": str(base),
        "x.q": mine,
        "y.p": mine,
        "z": mine,
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("extends: s2", ["mine.yaml", "extends the unknown 's2'", "'s2q'", "--list"]),
        ("extends: smax", ["extends the unknown 'smax'"]),
        ("extends: ''", ["extends the unknown ''"]),
        ("extends: no.yaml", ["mine.yaml extends", "no.yaml", "does not exist", "--list"]),
        ("extends: [s2q, qmix]", ["mine.yaml", "extends ['s2q', 'qmix']", "one name or path"]),
        ("extends: mine.yaml", ["in a circle", "mine.yaml -> ", "'extends' out"]),
        ("extends: ./deep/../mine.yaml", ["in a circle"]),
        ("extends: other.yaml", ["in a circle", "mine.yaml -> ", "other.yaml -> "]),
        ("per_map: corridor", ["per_map in", "mine.yaml", "mapping of map names", "'corridor'"]),
        ("per_map: [corridor]", ["per_map in", "mapping of map names"]),
        ("per_map: false", ["per_map in", "mapping of map names"]),
        ("per_map: {8: {lr: 1}}", ["per_map in", "mapping of map names", "8"]),
        ("per_map: {corridor: 0.75}", ["per_map.corridor in", "mine.yaml", "mapping of setting names", "0.75"]),
        ("per_map: {corridor: {1: 2}}", ["per_map.corridor in", "mapping of setting names"]),
        ("per_map: {corridor: {per_map: {MMM2: {}}}}", ["per_map.corridor in", "'per_map'", "top of a file"]),
        ("per_map: {corridor: {extends: s2q}}", ["per_map.corridor in", "'extends'", "top of a file"]),
        ("per_map: {corridor: {env_args: {map_name: 3m}}}", ["per_map.corridor in", "env_args.map_name", "leave"]),
        ("per_map: {corridor: {env: smax}}", ["per_map.corridor in", "sets env,", "leave"]),
        ("per_env: sc2", ["per_env in", "mine.yaml", "mapping of environment names", "'sc2'"]),
        ("per_env: {sc2: 0.75}", ["per_env.sc2 in", "mine.yaml", "mapping of setting names", "0.75"]),
        ("per_env: {smac: {lr: 1}}", ["per_env.smac in", "mine.yaml", "no environment", "'smax'"]),
        ("per_env: {sc2: {env: smax}}", ["per_env.sc2 in", "sets env,", "leave"]),
        ("per_env: {sc2: {env_args: {map_name: 3m}}}", ["per_env.sc2 in", "env_args.map_name", "leave"]),
        ("per_env: {sc2: {per_map: {}}}", ["per_env.sc2 in", "'per_map'", "top of a file"]),
        ("per_map: {pursuit: {env_args: {env_name: pursuit}}}", ["per_map.pursuit in", "env_args.env_name", "leave"]),
    ],
)
def test_what_cannot_be_extended_or_chosen_is_refused_in_one_sentence(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    write(tmp_path / "other.yaml", "extends: deep/third.yaml")
    write(tmp_path / "deep" / "third.yaml", "extends: ../mine.yaml")
    write(tmp_path / "mine.yaml", content)
    with pytest.raises(UserError) as refusal:
        files.load("algs", "mine.yaml")
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_broken_file_is_refused_where_it_is_extended(tmp_path):
    write(tmp_path / "base.yaml", "- a list\n")
    mine = write(tmp_path / "mine.yaml", "extends: base.yaml\n")
    with pytest.raises(UserError, match=r"base\.yaml must be a mapping"):
        files.load("algs", mine)


# What ships resolves, on every map that it names, and holds the papers' values.


@dataclass(frozen=True)
class AnyMapSettings:
    map_name: Annotated[str, "any name will do"] = "none"


class AnyMap:
    """Stands for the suites whose maps the algorithms' files name; its settings are all that is needed."""

    Settings = AnyMapSettings


def on_map(alg, map_name):
    """The checked settings of an algorithm on a map of a suite that has maps of every name."""
    here = files.Layer("test", {"env": f"{__name__}:AnyMap", "env_args": {"map_name": map_name}})
    stack = files.layers("algs", alg)
    settings, sources = files.overlay([here, *files.resolved(stack, None, map_name)])
    return RunSettings(settings, ExperimentSettings, sources)


def shipped_maps(kind):
    return sorted({(n, m) for n in files.names(kind) for layer in files.layers(kind, n) for m in layer.per_map})


@pytest.mark.parametrize(("alg", "map_name"), shipped_maps("algs"))
def test_every_map_of_every_shipped_algorithm_resolves(alg, map_name):
    settings = on_map(alg, map_name)
    own = [source for source in settings.sources.values() if source.endswith(f", map {map_name}")]
    assert own, "an entry that changes nothing"


def test_every_map_of_every_shipped_environment_resolves():
    for env, map_name in shipped_maps("envs"):
        raw = files.load("envs", env, map_name)
        key = next(
            row.key for row in declared_by(registry.find("env", raw["env"]).Settings, env) if row.key in files.MAP_KEYS
        )
        raw = files.merge(raw, {"env_args": {key: map_name}})
        RunSettings(files.merge(raw, files.load("algs", "qmix", map_name)), ExperimentSettings)


# Table F.2 of the S2Q paper: K, T, alpha, w_c.
F2 = {
    "5m_vs_6m": (2, 0.1, 1.0, 0.9),
    "MMM2": (2, 0.1, 1.0, 0.9),
    "27m_vs_30m": (2, 0.1, 1.0, 0.9),
    "corridor": (2, 0.1, 1.0, 0.75),
    "6h_vs_8z": (2, 0.1, 1.0, 0.9),
    "3s5z_vs_3s6z": (2, 0.1, 1.0, 0.75),
    "academy_3_vs_2": (2, 0.1, 1.0, 0.75),
    "academy_4_vs_3": (2, 0.1, 1.0, 0.75),
    "1o_2r_vs_4r": (2, 0.1, 1.0, 0.9),
    "1o_10b_vs_1r": (2, 0.1, 1.0, 0.9),
    "5z_vs_1ul": (2, 0.1, 1.0, 0.9),
    "bane_vs_hM": (2, 0.1, 1.0, 0.9),
    "terran_5_vs_5": (2, 0.1, 1.0, 0.75),
    "zerg_5_vs_5": (2, 0.1, 1.0, 0.75),
    "protoss_5_vs_5": (2, 0.1, 1.0, 0.75),
    "5m_vs_6m_Hard": (2, 0.1, 1.0, 0.9),
    "2s3z_Hard": (2, 0.1, 1.0, 0.9),
    "3s_vs_5z_Hard": (2, 0.1, 1.0, 0.9),
}
FOOTBALL_IDS = {"academy_3_vs_1_with_keeper": "academy_3_vs_2", "academy_4_vs_2_with_keeper": "academy_4_vs_3"}


@pytest.mark.parametrize("map_name", [*F2, *FOOTBALL_IDS])
def test_s2q_has_the_papers_values_on_every_scenario_of_its_tables(map_name):
    settings = on_map("s2q", map_name)
    values = settings.values
    paper = F2[FOOTBALL_IDS.get(map_name, map_name)]
    assert (values["K"], values["T"], values["alpha"], values["w_c"]) == paper
    assert settings.sources["w_c"] == f"algs/s2q.yaml, map {map_name}"
    assert values["epsilon_anneal_time"] == (500_000 if map_name == "6h_vs_8z" else 100_000)


def test_s2q_names_no_other_scenario():
    assert {m for n, m in shipped_maps("algs") if n == "s2q"} == {*F2, *FOOTBALL_IDS}


@pytest.mark.parametrize("alg", ["s2q", "ow_qmix", "cw_qmix", "qmix", "vdn"])
def test_all_that_are_compared_on_6h_vs_8z_explore_equally_long(alg):
    assert on_map(alg, "6h_vs_8z").values["epsilon_anneal_time"] == 500_000
    assert on_map(alg, "3m").values["epsilon_anneal_time"] == 100_000


# Methods that are compared in one environment differ in the method, not in what their agents know.

INPUTS = ("obs_agent_id", "obs_last_action", "full_comm", "rnn_hidden_dim", "time_limit_is_terminal", "env_args")
STARCRAFT = ("sc2", "sc2v2", "sc2hard")


def of_a_run(alg, env, **env_args):
    """The checked settings of a run as the command line puts them together."""
    stack = [*files.layers("envs", env), *files.layers("algs", alg)]
    if env_args:
        stack.append(files.Layer("command line", {"env_args": env_args}))
    bare = files.overlay(stack)[0]
    raw, sources = files.overlay(files.resolved(stack, bare["env"], files.map_of(bare.get("env_args"))))
    return RunSettings(raw, ExperimentSettings, sources)


def meant_to_differ(alg, env):
    """What a preset changes on purpose, and says so in its file."""
    differs = set()
    if alg == "full_comm":
        differs.add("full_comm")
    if alg == "bang_bang_lan":
        differs.add("env_args")  # action_mode
    if alg.startswith("s2q") and env in STARCRAFT:
        differs.add("obs_agent_id")  # as released
    if alg in ("vdn_cadp", "qmix_cadp", "qplex_cadp") and env == "grf":
        differs |= {"rnn_hidden_dim", "time_limit_is_terminal", "env_args"}  # as released
    return differs


SMAC_MAPS = ["5m_vs_6m", "27m_vs_30m", "6h_vs_8z", "3s5z_vs_3s6z"]
MAPS = {
    "smax": SMAC_MAPS,
    "sc2": [*SMAC_MAPS, "MMM2", "corridor", "1o_10b_vs_1r", "5z_vs_1ul"],
    "sc2v2": ["zerg_5_vs_5"],
    "grf": [
        "academy_3_vs_1_with_keeper",
        "academy_counterattack_easy",
        "academy_4_vs_3",
        "academy_counterattack_hard",
        "5_vs_5",
    ],
    "sisl": ["waterworld", "pursuit"],
}


@pytest.mark.parametrize(("env", "map_name"), [(e, m) for e in files.names("envs") for m in [None, *MAPS.get(e, [])]])
def test_all_methods_know_the_same_in_one_environment(env, map_name):
    where = {} if map_name is None else {"env_name" if env == "sisl" else "map_name": map_name}
    common = of_a_run("qmix", env, **where).values
    algs = [alg for alg in files.names("algs") if "action_mode" in common["env_args"] or alg != "bang_bang_lan"]
    for alg in algs:
        values = of_a_run(alg, env, **where).values
        different = {key for key in INPUTS if values.get(key) != common.get(key)}
        assert different == meant_to_differ(alg, env), alg


@pytest.mark.parametrize("alg", [name for name in files.names("algs") if name.startswith("s2q")])
def test_s2q_leaves_ids_out_on_starcraft_alone(alg):
    for env in files.names("envs"):
        settings = of_a_run(alg, env)
        assert settings.values["obs_agent_id"] is (env not in STARCRAFT)
        if env in STARCRAFT:
            assert settings.sources["obs_agent_id"] == f"algs/s2q.yaml, env {env}"
    # A map of SMAX has the name of StarCraft's.
    assert of_a_run(alg, "smax", map_name="6h_vs_8z").values["obs_agent_id"] is True
    assert of_a_run(alg, "sc2", map_name="6h_vs_8z").values["obs_agent_id"] is False
