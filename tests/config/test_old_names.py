"""YAML files of PyMARL, PyMARL2, EPyMARL and S2Q's release: their keys and values, run as they are."""

from pathlib import Path

import pytest
import yaml

from shoal import registry
from shoal.command_line.main import main
from shoal.config import files, old_names
from shoal.config.run_config import raw_config
from shoal.config.settings import RunSettings
from shoal.experiment import ExperimentSettings
from shoal.utils.errors import UserError

EXPLORATION = {"action_selector": "epsilon_greedy", "epsilon_start": 1.0, "epsilon_finish": 0.05}
PYMARL2 = EXPLORATION | {
    "epsilon_anneal_time": 100000,
    "runner": "parallel",
    "batch_size_run": 8,
    "buffer_size": 5000,
    "batch_size": 128,
    "t_max": 10050000,
    "target_update_interval": 200,
    "agent_output_type": "q",
    "mixing_embed_dim": 32,
    "hypernet_embed": 64,
    "lr": 0.001,
    "td_lambda": 0.6,
}
N_MAC = {"mac": "n_mac", "agent": "n_rnn", "learner": "nq_learner", "optimizer": "adam", "q_lambda": False}
UNUSED = {
    "use_layer_norm": False,
    "use_orthogonal": False,
    "gain": 0.01,
    "use_per": False,
    "per_alpha": 0.6,
    "per_beta": 0.4,
    "return_priority": False,
}
CENTRAL = {
    "learner": "max_q_learner",
    "double_q": True,
    "hypernet_layers": 2,
    "central_loss": 1,
    "qmix_loss": 1,
    "w": 0.1,
    "hysteretic_qmix": True,
    "central_mixing_embed_dim": 256,
    "central_action_embed": 1,
    "central_mac": "basic_central_mac",
    "central_agent": "central_rnn",
    "central_rnn_hidden_dim": 64,
    "central_mixer": "ff",
}
DUELLING = {
    "learner": "dmaq_qatten_learner",
    "double_q": True,
    "adv_hypernet_layers": 2,
    "adv_hypernet_embed": 64,
    "num_kernel": 4,
    "is_minus_one": True,
    "weighted_head": True,
    "is_adv_attention": True,
    "is_stop_gradient": True,
}
PYMARL = EXPLORATION | {
    "epsilon_anneal_time": 50000,
    "runner": "episode",
    "buffer_size": 5000,
    "target_update_interval": 200,
    "agent_output_type": "q",
    "learner": "q_learner",
    "double_q": True,
    "mixer": "qmix",
    "mixing_embed_dim": 32,
    "hypernet_layers": 2,
    "hypernet_embed": 64,
    "name": "qmix",
}
EPYMARL = {key: value for key, value in PYMARL.items() if key != "target_update_interval"} | {
    "evaluation_epsilon": 0.0,
    "target_update_interval_or_tau": 200,
    "obs_agent_id": True,
    "obs_last_action": False,
    "obs_individual_obs": False,
    "use_rnn": False,
    "standardise_returns": False,
    "standardise_rewards": True,
}
S2Q = PYMARL2 | {
    "mac": "n_mac",
    "agent": "n_rnn",
    "learner": "sq_learner",
    "mixer": "qmix",
    "optimizer": "adam",
    "name": "S2Q",
    "use_rnn": True,
    "hidden_dim": 64,
    "rnn_hidden_dim": 256,
    "evaluation_epsilon": 0.0,
    "obs_agent_id": False,
    "central_mac": "basic_central_mac",
    "central_agent": "central_rnn",
    "central_mixer": "ff",
    "central_mixing_embed_dim": 256,
    "central_action_embed": 1,
    "K": 2,
    "T": 0.1,
    "w_c": 0.9,
    "test_greedy": True,
}
FILES = {
    "pymarl qmix": PYMARL,
    "pymarl iql": {k: v for k, v in PYMARL.items() if "hyper" not in k and "mixing" not in k} | {"mixer": None},
    "pymarl2 qmix": PYMARL2 | N_MAC | UNUSED | {"mixer": "qmix", "name": "qmix_env=8_adam_td_lambda"},
    "pymarl2 vdn": PYMARL2 | N_MAC | {"mixer": "vdn", "name": "vdn_env=8_adam_td_lambda"},
    "pymarl2 ow_qmix": PYMARL2 | CENTRAL | {"mixer": "qmix", "name": "ow_qmix_env=8_adam_td_lambda"},
    "pymarl2 qplex": PYMARL2 | DUELLING | {"mixer": "dmaq", "name": "qplex_env=8_adam_td_lambda"},
    "pymarl2 iql": {
        **{k: v for k, v in PYMARL.items() if "hyper" not in k and "mixing" not in k},
        "mixer": None,
        "runner": "parallel",
        "batch_size_run": 8,
        "optimizer": "adam",
        "name": "iql_env=8_adam",
    },
    "epymarl qmix": EPYMARL,
    "epymarl iql": EPYMARL | {"mixer": None, "use_rnn": True, "hidden_dim": 128, "name": "iql"},
    "s2q": S2Q,
}
SMALL = ["t_max=40", "batch_size=4", "buffer_size=40", "test_nepisode=2", "use_tensorboard=False", "seed=1"]


