"""A deployed team's step as an ONNX model, which plays without torch and without Shoal.

``team_model`` makes the model, ``export CHECKPOINT --onnx`` writes it. One call of it is one step of B teams:

    input           shape       type
    obs             [B, N, D]   float32
    avail_actions   [B, N, A]   bool      where actions are discrete
    alive           [B, N]      bool      where the agent must know who is alive
    hidden          [B, N, H]   float32   zeros at an episode's first step, then next_hidden
    last_actions    [B, N, A]   float32   zeros at an episode's first step, then next_last_actions
    draw            []          int64     QF-LAN: a random number from 0 to n_draws - 1, anew at each step

    output
    actions         [B, N] int64, or [B, N, d] float32 in [-1, 1]
    next_hidden, next_last_actions

The sizes, and of which run it is, stand in the model's metadata.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shoal.controllers.basic import BasicMAC
from shoal.utils.errors import UserError
from shoal.utils.extras import needed_for

NEEDS = ("onnx", "onnxscript")
"""Packages that writing a model needs; playing it needs onnxruntime."""
BATCH = "batch"
"""Name of the axis of teams, which may have any length."""
_TRACED_ROWS = 2
"""Teams in the step that is traced; the exporter takes a length of 1 for a constant."""


class TeamStep(nn.Module):
    """One step of a deployed team, as a function of tensors alone (see above)."""

    def __init__(self, team: BasicMAC) -> None:
        super().__init__()
        self.team = team.requires_grad_(False).eval()
        if self.team.agent.copies != 1:
            raise ValueError("only what for_execution returns can be written as ONNX")

    def forward(
        self,
        obs: Tensor,
        hidden: Tensor,
        last_actions: Tensor,
        avail_actions: Tensor | None = None,
        alive: Tensor | None = None,
        draw: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, next recurrent state, actions as the next step reads them."""
        step = {"obs": obs} if alive is None else {"obs": obs, "alive": alive}
        state = {"hidden": hidden.unsqueeze(1), "last_actions": last_actions}
        outputs, states = self.team.step(step, state)
        actions = self.team.deployed_actions(outputs, avail_actions, torch.tensor(0) if draw is None else draw)
        return actions, states[0], self.team.inputs.as_vectors(actions).to(last_actions.dtype)

    def example(self, rows: int) -> dict[str, Tensor]:
        """Inputs of the right shapes and types: those of the first step of ``rows`` teams that observe nothing."""
        spec, hidden = self.team.spec, self.team.initial_state(rows)["hidden"][:, 0]  # [B, N, H]
        per_action = torch.zeros(rows, spec.n_agents, spec.n_actions)
        inputs = {
            "obs": torch.zeros(rows, spec.n_agents, spec.obs_dim),
            "hidden": hidden.contiguous(),
            "last_actions": per_action,
        }
        if spec.discrete:
            inputs["avail_actions"] = torch.ones_like(per_action, dtype=torch.bool)
        if self.team.agent.reads_alive:
            inputs["alive"] = torch.ones(rows, spec.n_agents, dtype=torch.bool)
        if self.team.n_draws > 1:
            inputs["draw"] = torch.tensor(0)
        return inputs


def team_model(team: BasicMAC, about: dict[str, str]) -> bytes:
    """The model of a deployed team, as an ONNX file holds it.

    Args:
        team: what ``for_execution`` of a controller returns.
        about: what to write into the model's metadata, in addition to the team's sizes.

    Raises:
        UserError: a package is missing, or the team consists of what ONNX has no operators for.
    """
    with needed_for("export --onnx", "onnx"):
        for package in NEEDS:
            importlib.import_module(package)
    step = TeamStep(team)
    inputs = step.example(_TRACED_ROWS)
    batch = torch.export.Dim(BATCH)
    with _quiet():
        try:
            program = torch.onnx.export(
                step,
                kwargs=inputs,
                dynamic_shapes={name: {0: batch} if x.dim() else {} for name, x in inputs.items()},
                input_names=list(inputs),
                output_names=["actions", "next_hidden", "next_last_actions"],
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise UserError(
                f"The team cannot be written as ONNX ({reason}): its agent={type(team.agent).__name__} does what ONNX "
                "has no operators for. Export it without --onnx."
            ) from error
    assert program is not None
    spec = team.spec
    sizes = {"n_agents": spec.n_agents, "n_actions": spec.n_actions, "obs_dim": spec.obs_dim, "n_draws": team.n_draws}
    proto: Any = program.model_proto
    for key, value in ({"producer": "shoal"} | about | sizes | {"hidden_dim": team.agent.hidden_dim}).items():
        proto.metadata_props.add(key=key, value=str(value))
    content: bytes = proto.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
