"""A trained team without its training: ``write`` for a file of it, and ``load`` for programs that play it."""

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

FORMAT = 1
_NOT_THE_TEAM = ("env", "runner", "memory", "callbacks")
"""What a run has and its team acts without."""


def write(source: Path, out: Path, step: int = 0, as_onnx: bool = False, trusted: bool = False) -> None:
    """Write the team of a checkpoint into a file of its own, and say so.

    Args:
        source: a folder of checkpoints, one of them, or a recorded run.
        out: the file to write.
        step: the checkpoint nearest to this environment step; 0 for the newest.
        as_onnx: as an ONNX model, in place of a file for ``load``.
        trusted: the checkpoint may name code outside Shoal, whoever wrote it.

    Raises:
        UserError: there is no such checkpoint, or the file cannot be written.
    """
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
