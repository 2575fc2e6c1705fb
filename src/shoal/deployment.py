"""`python src/main.py export CHECKPOINT`: a trained team without its training, and `load` for programs that play it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from shoal.components.spec import TeamSpec
from shoal.config import trust
from shoal.config.files import map_of
from shoal.config.settings import RunSettings
from shoal.controllers.basic import BasicMAC
from shoal.controllers.controller import Controller
from shoal.experiment import ExperimentSettings
from shoal.learners.learner import Learner
from shoal.recording.reader import checkpoints_of
from shoal.utils import checkpoint as checkpoints
from shoal.utils.atomic import replace_file
from shoal.utils.errors import UserError
from shoal.utils.finite import require_finite
from shoal.utils.program import typed

HELP = """Writes what is deployed of a checkpoint into a file of its own: the agents' network and what they need to act.
Mixers, critics, target networks, optimisers and replay memory stay behind.

  {export} CHECKPOINT [--onnx] [--out FILE] [--load_step STEP]

  CHECKPOINT          a folder of results/models, a .pt file in it, or a recorded run (results/sacred/7)
  --onnx              write the team's step as an ONNX model, which plays without torch and Shoal (docs/deployment.md)
  --out FILE          where to (default: team.pt, or team.onnx)
  --load_step STEP    the checkpoint nearest to this environment step (default: the newest)

In a program:

  from shoal import deployment
  team = deployment.load("team.pt")
"""

FORMAT = 1
_NOT_THE_TEAM = ("env", "runner", "memory", "callbacks")
"""What a run has and its team acts without."""


def main(args: list[str], trusted: bool = False) -> int:
    """Run the command. Exit status 0. ``trusted``: the checkpoint may name code outside Shoal, whoever wrote it.

    Raises:
        UserError: the command line cannot be understood, there is no such checkpoint, or the file cannot be written.
    """
    if {"-h", "--help"} & set(args):
        print(HELP.format(export=typed("export")))
        return 0
    source, out, step, as_onnx = _parse(args)
    file = checkpoints.find(checkpoints_of(source), step)
    content = checkpoints.require_run(checkpoints.load(file), file)
    trust.check(content, file, trusted, skip=_NOT_THE_TEAM)
    team = deployed(content, file)
    try:
        if as_onnx:
            _write_onnx(team, content["config"], file, out)
        else:
            checkpoints.write(_packed(team, content), out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another place with --out.") from error
    numbers = sum(tensor.numel() for tensor in team.state_dict().values())
    print(f"{out}: the team of {file}, {numbers:,} numbers")
    return 0


def _write_onnx(team: Controller, config: Mapping[str, Any], file: Path, out: Path) -> None:
    from shoal import onnx_team

    if not isinstance(team, BasicMAC):
        raise UserError(f"A {type(team).__name__} cannot be written as ONNX yet: export it without --onnx.")
    require_finite(team.state_dict(), f"Nothing is written to {out}")
    about = {"algorithm": config["name"], "env": config["env"], "checkpoint": file.name}
    map_name = map_of(config["env_args"])
    model = onnx_team.team_model(team, about | ({"map": str(map_name)} if map_name else {}))
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, model)


def _parse(args: list[str]) -> tuple[Path, Path, int, bool]:
    options, places, rest = {"--out": "", "--load_step": "0"}, [], [word for word in args if word != "--onnx"]
    as_onnx = len(rest) < len(args)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        if word in options:
            if not equals and not rest:
                raise UserError(f"{word} needs a value: see {typed('export')} --help.")
            options[word] = value if equals else rest.pop(0)
        elif word.startswith("-"):
            raise UserError(f"export has no option {word}: see {typed('export')} --help.")
        else:
            places.append(word + equals + value)
    if len(places) != 1:
        raise UserError(f"export needs one checkpoint: {typed('export')} results/sacred/7 (see export --help).")
    if not options["--load_step"].isdigit():
        raise UserError(f"--load_step {options['--load_step']} is no environment step: give a whole number.")
    out = options["--out"] or ("team.onnx" if as_onnx else "team.pt")
    return Path(places[0]), Path(out), int(options["--load_step"]), as_onnx


def _packed(team: Controller, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"team": FORMAT, "config": content["config"], "spec": content["spec"], "networks": team.state_dict()}


def deployed(content: dict[str, Any], file: Path) -> Controller:
    """The team in the checkpoint ``content``, read from ``file``, as it is deployed. On the CPU.

    Raises:
        UserError: it is of a version that did not keep the team's sizes.
    """
    if "spec" not in content:
        raise UserError(
            f"{file} was written before checkpoints held the team's sizes: resume its run and save it again."
        )
    learner = _learner(content)
    learner.load_networks(content["learner"])
    return learner.controller.for_execution()


def _learner(content: dict[str, Any]) -> Learner:
    """A fresh learner of the settings and sizes in a checkpoint or an exported team."""
    settings = RunSettings(content["config"], ExperimentSettings, skip=_NOT_THE_TEAM)
    learner: Learner = settings.make("learner", spec=TeamSpec(**content["spec"]), make=settings.make)
    return learner


def load(path: Path | str, components: Collection[str] = ()) -> Controller:
    """A team written by the ``export`` command, ready to act: ``select_actions`` with ``test_mode=True``. On the CPU.

    Args:
        path: the file.
        components: import paths of your own components that the team consists of (``["my_package:MyAgent"]``). Nothing
            else outside Shoal is imported, whatever the file says.

    Raises:
        UserError: there is no such file, it holds something else, or it names code that ``components`` does not.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no team at {path}: {typed('export')} CHECKPOINT --out {path} writes one.")
    content = checkpoints.load(path)
    if content.get("team") != FORMAT:
        raise UserError(f"{path} holds no exported team: {typed('export')} CHECKPOINT writes one.")
    if not all(isinstance(content.get(part), Mapping) for part in ("config", "spec", "networks")):
        raise UserError(f"{path} is incomplete: write it again with {typed('export')} CHECKPOINT.")
    strange = {k: v for k, v in trust.imports_of(content["config"], _NOT_THE_TEAM).items() if v not in components}
    if strange:
        raise UserError(
            f"{path} names code that is not Shoal's ({', '.join(f'{k}={v}' for k, v in strange.items())}): "
            f"if you trust it, load it with components={sorted(strange.values())}."
        )
    try:
        team = _learner(content).controller.for_execution()
        team.load_state_dict(content["networks"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"The settings, sizes and networks in {path} do not match ({reason}): export it again."
        ) from error
    return team.requires_grad_(False)
