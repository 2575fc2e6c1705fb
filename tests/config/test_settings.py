"""From raw values to checked settings: types, defaults, who reads what, and what is refused."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from shoal import registry
from shoal.config import files
from shoal.config.run_config import raw_config
from shoal.config.settings import RunSettings, convert, declared_by, type_name
from shoal.declare import Checked, FileName, PathText, Range, Role
from shoal.experiment import ExperimentSettings
from shoal.modules.mixers.vdn import VDNMixer
from shoal.utils.errors import UserError

Kind = Literal["adam", "rmsprop"]

CONVERTED = [
    (3, int, 3),
    (1e6, int, 1_000_000),
    (2.0, int, 2),
    (3, float, 3.0),
    (0.5, float, 0.5),
    ("5e-4", float, 5e-4),
    ("1e6", float, 1e6),
    ("vdn", str, "vdn"),
    ("", str, ""),
    (True, bool, True),
    ("true", bool, True),
    ("false", bool, False),
    (None, str | None, None),
    ("null", str | None, None),
    ("none", int | None, None),
    ("vdn", str | None, "vdn"),
    (4, int | None, 4),
    (2, float | None, 2.0),
    ("rmsprop", Kind, "rmsprop"),
    ([1, 2.0], list[int], [1, 2]),
    ((1, 2), list[float], [1.0, 2.0]),
    ([[1, "x"]], list[Any], [[1, "x"]]),
    ([], list[int], []),
    ({"a": 1}, dict[str, Any], {"a": 1}),
    ({"b": [2]}, Any, {"b": [2]}),
]

REFUSED = [
    (2.5, int),
    (float("inf"), int),
    (float("nan"), int),
    (10**400, float),
    ("3", int),
    ("three", int),
    (True, int),
    (None, int),
    (True, float),
    ("fast", float),
    (None, float),
    ([1.0], float),
    (1, bool),
    (0, bool),
    ("yes", bool),
    (None, bool),
    (3, str),
    (None, str),
    (False, str),
    (["a"], str),
    ("sgd", Kind),
    (None, Kind),
    ("much", int | None),
    (3, list[int]),
    ("12", list[int]),
    ([1, "x"], list[int]),
    ([1], dict[str, Any]),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), CONVERTED)
def test_values_become_the_declared_type(value, annotation, expected):
    result = convert(value, annotation)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(("value", "annotation"), REFUSED)
def test_values_of_another_type_are_refused(value, annotation):
    with pytest.raises(TypeError):
        convert(value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("nan", float),
        (float("nan"), float),
        ("inf", float | None),
        (float("-inf"), float),
        ([0.5, float("nan")], list[float]),
        (2**63, int),
        (-(10**30), int | None),
        ("1e30", int),
    ],
)
def test_numbers_that_no_record_can_hold_are_refused(value, annotation):
    with pytest.raises(ValueError, match=r"finite|too large"):
        convert(value, annotation)


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (int, "whole number"),
        (float, "number"),
        (bool, "true or false"),
        (str | None, "text or null"),
        (Kind, "one of adam, rmsprop"),
        (list[int], "list of whole number"),
        (dict[str, Any], "mapping"),
    ],
)
def test_types_are_named_as_a_user_would(annotation, said):
    assert type_name(annotation) == said


@dataclass(frozen=True)
class Sample:
    width: Annotated[int, "how wide", Range(1), Role.HARDWARE]
    bare: float = 0.5


def test_a_dataclass_declares_type_default_help_and_role():
    width, bare = declared_by(Sample, "sample")
    assert (width.key, width.type, width.help, width.reader) == ("width", int, "how wide", "sample")
    assert (width.checks, width.role) == ((Range(1),), Role.HARDWARE)
    assert (bare.key, bare.type, bare.default, bare.help) == ("bare", float, 0.5, "")
    assert (bare.checks, bare.role) == ((), Role.METHOD)


def every_row():
    """Dotted name and declaration of each setting of the experiment and of every component that ships."""
    readers = [(kind, name) for kind, names in registry.COMPONENTS.items() for name in names]
    yield from ((row.key, row) for row in declared_by(ExperimentSettings, "experiment"))
    for kind, name in readers:
        for row in declared_by(registry.find(kind, name).Settings, f"{kind}={name}"):
            yield (f"env_args.{row.key}" if kind == "env" else row.key), row


def test_help_stands_alone():
    """``print_config`` sorts settings, and each component has its own: no text may lean on another setting's."""
    leaning = re.compile(r"\b(the same as|the same for|the same in|these|those|that (line|script))\b")
    for path, row in every_row():
        assert row.help, path
        assert not leaning.search(row.help), f"{path}: {row.help}"
        assert not row.help.endswith("."), path