def written(tmp_path, content):
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def resolved(path, **updates):
    """The settings of a run on the payoff game, and all that is said of them."""
    chosen = {"--config": path, "--env-config": "matrix_game"}
    raw, sources, _, notes = raw_config(chosen, files.given([], updates), ExperimentSettings)
    settings = RunSettings(raw, ExperimentSettings, sources)
    return settings, " ".join([*notes, *settings.notes])


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_code_trains(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, FILES[name])
    small = [*SMALL, "batch_size_run=2"] if FILES[name]["runner"] == "parallel" else SMALL
    assert main(["src/main.py", "-u", f"--config={path}", "--env-config=matrix_game", "with", *small]) == 0
    assert "note: " in capsys.readouterr().err


@pytest.mark.parametrize("name", FILES)
def test_every_setting_of_it_is_used_or_said_to_have_no_effect(tmp_path, name):
    settings, said = resolved(written(tmp_path, FILES[name]))
    for key, value in FILES[name].items():
        used = key in settings.values and settings.values[key] == value
        assert used or f"{key}={value}" in said, key


def test_what_a_file_leaves_to_its_own_code_is_as_there(tmp_path):
    settings, said = resolved(written(tmp_path, PYMARL))
    theirs = {"lr": 0.0005, "batch_size": 32, "td_lambda": 0, "td_loss": 1.0, "optimizer": "rmsprop"}
    assert {key: settings.values[key] for key in theirs} == theirs
    assert "lr=0.0005, batch_size=32, td_lambda=0, td_loss=1.0, optimizer=rmsprop" in said
    settings, _ = resolved(written(tmp_path, EPYMARL), td_lambda=0.5)
    assert settings.values["optimizer"] == "adam"
    assert settings.values["td_lambda"] == 0.5
    values = resolved(written(tmp_path, FILES["pymarl2 iql"]))[0].values
    assert (values["optimizer"], values["td_loss"], values["td_lambda"]) == ("adam", 0.5, 0)
    settings, _ = resolved("qmix")
    assert settings.values["td_lambda"] == 0.6


def test_target_updates_are_counted_as_there(tmp_path):
    values = resolved(written(tmp_path, EPYMARL))[0].values
    assert (values["target_update_interval"], values["target_update_unit"]) == (200, "gradient_steps")
    values = resolved(written(tmp_path, PYMARL))[0].values
    assert (values["target_update_interval"], values["target_update_unit"]) == (200, "episodes")


