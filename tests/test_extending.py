"""What a stranger writes to try an idea: each is one file, named by its import path, and no file of Shoal's changes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from shoal.recording.metric_names import TEST
from support.launch import in_process

EXTENSIONS = Path(__file__).parent / "extensions"
GAME = ["--env-config=matrix_game", "with", "seed=1", "runner=parallel", "batch_size_run=8", "test_nepisode=8"]
LOGS = ["test_interval=200", "save_model_interval=200", "runner_log_interval=100", "learner_log_interval=100"]
REINFORCE = f"--config={EXTENSIONS / 'reinforce.yaml'}"


def played(folder: Path, *settings: str, config: str = "--config=qmix", t_max: int = 400) -> dict[str, Any]:
    """The recorded metrics of a run with components of one's own."""
    folder.mkdir(exist_ok=True)
    assert in_process(folder, config, *GAME, *LOGS, f"t_max={t_max}", *settings) == 0
    (record,) = (folder / "results" / "sacred").glob("[0-9]*")
    metrics: dict[str, Any] = json.loads((record / "metrics.json").read_text())
    return metrics


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXTENSIONS))


def test_a_variant_of_a_learner_is_one_short_file(tmp_path: Path) -> None:
    assert len((EXTENSIONS / "weighted_q.py").read_text().splitlines()) < 30
    plain = played(tmp_path / "plain", "batch_size=8")
    same = played(tmp_path / "same", "batch_size=8", "learner=weighted_q:HystereticQLearner", "hysteresis=1")
    other = played(tmp_path / "other", "batch_size=8", "learner=weighted_q:HystereticQLearner")
    assert plain["loss_td"]["values"] == same["loss_td"]["values"] != other["loss_td"]["values"]


def test_an_agent_is_one_file(tmp_path: Path) -> None:
    found = played(tmp_path, "agent=own_agent:LinearAgent", "batch_size=8")
    assert found["loss_td"]["values"]


def test_an_on_policy_learner_needs_no_core_file(tmp_path: Path) -> None:
    """It finds the best joint action of a game without a trap, and checkpoints and resume work as for any run."""
    found = played(tmp_path, "env_args.payoff=[[0, 1, 2], [1, 2, 3], [2, 3, 4]]", config=REINFORCE, t_max=1600)
    assert found[f"{TEST}return_mean"]["values"][-1] == 4
    assert "td_lambda" not in json.loads((tmp_path / "results" / "sacred" / "1" / "config.json").read_text())
    (models,) = (tmp_path / "results" / "models").iterdir()
    assert in_process(tmp_path, "with", f"resume={models}", "t_max=2000") == 0


def test_settings_of_replay_are_refused_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for setting in ("batch_size=8", "save_buffer=True", "target_update_interval=5", "epsilon_start=0.5"):
        assert in_process(tmp_path, REINFORCE, *GAME, setting) == 1
        key = setting.partition("=")[0]
        assert f"'{key}'" in capsys.readouterr().err


def test_what_an_algorithm_sets_for_replay_is_noted_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        in_process(tmp_path, "--config=qmix", *GAME, "memory=reinforce:LastRollout", "t_max=16", "save_model=False")
        == 0
    )
    assert "without effect in algs/qmix.yaml: batch_size=128 (only memory=replay would" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_components(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    played(tmp_path, "batch_size=8", t_max=200)
    for other in ("mixer=vdn", "memory=reinforce:LastRollout", "env=toy_modes"):
        assert in_process(tmp_path, "with", "resume=results/sacred/1", "t_max=300", other) == 1
        assert f"leave {other} out" in capsys.readouterr().err
    assert in_process(tmp_path, "with", "resume=results/sacred/1", "t_max=300", "learner=nq_learner") == 0  # an alias


def test_a_transition_learner_needs_no_core_file(tmp_path: Path) -> None:
    own = ["memory=transitions:Transitions", "learner=transitions:PrioritisedQLearner", "mixer=vdn", "td_lambda=0"]
    own += ["batch_size=16", "buffer_size=64", "updates_per_rollout=2"]
    found = played(tmp_path, *own, "env_args.payoff=[[1, 0, 0], [0, 0, 0], [0, 0, 4]]")
    assert found["loss_td"]["values"][-1] < found["loss_td"]["values"][0]
    assert all(torch.tensor(found["loss_td"]["values"]).isfinite())


def test_something_else_is_no_learner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process(tmp_path, REINFORCE, *GAME, "learner=idle:Idle") == 1
    assert "is no learner" in capsys.readouterr().err
