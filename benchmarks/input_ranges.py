"""What the environments hand to networks: the range of observations and states, and what the range alarm says of them.

    python benchmarks/input_ranges.py                      every environment that is installed here, as a table
    python benchmarks/input_ranges.py --only smax --full   those whose name holds "smax", every SMAX map

Episodes of three kinds: random actions; the first action, or the first that the environment calls a stop, wherever it
may be chosen; and the last one, or the first that it calls an attack. One environment at a time, two copies.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.alarm import RangeAlarm
from shoal.components.spec import TeamSpec
from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.envs.smax import MAPS
from shoal.experiment import ExperimentSettings
from shoal.runners.runner import Runner
from shoal.utils.errors import UserError

SOME_MAPS = ("3m", "2s3z", "3s5z", "6h_vs_8z", "27m_vs_30m", "smacv2_10_units")


def environments(full: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, YAML of the suite, and what is set."""
    for map_name in MAPS if full else SOME_MAPS:
        for scaled in (True, False):
            name = f"smax {map_name}, scale_state={scaled}"
            yield name, "smax", {"map_name": map_name, "scale_state": scaled}
    yield "smax 3m, observation_type=conic", "smax", {"map_name": "3m", "observation_type": "conic"}
    yield "matrix_game", "matrix_game", {}
    yield "toy_modes", "toy_modes", {}
    for key in ("lbforaging:Foraging-8x8-2p-3f-v3", "lbforaging:Foraging-15x15-4p-4f-v3", "rware:rware-tiny-2ag-v2"):
        yield f"gymma {key}", "gymma", {"key": key}
    for key in ("pettingzoo.mpe.simple_spread_v3", "pettingzoo.mpe.simple_speaker_listener_v4"):
        yield f"pettingzoo {key}", "pettingzoo", {"key": key}
    for env_name in ("multiwalker", "waterworld", "pursuit"):
        yield f"sisl {env_name}", "sisl", {"env_name": env_name}
    for map_name in ("academy_3_vs_2", "academy_counterattack_easy", "5_vs_5"):
        yield f"grf {map_name}", "grf", {"map_name": map_name}


class Scripted(nn.Module):
    """Acts without looking: at random, or wherever it may with one of the ``wanted`` actions."""

    extra_fields: dict[str, Any] = {}  # noqa: RUF012
    reads_state = False

    def __init__(self, spec: TeamSpec, wanted: list[int]) -> None:
        super().__init__()
        self.spec, self.wanted = spec, wanted
        self.anchor = nn.Parameter(torch.zeros(1))

    def initial_state(self, batch_size: int) -> TensorDict:
        return TensorDict({}, batch_size=[batch_size])

    def select_actions(
        self, step: TensorDict, state: TensorDict, t_env: int, test_mode: bool = False
    ) -> tuple[TensorDict, TensorDict]:
        return TensorDict({"actions": self._actions(step)}, batch_size=step.batch_size), state

    def _actions(self, step: TensorDict) -> Tensor:
        N, A = self.spec.n_agents, self.spec.n_actions
        if not self.spec.discrete:
            drawn = torch.rand(len(step), N, A) * 2 - 1
            return torch.full_like(drawn, float(self.wanted[0])) if self.wanted else drawn
        score = torch.rand(len(step), N, A) * step["avail_actions"]
        for rank, action in enumerate(self.wanted):
            score[..., action] += step["avail_actions"][..., action] * (len(self.wanted) + 1 - rank)
        return score.argmax(-1)


def policies(spec: TeamSpec) -> Iterator[Scripted]:
    """Three of them; with action vectors the last two are zeros and ones."""
    classes = dict(spec.action_classes)
    last = spec.n_actions - 1 if spec.discrete else 1
    attacks = [*classes.get("attack", ()), *classes.get("move", ())[1:2]]
    for wanted in ([], list(classes.get("stop", (0,))), attacks or [last]):
        yield Scripted(spec, wanted)


def measure(
    suite: str, env_args: dict[str, Any], rollouts: int
) -> tuple[TeamSpec, dict[str, tuple[float, float]], list[str]]:
    """Sizes, range of obs and state, and the alarm's sentences."""
    raw = files.load("envs", suite, files.map_of(env_args))
    raw = files.merge(files.merge(raw, files.load("algs", "qmix")), {"env_args": env_args, "batch_size_run": 2})
    settings = RunSettings(raw | {"runner": "parallel"}, ExperimentSettings)
    env_class = settings.components["env"]
    runner: Runner = settings.make("runner", env_class=env_class, env_settings=settings.of(env_class.Settings), seed=0)
    try:
        alarm = RangeAlarm(runner.entry_names, "")
        ranges: dict[str, tuple[float, float]] = {}
        said = []
        for policy, _ in itertools.product(policies(runner.spec), range(rollouts)):
            batch = runner.run(policy, 0).batch  # type: ignore[arg-type]
            said += [
                alarm_.sentence.partition(";")[0].strip() for alarm_ in alarm.look_at_episodes(batch, torch.zeros(0))
            ]
            for key in ("obs", "state"):
                low, high = (float(x) for x in torch.aminmax(batch[key]))
                before = ranges.get(key, (low, high))
                ranges[key] = min(before[0], low), max(before[1], high)
    finally:
        runner.close()
    return runner.spec, ranges, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="environments whose name holds this")
    parser.add_argument("--full", action="store_true", help="every SMAX map")
    parser.add_argument("--rollouts", type=int, default=2, help="rollouts of two episodes with each policy")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        "| environment | observations | from, to | state | from, to | the alarm |",
        "| --- | --- | --- | --- | --- | --- |",
        sep="\n",
    )
    for name, suite, env_args in environments(args.full):
        if args.only not in name:
            continue
        try:
            spec, ranges, said = measure(suite, env_args, args.rollouts)
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        obs, state = ("{:.3g}, {:.3g}".format(*ranges[key]) for key in ("obs", "state"))
        print(
            f"| {name} | {spec.obs_dim} | {obs} | {spec.state_dim} | {state} | {' '.join(said) or 'nothing'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
