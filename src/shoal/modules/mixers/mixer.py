"""What a learner asks of a mixer."""

from collections.abc import Callable

from torch import Tensor, nn


class Mixer(nn.Module):
    """Base of the mixers: M independent functions from the agents' utilities to a joint value.

    A subclass defines ``forward(qs, state, maxima, actions)``: qs ``[M, R, N]`` (or, of C candidates under one mixer,
    ``[C, R, N]``), state ``[R, S]``, the agents' best utilities ``[M or 1, R, N]`` without gradient and joint actions
    ``[1 or C, R, N]`` (int) -> joint values ``[M, R]`` (``[C, R]``). Central mixers get ``qs`` and ``state`` alone.
    """

    __call__: Callable[..., Tensor]
