"""A checkpoint may name code: its own account's is imported, anybody else's only when the user vouches for it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from shoal.config import trust
from shoal.config.files import FOLDER, load
from shoal.utils import checkpoint as checkpoints
from shoal.utils.errors import UserError
from support.launch import in_process

GAME = {"env": "matrix_game", "env_args": {}}
RUN = ["--config=vdn", "--env-config=matrix_game", "with", "runner=episode", "seed=3", "t_max=8", "batch_size=4"]
QUICK = [*RUN, "buffer_size=8", "test_nepisode=1", "save_model_interval=8"]
OWN_MIXER = "shoal.modules.mixers.vdn:VDNMixer"
"""By its path, as a user's own mixer is named."""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From here on, another account."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another account"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (GAME, {}),
        (GAME | {"mixer": "my:Mixer", "agent": "rnn", "central_mac": None}, {"mixer": "my:Mixer"}),
        (GAME | {"env": "my.games:Env"}, {"env": "my.games:Env"}),
        ({"env": "pymarl", "env_args": {"key": "subprocess:Popen"}}, {"env_args.key": "subprocess:Popen"}),
        ({"env": "gymma", "env_args": {"key": "os.path:Env-v0"}}, {"env_args.key": "os.path:Env-v0"}),
        ({"env": "gymma", "env_args": {"key": "lbforaging:Foraging-8x8-2p-3f-v3"}}, {}),
        ({"env": "gymma", "env_args": {"key": "CartPole-v1"}}, {}),
        ({"env": "pettingzoo", "env_args": {"key": "antigravity"}}, {"env_args.key": "antigravity"}),
        ({"env": "pettingzoo", "env_args": {"key": "pettingzoo.sisl.pursuit_v4"}}, {}),
        ({"env": "sisl", "env_args": {"env_name": "pursuit"}}, {}),
        (GAME | {"callbacks": []}, {}),
        (GAME | {"callbacks": ["shoal.callbacks:CSV", "shoal.callbacks:Wandb"]}, {}),
        (GAME | {"callbacks": ["shoal.callbacks:CSV", "my:Watch", "a:B"]}, {"callbacks": "my:Watch, a:B"}),
        (GAME | {"callbacks": ["shoal.callbacks:Path"]}, {"callbacks": "shoal.callbacks:Path"}),
        (GAME | {"callbacks": "[os:system]"}, {"callbacks": "[os:system]"}),
    ],
)
def test_the_code_that_settings_name(values: dict[str, Any], expected: dict[str, str]) -> None:
    assert trust.imports_of(values) == expected
    assert bool(trust.sign(values)) == bool(expected)


def test_what_is_left_out_is_not_looked_at() -> None:
    assert trust.imports_of({"env": "my:Env", "mixer": "my:Mixer"}, skip=["env"]) == {"mixer": "my:Mixer"}
    assert trust.imports_of(GAME | {"callbacks": ["my:Watch"]}, skip=["callbacks"]) == {}


@pytest.mark.parametrize("name", sorted(path.stem for path in (FOLDER / "envs").glob("*.yaml")))
def test_what_ships_needs_no_trust(name: str) -> None:
    assert trust.imports_of(load("envs", name)) == {}


def test_a_signature_is_of_these_settings_and_of_this_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    values = GAME | {"mixer": "my:Mixer"}
    content = {"config": values, trust.SIGNATURE: trust.sign(values)}
    file = tmp_path / "8.pt"
    trust.check(content, file, trusted=False)
    others = [
        content | {"config": values | {"mixer": "my:Other"}},
        content | {trust.SIGNATURE: ""},
        {"config": values},
        content | {trust.SIGNATURE: 3},
    ]
    for other in others:
        with pytest.raises(UserError, match="--trust"):
            trust.check(other, file, trusted=False)
        trust.check(other, file, trusted=True)
        trust.check(other, file, trusted=False, given=["mixer"])
    request.getfixturevalue("elsewhere")
    with pytest.raises(UserError, match="mixer=my:Mixer"):
        trust.check(content, file, trusted=False)


def test_without_a_place_for_a_key_nothing_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert trust.sign(GAME | {"mixer": "my:Mixer"}) == ""


def test_the_key_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    trust.sign(GAME | {"mixer": "my:Mixer"})
    (key,) = (tmp_path / "shoal").iterdir()
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_checkpoint_that_names_a_command_does_not_run_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process(tmp_path, *QUICK) == 0
    (models,) = (tmp_path / "results" / "models").iterdir()
    file = models / "8.pt"
    content = torch.load(file, weights_only=True)
    mark = tmp_path / "it ran"
    content["config"] |= {
        "env": "pymarl",
        "env_args": {"key": "subprocess:Popen", "kwargs": {"args": ["touch", str(mark)]}},
    }
    checkpoints.write({key: value for key, value in content.items() if key != "format"}, file)
    assert in_process(tmp_path, "with", f"resume={models}") == 1
    assert "env_args.key=subprocess:Popen" in capsys.readouterr().err
    assert in_process(tmp_path, "export", str(models)) == 0  # a team acts without its environment
    assert not mark.exists()


def test_ones_own_run_is_resumed_without_a_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    assert in_process(tmp_path, *QUICK, f"mixer={OWN_MIXER}") == 0
    (models,) = (tmp_path / "results" / "models").iterdir()
    assert in_process(tmp_path, "with", f"resume={models}", "t_max=16") == 0
    assert in_process(tmp_path, "export", str(models)) == 0

    request.getfixturevalue("elsewhere")
    for command in (["export", str(models)], ["with", f"resume={models}", "t_max=24"]):
        assert in_process(tmp_path, *command) == 1
        assert f"mixer={OWN_MIXER}" in capsys.readouterr().err
        assert in_process(tmp_path, *command, "--trust") == 0
    # Once trusted, it is this account's.
    assert in_process(tmp_path, "with", f"resume={models}", "t_max=32") == 0
