"""What the tests share: one torch thread, a fixed seed, MongoDB servers, small learners and batches to try."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from shoal.components.batch import PackedSteps
from shoal.components.spec import TeamSpec
from shoal.config.settings import RunSettings
from shoal.controllers.controller import Controller
from shoal.experiment import ExperimentSettings
from shoal.learners.learner import Learner
from shoal.recording.mongo_address import MONGO_VARIABLE
from support.mongo_server import MongoServer

SPEC = TeamSpec(n_agents=3, n_actions=4, obs_dim=5, state_dim=6, episode_limit=6, discrete=True)

VECTORS = TeamSpec(n_agents=2, n_actions=2, obs_dim=5, state_dim=10, episode_limit=6, discrete=False)
"""Two agents with actions in [-1, 1]^2."""

OWN_VALUE = {"central_mac": None, "central_mixer": None}
"""S2Q without a central Q*."""

CADP = {"agent": "att_rnn", "att_heads": 2, "att_embed_dim": 4}

ALGORITHMS: dict[str, dict[str, Any]] = {
    "iql": {"learner": "q_learner", "mixer": None},
    "vdn": {"learner": "q_learner", "mixer": "vdn"},
    "qmix": {"learner": "q_learner", "mixer": "qmix"},
    "cw_qmix": {"learner": "wqmix_learner", "hysteretic_qmix": False},
    "ow_qmix": {"learner": "wqmix_learner", "hysteretic_qmix": True},
    "qplex": {"learner": "q_learner", "mixer": "qplex"},
    "vdn_cadp": {"learner": "q_learner", "mixer": "vdn", **CADP},
    "qmix_cadp": {"learner": "q_learner", "mixer": "qmix", **CADP},
    "qplex_cadp": {"learner": "q_learner", "mixer": "qplex", **CADP},
    "qmix_comm": {"learner": "q_learner", "mac": "comm_mac"},
    "qmix_mlp": {"learner": "q_learner", "agent": "mlp"},
    "qmix_comm_mlp": {"learner": "q_learner", "mac": "comm_mac", "agent": "mlp"},
    "ow_qmix_mlp": {"learner": "wqmix_learner", "agent": "mlp", "central_agent": "central_mlp"},
    "ow_qmix_cadp": {"learner": "wqmix_learner", **CADP},
    "s2q": {"learner": "s2q_learner", "mac": "s2q_mac"},
    "s2q_cadp": {"learner": "s2q_learner", "mac": "s2q_mac", **CADP},
    "s2q_comm": {"learner": "s2q_learner", "mac": "s2q_mac", "comm": True},
    "s2q_vdn": {"learner": "s2q_learner", "mac": "s2q_mac", "mixer": "vdn", **OWN_VALUE},
    "s2q_qmix": {"learner": "s2q_learner", "mac": "s2q_mac", "mixer": "qmix", **OWN_VALUE},
    "s2q_qplex": {"learner": "s2q_learner", "mac": "s2q_mac", "mixer": "qplex", **OWN_VALUE},
    "s2q_mlp": {"learner": "s2q_learner", "mac": "s2q_mac", "agent": "mlp", "central_agent": "central_mlp"},
    "lan": {"learner": "lan_learner"},
    "lan_mlp": {"learner": "lan_learner", "agent": "mlp"},
    "lan_cadp": {"learner": "lan_learner", **CADP},
    "lan_comm": {"learner": "lan_learner", "mac": "comm_mac"},
}

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]


@pytest.fixture(autouse=True)
def _one_thread_one_seed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))  # no key of a test at home
    monkeypatch.delenv(MONGO_VARIABLE, raising=False)  # no test records into somebody's database


@pytest.fixture(scope="session")
def shared_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A MongoDB server for tests that leave it alone. Each takes a database of its own."""
    server = MongoServer(tmp_path_factory.mktemp("mongo") / "shared")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def own_mongo(tmp_path: Path) -> Iterator[MongoServer]:
    """A MongoDB server, running, that a test may kill and start again."""
    server = MongoServer(tmp_path / "mongo")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def spec() -> TeamSpec:
    return SPEC


@pytest.fixture(params=sorted(ALGORITHMS))
def algorithm(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings that pick each algorithm in turn."""
    settings: dict[str, Any] = ALGORITHMS[request.param]
    return settings


@pytest.fixture
def make_learner() -> MakeLearner:
    """Builds a learner of small networks from settings, as an experiment does."""

    def make(spec: TeamSpec = SPEC, **settings: Any) -> Learner:
        raw = {"env": "matrix_game", "rnn_hidden_dim": 8, **settings}
        run = RunSettings(raw, ExperimentSettings)
        learner: Learner = run.make("learner", spec=spec, make=run.make)
        return learner

    return make


def unrolled(controller: Controller, batch: TensorDict) -> torch.Tensor:
    """The outputs of a controller of one copy for every step of a batch: ``[B, T+1, N, A]``, zeros in padding."""
    steps = PackedSteps.of(batch)
    return steps.unpack(controller.unroll_packed(batch, steps)[0])[0]


@pytest.fixture
def make_batch() -> MakeBatch:
    """Random episodes; every third is truncated instead of terminated. Rows after an episode's last hold zeros."""

    def make(spec: TeamSpec = SPEC, lengths: tuple[int, ...] = (6, 4, 3, 1, 6), seed: int = 1) -> TensorDict:
        generator = torch.Generator().manual_seed(seed)
        B, rows = len(lengths), max(lengths) + 1
        ends, step = torch.tensor(lengths)[:, None], torch.arange(rows)
        filled = step <= ends
        avail = torch.rand(B, rows, spec.n_agents, spec.n_actions, generator=generator) < 0.7
        avail[..., 0] |= ~avail.any(-1)
        lottery = avail.float().flatten(0, 2).multinomial(1, generator=generator)
        fields = {
            "obs": torch.randn(B, rows, spec.n_agents, spec.obs_dim, generator=generator),
            "state": torch.randn(B, rows, spec.state_dim, generator=generator),
            "reward": torch.randn(B, rows, 1, generator=generator),
            "avail_actions": avail,
            "actions": lottery.view(B, rows, spec.n_agents),
            "sub_index": torch.randint(0, 3, (B, rows, spec.n_agents), generator=generator, dtype=torch.uint8),
            "terminated": ((step == ends - 1) & (torch.arange(B) % 3 != 2)[:, None]).unsqueeze(-1),
            "filled": filled.unsqueeze(-1),
        }
        if not spec.discrete:
            del fields["avail_actions"]
            fields["actions"] = torch.rand(B, rows, spec.n_agents, spec.n_actions, generator=generator) * 2 - 1
        if spec.has_alive:
            fields["alive"] = torch.rand(B, rows, spec.n_agents, generator=generator) < 0.8
        padded = {key: torch.where(filled.view(B, rows, *[1] * (x.dim() - 2)), x, 0) for key, x in fields.items()}
        return TensorDict({k: x.to(fields[k].dtype) for k, x in padded.items()}, batch_size=[B, rows])

    return make
