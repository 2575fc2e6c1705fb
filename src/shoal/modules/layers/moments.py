"""Running means and deviations, and the inputs that are normalised by them."""

from typing import Literal

import torch
from torch import Tensor, nn

LARGEST = 10.0
"""Normalised inputs are cut at so many deviations, as is usual (OpenAI Baselines' VecNormalize): an entry that hardly
ever changes has a tiny deviation, and its rare change must not outweigh everything else."""
_LEAST = 1e-8
"""Keeps a variance off zero: an entry that never changes becomes 0."""

_AT_ONCE = 1 << 20
"""Numbers that are taken in together: their copies in double precision need some room."""


class RunningMoments(nn.Module):
    """Mean and variance of every entry over all rows seen so far, in double precision; 0 and 1 before the first.

    Batches are merged by the parallel form of Welford's algorithm (Chan et al. 1979), so that the result does not
    depend on how the rows were split, but for rounding.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(size, dtype=torch.float64))
        self.count: Tensor
        self.mean: Tensor
        self.squares: Tensor
        """Sum of the squared distances from the mean."""

    @property
    def std(self) -> Tensor:
        """Standard deviation ``[size]``, over all rows (not their number less one)."""
        if not self.count:
            return torch.ones_like(self.squares)
        return (self.squares / self.count + _LEAST).sqrt()

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Add the rows ``[n, size]``, wherever they are."""
        for part in rows.split(max(1, _AT_ONCE // rows.shape[1])):
            n = len(part)
            if not n:
                return
            part = part.double()
            mean = part.mean(0)
            squares = (part - mean).square().sum(0).to(self.mean.device)
            apart, total = mean.to(self.mean.device) - self.mean, self.count + n
            self.mean += apart * (n / total)
            self.squares += squares + apart.square() * (self.count * n / total)
            self.count += n

    def standardise(self, x: Tensor) -> Tensor:
        """Distance from the mean in deviations: ``[..., size]`` (or broadcast against it)."""
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)

    def restore(self, x: Tensor) -> Tensor:
        """Undo ``standardise``."""
        return x * self.std.to(x.dtype) + self.mean.to(x.dtype)


class Normaliser(nn.Module):
    """Observations or states on the scale of networks: less their mean, over their deviation, cut at 10 of these.

    It holds what is applied, and so what is deployed; ``RunningMoments`` says what that is. Before it has followed any,
    inputs are only cut.
    """

    def __init__(self, size: int, of: Literal["obs", "state"]) -> None:
        super().__init__()
        self.of = of
        """Whose moments it follows."""
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.mean: Tensor
        self.scale: Tensor

    def follow(self, moments: RunningMoments) -> None:
        """Take over these moments."""
        self.mean.copy_(moments.mean)
        self.scale.copy_(1 / moments.std)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``[..., size] -> [..., size]``."""
        return ((x - self.mean) * self.scale).clamp(-LARGEST, LARGEST)
