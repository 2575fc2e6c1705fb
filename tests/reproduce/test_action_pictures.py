"""The pictures of continuous actions: what a team executes, and where its codebook has its slots."""

from pathlib import Path

import numpy as np
import pytest

from shoal.reproduce import action_map, codebook
from shoal.utils.errors import UserError
from support.launch import in_process

ARGS = ["env_args.key=pettingzoo.sisl.multiwalker_v9", "env_args.time_limit=10", "runner=episode", "batch_size=2"]
SMALL = ["buffer_size=4", "seed=1", "t_max=40", "test_nepisode=1", "rnn_hidden_dim=8", "mq_k=6"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short recorded run of MQ-LAN."""
    pytest.importorskip("Box2D", reason="pip install Box2D pygame")
    folder = tmp_path_factory.mktemp("run")
    assert in_process(folder, "--config=mq_lan", "--env-config=pettingzoo", "with", *ARGS, *SMALL) == 0
    return folder / "results" / "sacred" / "1"


@pytest.mark.parametrize(("eps", "expected"), [(0.05, 0.0019220), (0.1, 0.0075238), (0.2, 0.0287993)])
def test_reuse_of_uniform_actions(eps: float, expected: float) -> None:
    """CTDE^2, equation 2, for uniform actions: pi s^2 - 8/3 s^3 + s^4/2 with s = eps/2."""
    assert action_map.uniform_reuse(eps) == pytest.approx(expected, abs=1e-6)


def test_reuse_is_measured_against_uniform_actions() -> None:
    rng = np.random.default_rng(0)
    assert action_map.reuse_ratio(rng.uniform(-1, 1, (200_000, 2))) == pytest.approx(1.0, abs=0.1)
    corners = rng.choice([-1.0, 1.0], (1000, 2))
    assert action_map.reuse_ratio(corners) == pytest.approx(0.25 / 0.0075238, rel=0.05)


def test_a_picture_of_the_actions(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "map.png"
    assert action_map.main([str(run), "--episodes", "2", "--out", str(out)]) == 0
    assert out.stat().st_size > 1000
    with np.load(out.with_suffix(".npz")) as found:
        assert sorted(found) == ["agent_0", "agent_1", "agent_2"]
        assert found["agent_0"].shape[1] == 4
        assert len(found["agent_0"]) > 2
        assert np.abs(found["agent_0"]).max() <= 1
        slots = codebook.read_slots(run).u[0]
        nearest = np.linalg.norm(found["agent_0"][:, None] - slots, axis=-1).min(1)
        assert nearest.max() < 1e-6  # a greedy action is a slot
    assert "agent 2, dimensions 2 and 3" in capsys.readouterr().out


def test_a_picture_of_the_codebook(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "codebook.png"
    assert codebook.main([str(run), "--out", str(out)]) == 0
    assert out.stat().st_size > 1000
    with np.load(out.with_suffix(".npz")) as found:
        assert found["u"].shape == (3, 6, 4)
        assert found["usage"].shape == found["frozen"].shape == (3, 6)
    assert "near the origin" in capsys.readouterr().out


def test_shares_of_slots() -> None:
    u = np.array([[[0.0, 0.05], [0.95, 0.0], [0.3, 0.3], [-0.2, -0.99]]])
    slots = codebook.Slots(u, np.ones((1, 4)), np.zeros((1, 4), dtype=bool), 0)
    assert slots.shares() == [(0.25, 0.5)]
    assert slots.names == ["all agents"]


def test_a_place_that_cannot_be_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module in (codebook, action_map):
        assert module.main([str(run), "--out", "/proc/none/picture.png"]) == 1
        assert capsys.readouterr().err.startswith("error: /proc/none")
    with pytest.raises(SystemExit):
        action_map.main([str(run), "--episodes", "0"])


def test_what_has_no_codebook_or_no_vectors_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["runner=episode", "seed=1", "t_max=2", "test_nepisode=1", "batch_size=2", "buffer_size=2"]
    assert in_process(tmp_path, "--config=vdn", "--env-config=matrix_game", "with", *settings) == 0
    record = tmp_path / "results" / "sacred" / "1"
    with pytest.raises(UserError, match="no codebook"):
        codebook.read_slots(record)
    with pytest.raises(UserError, match="discrete"):
        action_map.play(record, 1)
    assert codebook.main([str(tmp_path / "nowhere")]) == 1
    assert "There is no checkpoint" in capsys.readouterr().err