def test_epymarls_agent_without_memory_is_mlp(tmp_path):
    settings, said = resolved(written(tmp_path, EPYMARL))
    assert settings.components["agent"] is registry.find("agent", "mlp")
    assert settings.values["standardise_rewards"] is True
    assert "use_rnn=False" in said
    settings, _ = resolved(written(tmp_path, EPYMARL | {"use_rnn": True}))
    assert settings.components["agent"] is registry.find("agent", "rnn")
    with pytest.raises(UserError, match=r"'use_rnn'.*agent=mlp"):
        resolved(written(tmp_path, EPYMARL | {"use_rnn": True}), agent="mlp")


def test_a_renamed_setting_loses_against_the_command_line(tmp_path):
    path = written(tmp_path, EPYMARL | {"hidden_dim": 128})
    assert resolved(path)[0].values["rnn_hidden_dim"] == 128
    assert resolved(path, rnn_hidden_dim=16)[0].values["rnn_hidden_dim"] == 16
    assert resolved(path, hidden_dim=16)[0].values["rnn_hidden_dim"] == 16


def test_the_release_of_s2q_reads_rnn_hidden_dim(tmp_path):
    settings, said = resolved(written(tmp_path, S2Q))
    assert settings.values["rnn_hidden_dim"] == 256
    assert "hidden_dim=64, next to rnn_hidden_dim=256" in said
    assert settings.components["mac"] is registry.find("mac", "s2q_mac")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_per": True}, ["'use_per'", "sampled uniformly"]),
        ({"q_lambda": True}, ["'q_lambda'", "TD(lambda)"]),
        ({"agent_output_type": "pi_logits"}, ["'agent_output_type'", "value-based"]),
        ({"test_greedy": False}, ["'test_greedy'", "evaluation_epsilon"]),
        ({"common_reward": False}, ["'common_reward'", "one reward"]),
        ({"target_update_interval_or_tau": 0.01}, ["soft target updates", "target_update_interval=200"]),
        ({"runner": "episode", "batch_size_run": 8}, ["'batch_size_run'", "runner=parallel"]),
        ({"agent": "att_rnn"}, ["agent=att_rnn", "another network in PyMARL2", "qmix_cadp"]),
        ({"learner": "coma_learner"}, ["coma_learner", "value-based"]),
        ({"mac": "non_shared_mac"}, ["non_shared_mac", "share their parameters"]),
        ({"central_rnn_hidden_dim": 32}, ["'central_rnn_hidden_dim'", "rnn_hidden_dim"]),
    ],
)
def test_what_shoal_does_not_do_is_refused_with_advice(tmp_path, changes, words):
    with pytest.raises(UserError) as refusal:
        resolved(written(tmp_path, PYMARL2 | N_MAC | {"mixer": "qmix"} | changes))
    for word in words:
        assert word in str(refusal.value)


def test_two_names_of_one_setting_exclude_each_other():
    with pytest.raises(UserError, match=r"hidden_dim=32 and rnn_hidden_dim=64 \(command line\) are one setting"):
        files.given([], {"hidden_dim": 32, "rnn_hidden_dim": 64})


def test_a_file_of_ones_own_gets_no_leniency(tmp_path):
    with pytest.raises(UserError, match=r"'mixing_embed_dim'.*only mixer=qmix would"):
        resolved(written(tmp_path, {"learner": "q_learner", "mixer": "vdn", "mixing_embed_dim": 32}))


def test_no_setting_of_ours_is_called_old():
    for key in old_names.RENAMED:
        for kind, names in registry.COMPONENTS.items():
            for name in names:
                assert key not in registry.find(kind, name).Settings.__dataclass_fields__


def test_an_environment_file_of_epymarl_resolves(tmp_path):
    theirs = {
        "env": "gymma",
        "env_args": {"key": "some:Game-v0", "time_limit": 100, "pretrained_wrapper": None},
        "test_greedy": True,
        "test_nepisode": 100,
        "test_interval": 50000,
        "log_interval": 50000,
        "runner_log_interval": 10000,
        "learner_log_interval": 10000,
        "t_max": 2050000,
    }
    path = Path(written(tmp_path, theirs))
    raw, sources, _, _ = raw_config(
        {"--config": "qmix", "--env-config": str(path)}, files.given([], {}), ExperimentSettings
    )
    settings = RunSettings(raw, ExperimentSettings, sources)
    assert settings.values["env_args"]["time_limit"] == 100
    assert "env_args.pretrained_wrapper=None" in " ".join(settings.notes)


