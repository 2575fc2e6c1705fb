"""Time of one training step: S2Q against WQMIX, its copies one after another, and a plain loop over time and copies.

    python benchmarks/training_step.py            B=128, T=60, N=6, 14 actions, state 140, K=2

All candidates run in turn, round after round, so that a machine whose speed drifts slows all alike; ratios are medians
of the rounds' ratios. ``--device cuda`` runs on a GPU, ``--profile`` says where S2Q's time goes.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.spec import TeamSpec
from shoal.config.settings import RunSettings
from shoal.experiment import ExperimentSettings
from shoal.learners.learner import Learner
from shoal.modules.agents.agent import Agent
from shoal.modules.agents.rnn import RNNAgent, RNNAgentSettings
from shoal.modules.layers.stacked import copy_state_dict
from shoal.modules.mixers.qmix import QMixer, QMixerSettings
from shoal.utils.malloc import keep_freed_memory

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from oracles.plain_s2q import PlainS2Q


def make_learner(spec: TeamSpec, device: torch.device, **settings: object) -> Learner:
    raw = {"env": "smax", **settings}
    run = RunSettings(raw, ExperimentSettings)
    torch.manual_seed(0)
    learner: Learner = run.make("learner", spec=spec, make=run.make)
    return learner.to(device)


def make_batch(spec: TeamSpec, B: int, T: int, device: torch.device) -> TensorDict:
    torch.manual_seed(1)
    avail = torch.rand(B, T + 1, spec.n_agents, spec.n_actions) < 0.7
    avail[..., 0] = True
    lengths = torch.randint(T // 2, T + 1, (B,))
    lengths[0] = T
    steps = torch.arange(T + 1).expand(B, -1)
    batch = TensorDict(
        {
            "obs": torch.randn(B, T + 1, spec.n_agents, spec.obs_dim),
            "state": torch.randn(B, T + 1, spec.state_dim),
            "avail_actions": avail,
            "actions": avail.float().flatten(0, 2).multinomial(1).view(B, T + 1, spec.n_agents),
            "reward": torch.rand(B, T + 1, 1),
            "filled": (steps <= lengths[:, None]).unsqueeze(-1),
            "terminated": (steps == lengths[:, None] - 1).unsqueeze(-1),
            "sub_index": torch.zeros(B, T + 1, spec.n_agents, dtype=torch.uint8),
        },
        batch_size=[B, T + 1],
    )
    return batch.to(device)


class OneByOne(nn.Module):
    """The copies of a stacked network as separate networks, run in turn: what stacking them saves."""

    def __init__(self, stacked: Any, make_copy: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stacked_shape = [stacked]  # in a list: not a submodule
        self.copies = nn.ModuleList(make_copy() for _ in range(stacked.copies))
        for k, network in enumerate(self.copies):
            network.load_state_dict(copy_state_dict(stacked, k))

    def initial_hidden(self, batch_size: int, n_agents: int) -> Tensor:
        hidden: Tensor = self.stacked_shape[0].initial_hidden(batch_size, n_agents)
        return hidden


class AgentsOneByOne(OneByOne, Agent):
    def forward(
        self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        pairs = [network(inputs, hidden[k : k + 1], counts) for k, network in enumerate(self.copies)]
        return torch.cat([outputs for outputs, _ in pairs]), torch.cat([states for _, states in pairs])


class MixersOneByOne(OneByOne):
    def forward(self, qs: Tensor, state: Tensor, maxima: Tensor, actions: Tensor) -> Tensor:
        rows = (slice(k, k + 1) for k in range(len(self.copies)))
        return torch.cat(
            [network(qs[k], state, maxima[k], actions) for k, network in zip(rows, self.copies, strict=True)]
        )


def one_by_one(spec: TeamSpec, device: torch.device, **settings: object) -> Learner:
    """The learner that ``make_learner`` makes, with its copies apart."""
    learner: Any = make_learner(spec, device, **settings)
    mac = learner.controller
    mac.agent = AgentsOneByOne(
        mac.agent, lambda: RNNAgent(RNNAgentSettings(), mac.inputs.dim, spec.n_actions).to(device)
    )
    learner.mixer = MixersOneByOne(
        learner.mixer,
        lambda: QMixer(QMixerSettings(), spec.n_agents, spec.state_dim, spec.n_actions).to(device),
    )
    trained = [p for p in learner.parameters() if p.requires_grad]
    learner.optimiser = torch.optim.Adam(trained, lr=1e-3, fused=True)
    alone: Learner = learner
    return alone


def clock(step: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves the choice to torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", action="store_true")
    for name, size in (("B", 128), ("T", 60), ("N", 6), ("A", 14), ("obs", 78), ("state", 140), ("K", 2)):
        parser.add_argument(f"--{name}", type=int, default=size)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()  # as every run does
    device = torch.device(args.device)
    spec = TeamSpec(args.N, args.A, args.obs, args.state, args.T, discrete=True)
    batch = make_batch(spec, args.B, args.T, device)
    common = {"batch_size": args.B, "obs_agent_id": False}
    s2q = make_learner(spec, device, learner="s2q_learner", mac="s2q_mac", K=args.K, **common)
    apart = one_by_one(spec, device, learner="s2q_learner", mac="s2q_mac", K=args.K, **common)
    wqmix = make_learner(spec, device, learner="wqmix_learner", **common)
    torch.set_default_device(device)
    plain = PlainS2Q(s2q).to(device)
    ours, theirs = s2q.loss(batch)[0].item(), plain.loss(batch).item()
    print(f"loss: shoal {ours:.6f}, plain loop {theirs:.6f}, relative difference {abs(ours / theirs - 1):.1e}")
    assert abs(apart.loss(batch)[0].item() / ours - 1) < 1e-4
    assert abs(ours / theirs - 1) < 1e-4

    plain_optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)

    def plain_step() -> None:
        plain_optimiser.zero_grad()
        plain.loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 10.0)
        plain_optimiser.step()

    steps: dict[str, Callable[[], object]] = {
        "S2Q": lambda: s2q.train_on(batch, 0, 0),
        "WQMIX": lambda: wqmix.train_on(batch, 0, 0),
        "S2Q, one by one": lambda: apart.train_on(batch, 0, 0),
        "S2Q, plain loop": plain_step,
    }
    for step in steps.values():
        clock(step, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(clock(step, device))
    for name, seconds in times.items():
        print(f"{name:<16} median {1000 * statistics.median(seconds):7.0f} ms   min {1000 * min(seconds):7.0f} ms")
    for over, under in (("S2Q", "WQMIX"), ("S2Q, one by one", "S2Q"), ("S2Q, plain loop", "S2Q")):
        ratio = statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))
        print(f"{over} / {under}: {ratio:.2f}")
    if args.profile:
        with torch.profiler.profile() as profile:
            steps["S2Q"]()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))


if __name__ == "__main__":
    main()