def test_a_name_has_one_role_wherever_it_is_declared():
    roles = {}
    for path, row in every_row():
        assert roles.setdefault(path, row.role) is row.role, (path, row.reader)
    used = {role: sorted(path for path, one in roles.items() if one is role) for role in Role}
    assert all(used.values())
    assert used[Role.SEED] == ["seed"]
    assert used[Role.LENGTH] == ["t_max"]
    assert used[Role.TASK] == ["env_args.env_name", "env_args.key", "env_args.map_name"]


def raw(alg="s2q", env="matrix_game", **changes):
    content = files.read(files.FOLDER / "default.yaml")
    content = files.merge(content, files.load("envs", env))
    return files.merge(files.merge(content, files.load("algs", alg)), changes)


def resolve(alg="s2q", env="matrix_game", **changes):
    return RunSettings(raw(alg, env, **changes), ExperimentSettings)


def environment_settings(env):
    """The keys of ``env_args`` that the environment of a YAML file has."""
    name = files.load("envs", env)["env"]
    return {row.key for row in declared_by(registry.find("env", name).Settings, name)}


@pytest.mark.parametrize("env", files.names("envs"))
@pytest.mark.parametrize("alg", files.names("algs"))
def test_every_algorithm_goes_with_every_environment(alg, env):
    # The pymarl suite has no environment of its own to name.
    more = {"env_args": {"key": "package.module:Class"}} if env == "pymarl" else {}
    if alg == "bang_bang_lan" and "action_mode" not in environment_settings(env):
        with pytest.raises(UserError, match=r"env_args\.action_mode"):
            resolve(alg, env, **more)
        return
    settings = resolve(alg, env, **more)
    assert settings.values["name"] == alg
    assert {"env", "runner", "mac", "learner", "agent", "action_selector"} <= set(settings.components)
    assert all(row.help for row in settings.declared.values()), "a setting without help"
    for path in settings.declared:
        section, _, key = path.rpartition(".")
        assert key in (settings.values[section] if section else settings.values)


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, known in registry.COMPONENTS.items() for n in known])
def test_every_registered_component_declares_its_settings_with_help(kind, name):
    component = registry.find(kind, name)
    assert registry.one_line(kind, name)
    assert all(row.help for row in declared_by(component.Settings, name))


def test_overrides_win_over_defaults_and_are_converted():
    settings = resolve(t_max=1e6, lr="5e-4", env_args={"time_limit": 3.0})
    assert settings.values["t_max"] == 1_000_000
    assert settings.values["lr"] == 5e-4
    assert settings.values["env_args"]["time_limit"] == 3
    assert settings.values["env_args"]["payoff"][0] == [8, 0, -12]
    assert settings.of(ExperimentSettings).t_max == 1_000_000
    assert settings.of(settings.components["learner"].Settings).lr == 5e-4


def test_a_setting_read_by_two_components_has_one_value():
    settings = resolve(rnn_hidden_dim=7, obs_agent_id=True)
    for kind in ("agent", "central_agent"):
        assert settings.of(settings.components[kind].Settings).rnn_hidden_dim == 7


def test_null_leaves_a_component_out():
    settings = resolve("iql")
    assert "mixer" not in settings.components
    assert "mixing_embed_dim" not in settings.values


@pytest.mark.parametrize(
    ("kind", "alias", "name"), [(k, a, n) for k, table in registry.ALIASES.items() for a, n in table.items()]
)
def test_the_names_of_other_codes_are_known(kind, alias, name):
    assert registry.find(kind, alias) is registry.find(kind, name)


def test_a_released_yaml_with_old_names_resolves():
    settings = resolve(learner="sq_learner", mac="n_mac", agent="n_rnn")
    assert settings.components["learner"] is registry.find("learner", "s2q_learner")
    assert settings.components["mac"] is registry.find("mac", "s2q_mac")
    settings = resolve("qmix", learner="nq_learner", mac="n_mac", agent="n_rnn")
    assert settings.components["mac"] is registry.find("mac", "basic_mac")


