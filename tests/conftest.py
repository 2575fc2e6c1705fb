"""What the tests share: one torch thread, a fixed seed, MongoDB servers, small learners and batches to try."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from shoal.components.spec import TeamSpec
from shoal.config.settings import RunSettings
from shoal.experiment import ExperimentSettings
from shoal.learners.learner import Learner
from shoal.recording.mongo_address import MONGO_VARIABLE
from support.mongo_server import MongoServer
from support.teams import ALGORITHMS, SPEC, MakeBatch, MakeLearner


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
