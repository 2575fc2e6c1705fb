"""A team exported as ONNX acts under onnxruntime as it does under torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from shoal import onnx_team
from shoal.command_line.main import main
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC
from shoal.modules.agents.rnn import RNNAgent
from shoal.modules.layers.moments import Normaliser
from shoal.utils.errors import UserError
from support.launch import in_process
from support.teams import SPEC, VECTORS, MakeLearner

pytest.importorskip("onnxscript", reason="needs the extra [onnx]", exc_type=ImportError)
ort = pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")

LAN: dict[str, Any] = {"learner": "lan_learner", "env": "toy_modes"}
TEAMS: dict[str, tuple[TeamSpec, dict[str, Any]]] = {
    "rnn": (SPEC, {"learner": "q_learner"}),
    "rnn, full_comm, normalised": (SPEC, {"learner": "q_learner", "full_comm": True, "normalise_inputs": True}),
    "mlp": (SPEC, {"learner": "q_learner", "agent": "mlp", "obs_last_action": False, "obs_agent_id": False}),
    "cadp": (SPEC, {"learner": "q_learner", "agent": "att_rnn", "att_heads": 2, "att_embed_dim": 4}),
    "s2q": (SPEC, {"learner": "s2q_learner", "mac": "s2q_mac", "K": 2}),
    "s2q_comm": (SPEC, {"learner": "s2q_learner", "mac": "s2q_mac", "K": 2, "comm": True, "normalise_inputs": True}),
    "qf_lan": (VECTORS, {**LAN, "mac": "qf_mac", "qf_rank": 3, "qf_test_samples": 200, "qf_pool": 4096}),
    "mq_lan": (VECTORS, {**LAN, "mac": "mq_mac", "mq_k": 6, "normalise_inputs": True}),
}


class Game:
    """Observations that depend on all actions before, so that one that differs changes the rest of the episode."""

    def __init__(self, spec: TeamSpec, rows: int) -> None:
        self.spec, self.rng = spec, np.random.default_rng(rows)
        self.obs = self.rng.normal(size=(rows, spec.n_agents, spec.obs_dim)).astype(np.float32)

    def avail_actions(self) -> np.ndarray:
        avail = self.rng.random((*self.obs.shape[:2], self.spec.n_actions)) < 0.6
        avail[0, 0] = False  # nobody's turn: the first action is taken
        return avail

    def play(self, actions: np.ndarray) -> None:
        moved = actions.reshape(*self.obs.shape[:2], -1).astype(np.float32)
        noise = self.rng.normal(size=self.obs.shape)
        self.obs = (0.5 * self.obs + 0.3 * moved.sum((1, 2), keepdims=True) + 2 * noise).astype(np.float32)


def under_torch(team: BasicMAC, rows: int, steps: int, draws: list[int]) -> tuple[list[np.ndarray], np.ndarray]:
    """The actions of an episode, and the last recurrent states ``[B, N, H]``."""
    game, state, taken = Game(team.spec, rows), team.initial_state(rows), []
    for t in range(steps):
        step = {"obs": torch.from_numpy(game.obs)}
        if team.spec.discrete:
            step["avail_actions"] = torch.from_numpy(game.avail_actions())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randint", lambda *_args, at=t: torch.tensor(draws[at]))
            acted, state = team.select_actions(TensorDict(step, batch_size=[rows]), state, 0, test_mode=True)
        taken.append(acted["actions"].numpy())
        game.play(taken[-1])
    return taken, state["hidden"][:, 0].numpy()


def under_onnxruntime(model: bytes, spec: TeamSpec, rows: int, draws: list[int]) -> tuple[list[np.ndarray], np.ndarray]:
    """The same of the exported model, from what its metadata and its inputs say alone."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    size = {key: int(value) for key, value in session.get_modelmeta().custom_metadata_map.items() if value.isdigit()}
    asked = {one.name for one in session.get_inputs()}
    game, taken = Game(spec, rows), []
    hidden = np.zeros((rows, size["n_agents"], size["hidden_dim"]), np.float32)
    last = np.zeros((rows, size["n_agents"], size["n_actions"]), np.float32)
    for draw in draws:
        given = {"obs": game.obs, "hidden": hidden, "last_actions": last}
        if "avail_actions" in asked:
            given["avail_actions"] = game.avail_actions()
        if "draw" in asked:
            given["draw"] = np.array(draw)
        actions, hidden, last = session.run(["actions", "next_hidden", "next_last_actions"], given)
        taken.append(actions)
        game.play(actions)
    return taken, hidden


def unlike_at_first(team: BasicMAC) -> BasicMAC:
    """With other numbers in whatever starts as zeros, ones or trues."""
    for part in team.modules():
        if isinstance(part, Normaliser):
            part.mean.normal_()
            part.scale.uniform_(0.3, 2.0)
    for name, buffer in team.named_buffers():
        if name.endswith("codebook.open"):
            buffer[:, 0] = False
        if name.endswith("codebook.slots"):
            buffer.uniform_(-1, 1)
    return team


