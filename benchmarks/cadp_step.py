"""Time of one training step: QMIX with CADP's agent, before and after its breakpoint, against QMIX.

    python benchmarks/cadp_step.py --threads 1            B=128, T=60, N=8, 14 actions, state 140

All candidates run in turn, round after round; ratios are medians of the rounds' ratios. ``--device cuda`` uses a GPU.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from training_step import clock, make_batch, make_learner

from shoal.components.spec import TeamSpec
from shoal.utils.malloc import keep_freed_memory

BREAKPOINT = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves the choice to torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", action="store_true", help="say where the time of a step with advice goes")
    for name, size in (("B", 128), ("T", 60), ("N", 8), ("A", 14), ("obs", 78), ("state", 140)):
        parser.add_argument(f"--{name}", type=int, default=size)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()  # as every run does
    device = torch.device(args.device)
    spec = TeamSpec(args.N, args.A, args.obs, args.state, args.T, discrete=True)
    batch = make_batch(spec, args.B, args.T, device)
    common = {"learner": "q_learner", "mixer": "qmix", "batch_size": args.B}
    qmix = make_learner(spec, device, **common)
    cadp = make_learner(spec, device, **common, agent="att_rnn", breakpoint=BREAKPOINT)
    steps: dict[str, Callable[[], object]] = {
        "QMIX": lambda: qmix.train_on(batch, 0, 0),
        "QMIX+CADP, exchanging": lambda: cadp.train_on(batch, BREAKPOINT, 0),
        "QMIX+CADP, pruning": lambda: cadp.train_on(batch, BREAKPOINT + 1, 0),
    }
    for step in steps.values():
        clock(step, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(clock(step, device))
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times["QMIX"], strict=True))
        median, best = 1000 * statistics.median(seconds), 1000 * min(seconds)
        print(f"{name:<22} median {median:6.0f} ms   min {best:6.0f} ms   / QMIX: {ratio:.2f}")
    if args.profile:
        with torch.profiler.profile() as profile:
            steps["QMIX+CADP, exchanging"]()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))


if __name__ == "__main__":
    main()
