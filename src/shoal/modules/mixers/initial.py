"""How large a mixer's weights are at first."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from shoal.declare import Checked, Range


@dataclass(frozen=True)
class MixerSettings(Checked):
    """What every mixer with parameters declares."""

    mixer_init_scale: Annotated[
        float,
        "factor on the mixers' initial weights and biases; below 1 the initial Q^tot is closer to 0",
        Range(above=0),
    ] = 1.0


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
