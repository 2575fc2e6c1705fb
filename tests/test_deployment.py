"""What is deployed of a checkpoint: the agents alone, and they act as the trained team does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from shoal import deployment
from shoal.command_line.main import main
from shoal.components.spec import TeamSpec
from shoal.config.settings import RunSettings
from shoal.controllers.basic import BasicMAC
from shoal.experiment import ExperimentSettings
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from support.launch import in_process

GAME = ["--env-config=matrix_game", "with", "runner=episode", "seed=3", "t_max=24", "batch_size=4", "buffer_size=40"]
QUICK = [*GAME, "test_nepisode=2", "test_interval=12", "save_model_interval=12"]
TEAMS = {
    "vdn": (["--config=vdn"], {"mixer", "target"}),
    "vdn, normalised": (["--config=vdn"], {"mixer", "target", "moments"}),
    "cadp": (["--config=qmix_cadp"], {"mixer", "target", "query_key"}),
    "s2q": (["--config=s2q"], {"mixer", "target", "decoder", "central"}),
    "s2q_comm, normalised": (["--config=s2q_comm"], {"mixer", "target", "decoder", "central", "moments"}),
    "s2q_comm": (["--config=s2q_comm"], {"mixer", "target", "decoder", "central"}),
    "s2q_cadp": (["--config=s2q_cadp"], {"mixer", "target", "decoder", "central", "query_key"}),
}


VECTORS = {
    "qf_lan": (["--config=qf_lan"], []),
    "mq_lan": (["--config=mq_lan"], ["mq_k=6"]),
    "mq_lan, normalised": (["--config=mq_lan"], ["mq_k=6", "normalise_inputs=True"]),
    "mq_lan, one codebook": (["--config=mq_lan"], ["mq_k=6", "mq_codebook=shared"]),
    "mq_lan_stable": (["--config=mq_lan_stable"], ["mq_k=6"]),
}


def exported(tmp_path: Path, *command: str) -> tuple[dict[str, Any], BasicMAC, BasicMAC]:
    """A short run, exported: what the file holds, the trained team, and the one that the file holds."""
    assert in_process(tmp_path, *command) == 0
    out = tmp_path / "team.pt"
    assert main(["src/main.py", "export", str(tmp_path / "results" / "sacred" / "1"), f"--out={out}"]) == 0
    (models,) = (tmp_path / "results" / "models").iterdir()
    content = checkpoints.load(checkpoints.find(models))
    settings, spec = RunSettings(content["config"], ExperimentSettings), TeamSpec(**content["spec"])
    learner = settings.make("learner", spec=spec, make=settings.make)
    learner.load_networks(content["learner"])
    return torch.load(out, weights_only=True), learner.controller.for_execution(), deployment.load(out)


@pytest.mark.parametrize("name", VECTORS)
def test_an_exported_team_of_continuous_actions_is_an_enumeration(name: str, tmp_path: Path) -> None:
    options, more = VECTORS[name]
    game = [option.replace("matrix_game", "toy_modes") for option in QUICK]
    held, trained, loaded = exported(tmp_path, *options, *game, *more)
    networks, spec = held["networks"], loaded.spec
    learnt = [key for key in networks if not key.startswith("inputs.")]
    assert not [key for key in learnt for part in ("value", "target", "mean", "usage", "frozen") if part in key]
    assert ("inputs.normaliser.mean" in networks) == ("normalised" in name)
    acted = []
    for team in (trained, loaded):
        torch.manual_seed(0)
        step = TensorDict({"obs": torch.randn(16, spec.n_agents, spec.obs_dim)}, batch_size=[16])
        acted.append(team.select_actions(step, team.initial_state(16), 0, test_mode=True)[0]["actions"])
    assert torch.equal(*acted)
    if "codebook.slots" in networks:
        slots = networks["codebook.slots"]
        assert slots.shape == (spec.n_agents, 6, spec.n_actions)
        assert all(bool((acted[0][:, i, None] == slots[i]).all(-1).any(-1).all()) for i in (0, 1))


@pytest.mark.parametrize("name", TEAMS)
def test_an_exported_team_acts_as_the_trained_one_and_holds_nothing_else(name: str, tmp_path: Path) -> None:
    options, left_out = TEAMS[name]
    normalised = ["normalise_inputs=True"] if "normalised" in name else []
    held, trained, team = exported(tmp_path, *options, *QUICK, *normalised)
    assert ("inputs.normaliser.mean" in held["networks"]) == bool(normalised)
    assert not [key for key in held["networks"] for part in left_out if part in key]
    assert held.keys() == {"format", "team", "config", "spec", "networks"}
    spec = team.spec

    ours, theirs = team.initial_state(32), trained.initial_state(32)
    torch.manual_seed(0)
    for _ in range(3):
        obs = torch.randn(32, spec.n_agents, spec.obs_dim)
        avail = torch.ones(32, spec.n_agents, spec.n_actions, dtype=torch.bool)
        step = TensorDict({"obs": obs, "avail_actions": avail}, batch_size=[32])
        acted, ours = team.select_actions(step, ours, 0, test_mode=True)
        expected, theirs = trained.select_actions(step, theirs, 0, test_mode=True)
        assert torch.equal(acted["actions"], expected["actions"])
        torch.testing.assert_close(ours["hidden"], theirs["hidden"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "needs one checkpoint"),
        (["a", "b"], "needs one checkpoint"),
        (["nowhere"], "no checkpoint at nowhere"),
        (["a", "--to", "b"], "no option --to"),
        (["a", "--out"], "--out needs a value"),
        (["a", "--load_step=soon"], "--load_step soon"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["src/main.py", "export", *args]) == 1
    assert words in capsys.readouterr().err


def test_files_that_hold_no_team_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no team at"):
        deployment.load(tmp_path / "team.pt")
    checkpoints.write({"learner": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no exported team"):
        deployment.load(tmp_path / "other.pt")
    with pytest.raises(UserError, match="resume its run"):
        deployment.deployed({"learner": {}}, tmp_path / "other.pt")
    checkpoints.write({"team": 1, "config": {}, "spec": {}, "networks": {}}, tmp_path / "team.pt")
    with pytest.raises(UserError, match=r"team\.pt is an exported team"):
        deployment.write(tmp_path / "team.pt", tmp_path / "again.pt")


@pytest.mark.parametrize("setting", ["resume", "checkpoint_path"])
def test_a_team_is_no_checkpoint_to_start_from(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.write({"team": 1, "config": {}, "spec": {}, "networks": {}}, tmp_path / "team.pt")
    assert in_process(tmp_path, "--config=vdn", *QUICK, f"{setting}=team.pt") == 1
    assert "team.pt is an exported team" in capsys.readouterr().err


@pytest.fixture(scope="module")
def team_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A team, as read from its file."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["src/main.py", "--config=vdn", *QUICK]) == 0
        assert main(["src/main.py", "export", "results/sacred/1"]) == 0
    return checkpoints.load(folder / "team.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"networks": None}, "incomplete"),
        ({"networks": {}}, "do not match"),
        ({"networks": {"agent.fc_in.weight": torch.zeros(3)}}, "do not match"),
        ({"networks": 3}, "incomplete"),
        ({"spec": {}}, "do not match"),
        ({"spec": {"n_agents": 2}}, "do not match"),
        ({"spec": 3}, "incomplete"),
        ({"config": {}}, "has no value"),
        ({"config": 3}, "incomplete"),
        ({"config": {"learner": "q_learner", "env": "x", "mac": "nothing"}}, "Unknown mac 'nothing'"),
        ({"team": 99}, "holds no exported team"),
    ],
)
def test_a_malformed_team_is_refused_in_a_sentence(
    team_file: dict[str, Any], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    torch.save(team_file | change, tmp_path / "team.pt")
    with pytest.raises(UserError, match=words):
        deployment.load(tmp_path / "team.pt")


@pytest.mark.parametrize("part", ["networks", "spec", "config", "team"])
def test_a_team_that_lacks_a_part_is_refused_in_a_sentence(
    team_file: dict[str, Any], tmp_path: Path, part: str
) -> None:
    torch.save({key: value for key, value in team_file.items() if key != part}, tmp_path / "team.pt")
    with pytest.raises(UserError, match=r"incomplete|no exported team"):
        deployment.load(tmp_path / "team.pt")


@pytest.mark.parametrize("content", [b"", b"a text", b"PK\x03\x04 half an archive"])
def test_a_file_of_another_kind_is_no_team(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "team.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"team\.pt"):
        deployment.load(tmp_path / "team.pt")


def test_a_team_imports_only_what_its_reader_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = "shoal.modules.agents.rnn:RNNAgent"
    assert in_process(tmp_path, "--config=vdn", *QUICK, f"agent={agent}") == 0
    (models,) = (tmp_path / "results" / "models").iterdir()
    out = tmp_path / "team.pt"
    assert main(["src/main.py", "export", str(models), f"--out={out}"]) == 0
    with pytest.raises(UserError, match=f"agent={agent}"):
        deployment.load(out)
    assert deployment.load(out, components=[agent]).spec.n_agents == 2

    content = torch.load(out, weights_only=True)
    content["config"] |= {"env": "antigravity:Env", "runner": "this:Runner", "env_args": {"key": "os:system"}}
    torch.save(content, out)
    deployment.load(out, components=[agent])  # neither is part of a team