def of_environment(env_config, given, alg="qmix"):
    """The environment's settings of a run with ``given`` behind 'with', their sources, and the notes."""
    raw, sources, _, notes = raw_config(
        {"--config": alg, "--env-config": env_config}, files.given([], given), ExperimentSettings
    )
    settings = RunSettings(raw, ExperimentSettings, sources)
    return settings.values["env_args"], sources, notes


SUITES = [
    ("sisl", "mq_lan", {"max_cycles": 200}, {"time_limit": 200}),
    ("sisl", "mq_lan", {"reward_scalarisation": "mean"}, {"reward_aggregation": "mean"}),
    ("sisl", "mq_lan", {"state_from_obs": False}, {"own_state": True}),
    ("smax", "qmix", {"max_steps": 20}, {"time_limit": 20}),
    ("matrix_game", "qmix", {"episode_limit": 3}, {"time_limit": 3}),
    ("sc2", "qmix", {"obs_instead_of_state": True}, {"own_state": False}),
    ("sc2v2", "qmix", {"obs_instead_of_state": False}, {"own_state": True}),
    ("sc2hard", "qmix", {"obs_instead_of_state": True}, {"own_state": False}),
]


@pytest.mark.parametrize(("suite", "alg", "old", "new"), SUITES)
def test_what_a_suite_called_otherwise_is_read_and_said(suite, alg, old, new):
    (key, value), (name, now) = *old.items(), *new.items()
    values, sources, notes = of_environment(suite, {"env_args": old}, alg)
    assert values[name] == now
    assert sources[f"env_args.{name}"] == "command line"
    assert notes == [f"env_args.{key}={value} in command line is called env_args.{name}={now} here"]


@pytest.mark.parametrize("suite", sorted(old_names.IN_ENV_ARGS))
def test_no_suite_has_both_names(suite):
    fields = registry.find("env", suite).Settings.__dataclass_fields__
    for old, moved in old_names.IN_ENV_ARGS[suite].items():
        assert old not in fields
        assert moved.name in fields


def test_an_argument_by_an_old_name_is_laid_over_those_of_the_map():
    given = {"env_args": {"env_name": "waterworld", "env_kwargs": {"n_poisons": 5}}}
    values, _, _ = of_environment("sisl", given, "mq_lan")
    assert values["kwargs"]["n_poisons"] == 5
    assert values["kwargs"]["n_coop"] == 1  # envs/sisl.yaml, map waterworld


def test_an_old_name_in_a_file_yields_to_the_command_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: smax\nper_map:\n  3m: {env_args: {max_steps: 20}}\n")
    assert of_environment(str(path), {"env_args": {"time_limit": 30}})[0]["time_limit"] == 30
    assert of_environment(str(path), {})[0]["time_limit"] == 20


def test_two_names_of_an_environments_setting_exclude_each_other():
    both = {"env_args": {"max_steps": 20, "time_limit": 30}}
    with pytest.raises(UserError, match=r"max_steps=20 and env_args.time_limit=30 \(command line\) are one setting"):
        of_environment("smax", both)


def test_an_environment_of_ones_own_may_call_its_settings_so():
    given = {"env": "my.module:Env", "env_args": {"max_steps": 3}}
    assert old_names.current(given) == given


def test_records_are_read_by_the_names_of_today():
    record = {"env": "sisl", "lr": 0.1, "env_args": {"max_cycles": 9, "state_from_obs": True, "env_name": "pursuit"}}
    now = {"time_limit": 9, "own_state": False, "env_name": "pursuit"}
    assert old_names.current(record) == record | {"env_args": now}
    assert record["env_args"]["max_cycles"] == 9  # the caller's own