@pytest.mark.parametrize("name", TEAMS)
def test_greedy_actions_are_those_of_torch_over_whole_episodes(name: str, make_learner: MakeLearner) -> None:
    spec, settings = TEAMS[name]
    torch.manual_seed(0)
    team = unlike_at_first(make_learner(spec, **settings).controller.for_execution())
    model = onnx_team.team_model(team, {"algorithm": name})
    steps = 25
    for rows in (1, 4):
        draws = np.random.default_rng(rows).integers(team.n_draws, size=steps).tolist()
        expected, last = under_torch(team, rows, steps, draws)
        taken, hidden = under_onnxruntime(model, spec, rows, draws)
        np.testing.assert_array_equal(np.stack(taken), np.stack(expected))
        np.testing.assert_allclose(hidden, last, rtol=0, atol=1e-5)
        assert len(np.unique(np.stack(taken))) > 2, "an episode of one action would show nothing"


def test_of_equal_values_the_first_available_action_is_taken(make_learner: MakeLearner) -> None:
    team = make_learner(SPEC, learner="q_learner").controller.for_execution()
    nn.init.zeros_(team.agent.fc_out.weight)
    nn.init.zeros_(team.agent.fc_out.bias)
    session = ort.InferenceSession(onnx_team.team_model(team, {}), providers=["CPUExecutionProvider"])
    inputs = {name: x.numpy() for name, x in onnx_team.TeamStep(team).example(1).items()}
    inputs["avail_actions"] = np.array([[[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]], dtype=bool)
    assert session.run(["actions"], inputs)[0].tolist() == [[1, 2, 0]]


class Watchful(RNNAgent):
    """Its outputs depend on who is alive."""

    reads_alive = True

    def forward(self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None = None) -> Any:
        outputs, states = super().forward(inputs, hidden, counts)
        assert alive is not None
        return outputs * alive.unsqueeze(-1), states


class Fickle(RNNAgent):
    """It decides by what it sees which way to compute."""

    def forward(self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None = None) -> Any:
        if float(inputs.sum()) > 0:
            return super().forward(inputs, hidden, counts)
        return super().forward(-inputs, hidden, counts)


def test_an_agent_that_must_know_who_is_alive_is_told(make_learner: MakeLearner) -> None:
    spec = TeamSpec(3, 4, 5, 6, episode_limit=6, discrete=True, has_alive=True)
    team = make_learner(spec, learner="q_learner", agent=f"{__name__}:Watchful").controller.for_execution()
    session = ort.InferenceSession(onnx_team.team_model(team, {}), providers=["CPUExecutionProvider"])
    inputs = {name: x.numpy() for name, x in onnx_team.TeamStep(team).example(1).items()}
    inputs["obs"] = torch.randn(1, 3, 5).numpy()
    expected, _ = team.step({k: torch.from_numpy(x) for k, x in inputs.items()}, team.initial_state(1))
    everyone = session.run(["actions"], inputs)[0]
    assert everyone.tolist() == expected[0].argmax(-1).tolist()
    inputs["alive"][:] = False
    assert session.run(["actions"], inputs)[0].tolist() == [[0, 0, 0]]
    assert everyone.any()


def test_what_onnx_cannot_express_is_said_in_a_sentence(make_learner: MakeLearner) -> None:
    team = make_learner(SPEC, learner="q_learner", agent=f"{__name__}:Fickle").controller.for_execution()
    with pytest.raises(UserError, match="agent=Fickle") as caught:
        onnx_team.team_model(team, {})
    assert "\n" not in str(caught.value)


def test_only_what_is_deployed_can_be_a_step(make_learner: MakeLearner) -> None:
    with pytest.raises(ValueError, match="for_execution"):
        onnx_team.TeamStep(make_learner(SPEC, learner="s2q_learner", mac="s2q_mac", K=2).controller)


def test_the_extra_is_named_where_it_is_missing(make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_team, "NEEDS", ("onnx", "package_that_nobody_has"))
    with pytest.raises(UserError, match=r"needs the Python package 'package_that_nobody_has'.*\[onnx\]"):
        onnx_team.team_model(make_learner(SPEC, learner="q_learner").controller.for_execution(), {})


def test_the_command_writes_the_model_of_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    game = ["--env-config=matrix_game", "with", "runner=episode", "seed=3", "t_max=8", "batch_size=4", "buffer_size=40"]
    assert in_process(tmp_path, "--config=vdn", *game, "test_nepisode=2", "rnn_hidden_dim=8") == 0
    monkeypatch.chdir(tmp_path)
    assert main(["src/main.py", "export", "results/sacred/1", "--onnx"]) == 0
    assert "team.onnx: the team of" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("team*")] == ["team.onnx"]
    session = ort.InferenceSession("team.onnx", providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert about == {
        "producer": "shoal",
        "algorithm": "vdn",
        "env": "matrix_game",
        "checkpoint": "8.pt",
        "n_agents": "2",
        "n_actions": "3",
        "obs_dim": "1",
        "hidden_dim": "8",
        "n_draws": "1",
    }
    shapes = {one.name: one.shape for one in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "obs": ["batch", 2, 1],
        "avail_actions": ["batch", 2, 3],
        "hidden": ["batch", 2, 8],
        "last_actions": ["batch", 2, 3],
        "actions": ["batch", 2],
        "next_hidden": ["batch", 2, 8],
        "next_last_actions": ["batch", 2, 3],
    }
    assert main(["src/main.py", "export", "results/sacred/1", "--onnx", "--out", "models/a.onnx"]) == 0
    assert (tmp_path / "models" / "a.onnx").is_file()
