"""Time of one training step of the LAN family: MQ-LAN against a plain loop over time steps, QF-LAN, Bang-Bang LAN.

    python benchmarks/lan_step.py                 B=32, T=500, N=2, K=100, Multiwalker's sizes, one torch thread

Where there is no GPU, times are of the processor, not of the clock: other processes then count for less. All candidates
run in turn, round after round; ratios are medians of the rounds' ratios. Episodes have full length, so nothing is
gained by leaving out padding. ``--device cuda`` runs on a GPU, ``--profile`` says where MQ-LAN's time goes.
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
from training_step import make_learner

from shoal.components.spec import TeamSpec
from shoal.utils.malloc import keep_freed_memory

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from oracles.plain_mq_lan import PlainMQLAN


def make_batch(spec: TeamSpec, B: int, T: int, device: torch.device) -> TensorDict:
    """Whole episodes that end by their time limit."""
    torch.manual_seed(1)
    n, d = spec.n_agents, spec.n_actions
    fields = {
        "obs": torch.randn(B, T + 1, n, spec.obs_dim),
        "state": torch.randn(B, T + 1, spec.state_dim),
        "reward": torch.rand(B, T + 1, 1),
        "filled": torch.ones(B, T + 1, 1, dtype=torch.bool),
        "terminated": torch.zeros(B, T + 1, 1, dtype=torch.bool),
    }
    if spec.discrete:
        fields["avail_actions"] = torch.ones(B, T + 1, n, d, dtype=torch.bool)
        fields["actions"] = torch.randint(0, d, (B, T + 1, n))
    else:
        fields["actions"] = torch.rand(B, T + 1, n, d) * 2 - 1
    return TensorDict(fields, batch_size=[B, T + 1]).to(device)


def clock(step: Callable[[], object], device: torch.device) -> float:
    now = time.process_time if device.type == "cpu" else time.perf_counter
    start = now()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return now() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; 0 leaves the choice to torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chunk", type=int, default=16, help="mq_chunk")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--no-yardstick", action="store_true", help="leave the plain loop out")
    for name, size in (("B", 32), ("T", 500), ("N", 2), ("K", 100), ("obs", 31), ("d", 4)):
        parser.add_argument(f"--{name}", type=int, default=size)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()  # as every run does
    device = torch.device(args.device)
    vectors = TeamSpec(args.N, args.d, args.obs, args.N * args.obs, args.T, discrete=False)
    corners = TeamSpec(args.N, 2**args.d, args.obs, args.N * args.obs, args.T, discrete=True)
    common = {"learner": "lan_learner", "td_lambda": 0, "value_embed_dim": 64, "value_hidden_dims": [256]}
    mq_settings = {"mac": "mq_mac", "mq_k": args.K, "mq_chunk": args.chunk, "mq_manage_interval": 1_000_000}
    mq = make_learner(vectors, device, **common, **mq_settings)
    qf = make_learner(vectors, device, **common, mac="qf_mac")
    lan = make_learner(corners, device, **common)
    batch, corner_batch = (make_batch(spec, args.B, args.T, device) for spec in (vectors, corners))
    steps: dict[str, Callable[[], object]] = {
        "MQ-LAN": lambda: mq.train_on(batch, 0, 0),
        "QF-LAN": lambda: qf.train_on(batch, 0, 0),
        "Bang-Bang LAN": lambda: lan.train_on(corner_batch, 0, 0),
    }
    ratios = [("MQ-LAN", "Bang-Bang LAN"), ("QF-LAN", "Bang-Bang LAN")]
    if not args.no_yardstick:
        torch.set_default_device(device)
        plain = PlainMQLAN(mq).to(device)
        compare(mq, plain, batch)
        optimiser = torch.optim.Adam([p for p in plain.parameters() if p is not plain.position], lr=5e-4)
        slots = torch.optim.Adam([plain.position], lr=1e-4, maximize=True)

        def plain_step() -> None:
            loss = plain.loss(batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(plain.critics.parameters(), 10.0)
            optimiser.step()
            slots.zero_grad()
            plain.climb(batch)
            slots.step()

        steps["MQ-LAN, plain loop"] = plain_step
        ratios.insert(0, ("MQ-LAN, plain loop", "MQ-LAN"))
    for step in steps.values():
        clock(step, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(clock(step, device))
    for name, seconds in times.items():
        print(f"{name:<20} median {1000 * statistics.median(seconds):7.0f} ms   min {1000 * min(seconds):7.0f} ms")
    for over, under in ratios:
        ratio = statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))
        print(f"{over} / {under}: {ratio:.2f}")
    if args.profile:
        with torch.profiler.profile() as profile:
            steps["MQ-LAN"]()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40))


def compare(learner: Any, plain: PlainMQLAN, batch: TensorDict) -> None:
    """Print and check that both losses, and the directions in which both would move the slots, are the same."""
    ours, theirs = learner.loss(batch)[0].item(), plain.loss(batch).item()
    mac = learner.controller
    outputs, counted = learner._passed
    s = mac.settings
    ascent = mac.head.ascend(outputs[0], mac.codebook.actions(), s.mq_top_k, counted, s.mq_chunk)
    plain.climb(batch)
    wanted = plain.position.grad
    assert wanted is not None
    found = ascent.gradient * (1 - mac.codebook.actions().square())
    off = ((found - wanted).norm() / wanted.norm()).item()
    print(f"loss: shoal {ours:.6f}, plain loop {theirs:.6f}, relative difference {abs(ours / theirs - 1):.1e}")
    print(f"gradient of the slots: relative difference {off:.1e}")
    assert abs(ours / theirs - 1) < 1e-4
    assert off < 1e-3


if __name__ == "__main__":
    main()