def test_a_component_by_import_path():
    assert registry.find("mixer", "shoal.modules.mixers.vdn:VDNMixer") is VDNMixer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bacth_size": 8}, ["'bacth_size'", "'batch_size'", "print_config"]),
        ({"env_args": {"payof": []}}, ["'env_args.payof'", "'env_args.payoff'"]),
        ({"env_arg": {}}, ["'env_arg'", "'env_args'"]),
        ({"double_q": False}, ["'double_q'", "learner=q_learner", "Remove it"]),
        ({"t_max": "much"}, ["t_max='much'", "whole number"]),
        ({"optimizer": "sgd"}, ["optimizer='sgd'", "adam, rmsprop"]),
        ({"env_args": 3}, ["env_args", "mapping"]),
        ({"mixer": "qmx"}, ["mixer 'qmx'", "'qmix'"]),
        ({"mixer": "no.such.module:Mixer"}, ["mixer=no.such.module:Mixer", "cannot be loaded"]),
        ({"mixer": "shoal.modules.mixers.vdn:Nothing"}, ["cannot be loaded", "Nothing"]),
        ({"mixer": "shoal.config.settings:Declared"}, ["Settings dataclass"]),
        ({"buffer_size": 5, "batch_size": 6}, ["buffer_size=5", "batch_size=6"]),
        ({"t_max": 0}, ["t_max=0", "at least 1"]),
        ({"K": -1}, ["K=-1", "from 0 to 1000"]),
        ({"T": 0}, ["T=0", "positive"]),
        ({"w_c": 0}, ["w_c=0", "above 0"]),
        ({"gamma": 1.5}, ["gamma=1.5", "0 to 1"]),
        ({"lr": 0}, ["lr=0", "positive"]),
        ({"s2q_fix_prob": 2}, ["s2q_fix_prob=2", "probability"]),
        ({"resume": "a", "checkpoint_path": "b"}, ["resume", "checkpoint_path"]),
        ({"epsilon_start": 2}, ["epsilon_start=2"]),
        ({"rnn_hidden_dim": 0}, ["rnn_hidden_dim=0"]),
        ({"grad_norm_clip": -1}, ["grad_norm_clip=-1"]),
        ({"seed": -1}, ["seed=-1"]),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, words):
    with pytest.raises(UserError) as refusal:
        resolve(**changes)
    for word in words:
        assert word in str(refusal.value)


def test_one_sentence_names_every_mistake():
    with pytest.raises(UserError) as refusal:
        resolve(
            lr="fast",
            rnn_hidden_dim=0,
            bacth_size=3,
            map_name="3m",
            payoff=[[1]],
            zzz=1,
            use_per=True,
            env_args={"payof": [], "gamma": 0.5, "time_limit": -1},
        )
    said = str(refusal.value)
    for words in (
        "lr='fast' has the wrong type",
        "rnn_hidden_dim=0 is out of range: it must be at least 1 (width of",
        "env_args.time_limit=-1 is out of range",
        "7 unknown settings: ",
        "'bacth_size': did you mean 'batch_size'",
        "'map_name': nothing in this run reads it, only env=grf, env=sc2, env=sc2hard, env=sc2v2, env=smax as "
        "env_args.map_name would",
        "'payoff': it is a setting of the environment, say env_args.payoff=[[1]]",
        "'zzz': there is no such setting",
        "'use_per': episodes are sampled uniformly",
        "'env_args.payof': did you mean 'env_args.payoff'?",
        "'env_args.gamma': it is no setting of the environment, say gamma=0.5",
    ):
        assert words in said
    assert "\n" not in said


@dataclass(frozen=True)
class Ranged(Checked):
    share: Annotated[float | None, "a share", Range(0, 1)] = None
    widths: Annotated[list[int], "widths", Range(1)] = field(default_factory=lambda: [1])
    rate: Annotated[float, "a rate", Range(above=0, below=2)] = 1.0
    title: Annotated[str, "what it is called", FileName()] = "x"
    folder: Annotated[str, "where", PathText(needed=True)] = "."


@pytest.mark.parametrize(
    "possible",
    [
        {"share": 0},
        {"share": 1},
        {"share": None},
        {"widths": [3, 1]},
        {"widths": []},
        {"rate": 1e-9},
        {"title": "ä b=8"},
    ],
)
def test_what_lies_in_its_range_is_taken(possible):
    Ranged(**possible)


