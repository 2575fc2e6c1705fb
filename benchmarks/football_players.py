"""Google Research Football: how often the engine has an agent move another player than the scenario's N last ones.

    python benchmarks/football_players.py --episodes 40

Prints a Markdown table over all scenarios, from episodes of uniformly random actions. The N last players of the left
team's list are those that the released wrappers of S2Q and CADP describe to the N agents, whoever they move.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from shoal.envs.grf import N_ACTIONS, GRFEnv, GRFSettings
from shoal.envs.grf_scenarios import SCENARIOS

COLUMNS = (
    "steps",
    "some agent moves another player",
    "rows that describe another player",
    "an agent moves the keeper",
    "hand-overs an episode",
    "an agent moves nobody",
    "two agents move one player",
)


@dataclass
class Counts:
    """What was seen on one scenario, in steps but for ``rows`` (agents' steps) and ``handovers``."""

    steps: int = 0
    others: int = 0
    rows: int = 0
    keeper: int = 0
    handovers: int = 0
    nobody: int = 0
    doubles: int = 0

    def add(self, active: np.ndarray, before: np.ndarray | None, n_players: int) -> None:
        """Count one step: whom each agent moves, now and before."""
        row = np.arange(n_players)[-len(active) :]
        self.steps += 1
        self.others += set(active) != set(row)
        self.rows += int((active != row).sum())
        self.keeper += bool((active == 0).any())
        self.nobody += bool((active < 0).any())
        self.doubles += len(set(active[active >= 0])) < int((active >= 0).sum())
        if before is not None:
            self.handovers += int((active != before).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=40, help="of each scenario")
    parser.add_argument("--maps", nargs="+", default=list(SCENARIOS), help="scenarios (default: all)")
    args = parser.parse_args()
    print("| scenario | agents of players | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (2 + len(COLUMNS)) + "|")
    for name in args.maps:
        print(row_of(name, args.episodes), flush=True)


def row_of(name: str, episodes: int) -> str:
    """A row of the table, from ``episodes`` of random play."""
    env = GRFEnv(GRFSettings(map_name=name))
    (N,) = env.action_space.shape
    counts, rng = Counts(), np.random.default_rng(0)
    for seed in range(episodes):
        env.reset(seed=seed)
        before, over = None, False
        while not over:
            raw = env._engine.unwrapped.observation()
            active = np.array([one["active"] for one in raw])
            counts.add(active, before, len(raw[0]["left_team"]))
            before = active
            *_, terminated, truncated, _ = env.step(rng.integers(N_ACTIONS, size=N))
            over = terminated or truncated
    env.close()
    n = counts.steps
    shares = [counts.others / n, counts.rows / (n * N), counts.keeper / n]
    cells = [f"{100 * share:.0f} %" for share in shares] + [f"{counts.handovers / episodes:.1f}"]
    cells += [f"{100 * share:.1f} %" for share in (counts.nobody / n, counts.doubles / n)]
    return f"| `{name}` | {N} of {len(raw[0]['left_team'])} | {n} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
