"""How large a mixer's weights are at first."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn


@dataclass(frozen=True)
class MixerSettings:
    """What every mixer with parameters declares."""

    mixer_init_scale: Annotated[
        float, "factor on all initial weights and biases of the mixers; below 1, a fresh Q^tot is closer to 0"
    ] = 1.0

    def __post_init__(self) -> None:
        if not (self.mixer_init_scale > 0 and math.isfinite(self.mixer_init_scale)):
            raise ValueError(
                f"mixer_init_scale={self.mixer_init_scale} is out of range: it must be positive and finite."
            )


@torch.no_grad()
def scale_initial(mixer: nn.Module, scale: float) -> None:
    """Multiply every parameter of a fresh mixer by ``scale``; 1 leaves it as it is.

    A network whose state entries are far from 1 starts with a Q^tot of their size, and bootstrapping spreads that.
    JaxMARL's ``MIXER_INIT_SCALE`` (0.001) is the remedy; its biases start at 0, so only its weights have something to
    scale. Here biases are random too, and without the factor on them Q^tot would keep its size.
    """
    if scale != 1:
        for parameter in mixer.parameters():
            parameter.mul_(scale)