@pytest.mark.parametrize(
    ("impossible", "words"),
    [
        ({"share": -0.1}, "share=-0.1 is out of range: it must be from 0 to 1"),
        ({"share": 1.1}, "share=1.1 is out of range"),
        ({"widths": [3, 0]}, r"widths=\[3, 0\] is out of range: it must be at least 1 \(each number\)"),
        ({"rate": 0}, "rate=0 is out of range: it must be above 0 and below 2"),
        ({"rate": 2}, "rate=2 is out of range"),
        ({"title": "../x"}, "title='../x' cannot name files"),
        ({"title": "/etc/x"}, "title='/etc/x' cannot name files: take '/' out"),
        ({"title": "a\nb"}, "cannot name files: take"),
        ({"title": ""}, "must not be empty"),
        ({"title": "x" * 101}, "is too long to name files"),
        ({"folder": ""}, "folder='' is no path"),
        ({"folder": "~no_such_user/x"}, "folder='~no_such_user/x' cannot be found"),
    ],
)
def test_what_lies_outside_its_range_is_refused_where_a_program_builds_it(impossible, words):
    with pytest.raises(UserError, match=words):
        Ranged(**impossible)


def numbers():
    """Every number that a component or the experiment declares, as kind, name and row."""
    classes = [("experiment", "", ExperimentSettings)]
    classes += [(k, n, registry.find(k, n).Settings) for k, known in registry.COMPONENTS.items() for n in known]
    return [
        (kind, name, row)
        for kind, name, settings in classes
        for row in declared_by(settings, name)
        if row.type in (int, float, int | None, float | None)
    ]


FREE = {
    "won_battle_bonus",
    "reward_death_value",
    "reward_win",
    "reward_defeat",
    "reward_negative_scale",
    "suppress_floor",
}
"""Numbers of which every one is possible."""


def test_every_number_has_a_range_or_is_known_to_need_none():
    lacking = {row.key for _, _, row in numbers() if not any(isinstance(c, Range) for c in row.checks)}
    assert lacking == FREE


def test_every_default_lies_in_its_range():
    for kind, name, row in numbers():
        for check in row.checks:
            if row.default is not None:
                assert check.read(row.default) == row.default, (kind, name, row.key)


@pytest.mark.parametrize("value", ["a\0b", "\udcff", ["x", {"y\0": 1}]])
def test_text_that_no_file_can_hold_is_refused(value):
    key, changes = ("payoff", {"env_args": {"payoff": value}}) if isinstance(value, list) else ("name", {"name": value})
    with pytest.raises(UserError, match=rf"{key}=.*(NUL|UTF-8)"):
        resolve(**changes)


def test_a_path_may_start_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve(local_results_path="~/runs").values["local_results_path"] == "/home/somebody/runs"


def test_a_setting_without_value_is_asked_for():
    with pytest.raises(UserError, match=r"'learner' \(learner: loss.*\) has no value"):
        RunSettings({"env": "matrix_game"}, ExperimentSettings)


def test_resolving_leaves_the_raw_settings_as_they_were():
    settings = raw()
    before = {**settings, "env_args": {**settings["env_args"]}}
    RunSettings(settings, ExperimentSettings)
    assert settings == before


def test_nearest_names_ignore_case_and_fall_back_to_all():
    assert registry.nearest("QMIX", ["qmix", "vdn"]) == "'qmix'"
    assert registry.nearest("zzz", ["vdn", "qmix"]) == "'qmix', 'vdn'"


class Bare:
    """An agent without a recurrent layer."""

    @dataclass(frozen=True)
    class Settings:
        depth: Annotated[int, "how deep"] = 3


@pytest.mark.parametrize("alg", ["qmix", "vdn", "iql", "ow_qmix", "s2q", "lan"])
def test_an_agent_of_ones_own_needs_no_width_on_football(alg):
    """A preset's width is its own agent's: it has no effect on another one, and that is said."""
    given = files.given([], {"agent": "config.test_settings:Bare"})
    content, sources, _, _ = raw_config({"--config": alg, "--env-config": "grf"}, given, ExperimentSettings)
    settings = RunSettings(content, ExperimentSettings, sources)
    assert settings.values["depth"] == 3
    if "central_agent" not in settings.components:  # which reads a width, too
        (note,) = settings.notes
        assert note.startswith(f"without effect in algs/{alg}.yaml, env grf: rnn_hidden_dim=256 (only agent=att_rnn")


def test_what_per_env_says_of_nothing_that_exists_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: qmix\nper_env:\n  grf: {rnn_hidden_width: 256}\n")
    content, sources, _, _ = raw_config({"--config": str(path), "--env-config": "grf"}, [], ExperimentSettings)
    with pytest.raises(UserError, match=r"'rnn_hidden_width'.*did you mean 'rnn_hidden_dim'"):
        RunSettings(content, ExperimentSettings, sources)
