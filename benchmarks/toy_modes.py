"""The game of modes, learner by learner: the greedy reward after 2,000 updates of 256 games.

    python benchmarks/toy_modes.py --seeds 5

Two agents, four contexts; agent i is paid most at its own point m of the box for the context, and half of that at -m.
Each action is uniform in every other game. The best reward is 1, always zero earns 0.187.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.toy_modes import EVOLUTION, MQ, STATIC, UPDATES, greedy_reward

METHODS: dict[str, dict[str, Any]] = {
    "MQ-LAN, K=16": MQ,
    "MQ-LAN, K=16, no pruning": {**MQ, "mq_proximity": False, "mq_starvation": False},
    "MQ-LAN, K=8": {**MQ, "mq_k": 8},
    "stabilised, K=16": {**MQ, "mq_copies": 0.2},
    "evolution only, K=16": EVOLUTION,
    "evolution only, K=8": {**EVOLUTION, "mq_k": 8},
    "slots that stay, K=16": STATIC,
    "QF-LAN, rank 5": {"mac": "qf_mac"},
    "Bang-Bang LAN": {"discrete": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=UPDATES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, settings in METHODS.items():
        start = time.process_time()
        found = [greedy_reward(seed, updates=args.updates, **settings) for seed in range(args.seeds)]
        each = " ".join(f"{value:.3f}" for value in found)
        seconds = (time.process_time() - start) / args.seeds
        print(f"{name:<26} mean {statistics.mean(found):.3f}   {each}   {seconds:.0f} s of CPU time a run", flush=True)


if __name__ == "__main__":
    main()
