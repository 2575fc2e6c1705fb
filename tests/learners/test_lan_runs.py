"""Whole runs of the LAN family on a real environment with continuous actions: stopped and resumed, tested, refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from shoal.utils import checkpoint as checkpoints
from support.launch import curves, in_process

WALK = ["--env-config=pettingzoo", "with", "env_args.key=pettingzoo.sisl.multiwalker_v9", "env_args.time_limit=12"]
SMALL = ["seed=3", "runner=episode", "batch_size=3", "buffer_size=8", "rnn_hidden_dim=8", "value_embed_dim=8"]
LOG = ["test_interval=40", "test_nepisode=1", "runner_log_interval=24", "learner_log_interval=24"]
SAVE = ["save_model_interval=60", "save_buffer=True", "keep_checkpoints=0", "keep_buffers=0", "t_max=150"]
CODEBOOK = ["mq_k=10", "mq_manage_interval=3", "mq_starve_after=1", "mq_freeze=2"]


@pytest.mark.parametrize("alg", ["qf_lan", "mq_lan", "mq_lan_stable", "mq_lan_evolution"])
def test_going_on_from_a_checkpoint_is_going_on(tmp_path: Path, alg: str) -> None:
    """Every recorded number and every tensor stays the same, the codebook's life included."""
    pytest.importorskip("Box2D", reason="pip install Box2D pygame")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    codebook = CODEBOOK if alg.startswith("mq") else []
    assert in_process(whole, f"--config={alg}", *WALK, *SMALL, *LOG, *SAVE, *codebook) == 0
    (models,) = (whole / "results" / "models").iterdir()
    copy = Path(shutil.copytree(models, resumed / "models"))
    steps = checkpoints.steps_in(copy)
    first = next(step for step in steps if step > 0)
    for later in steps:
        if later > first:
            (copy / f"{later}.pt").unlink()
    assert in_process(resumed, "with", f"resume={copy}") == 0
    records = [folder / "results" / "sacred" / "1" for folder in (whole, resumed)]
    expected = curves(records[0], after=first)
    assert curves(records[1]) == expected
    assert len(expected["loss_td"]) >= 2
    ends: list[Any] = [checkpoints.load(folder / f"{steps[-1]}.pt")["learner"] for folder in (models, copy)]
    for name, value in ends[0].items():
        if isinstance(value, torch.Tensor):
            assert value.equal(ends[1][name]), name
    if alg == "mq_lan":
        assert int(ends[0]["controller.codebook.moves"].sum()) > 0
        assert any(value > 0 for _, value in expected["respawn_frac"])


@pytest.mark.parametrize("alg", ["mq_lan", "qf_lan"])
def test_a_method_for_vectors_refuses_discrete_actions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], alg: str
) -> None:
    assert in_process(tmp_path, f"--config={alg}", "--env-config=matrix_game", "with", "seed=1") == 1
    message = capsys.readouterr().err
    assert "actions are discrete" in message
    assert "--config=lan" in message


@pytest.mark.parametrize(("alg", "remedy"), [("qmix", "action_mode=bang_bang"), ("lan", "--config=mq_lan")])
def test_a_method_for_indices_refuses_vectors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], alg: str, remedy: str
) -> None:
    pytest.importorskip("Box2D", reason="pip install Box2D pygame")
    assert in_process(tmp_path, f"--config={alg}", *WALK, "seed=1", "runner=episode") == 1
    message = capsys.readouterr().err
    assert "continuous" in message
    assert remedy in message


def test_a_learner_without_a_centralised_value_cannot_train_a_codebook(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(tmp_path, "--config=qmix", "--env-config=matrix_game", "with", "mac=mq_mac", "seed=1") == 1
    assert "error:" in capsys.readouterr().err
