"""Bootstrapped returns."""

import torch
from torch import Tensor


def td_lambda(reward: Tensor, terminated: Tensor, mask: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """TD(lambda) targets y_t, SARSA(lambda)-style without trace cutting (PyMARL2's ``build_td_lambda_targets``).

    With m the mask and V the bootstrap values of the states,

        y_t = r_t + gamma * (1 - terminated_t) * (lambda * m_{t+1} * y_{t+1} + (1 - lambda * m_{t+1}) * V_{t+1}),

    where m_T = 0: the last real transition of a truncated episode bootstraps from its last state, a terminated one does
    not. Padded steps give 0. The recursion is solved in log2(T) vector steps (a parallel scan) instead of T.

    Shapes: reward, terminated, mask ``[..., T]`` (any leading axes), values ``[..., T+1]`` -> ``[..., T]``.
    Leading axes of ``values`` may be wider than the others' (per-agent or per-copy values): they broadcast.
    """
    next_mask = torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], dim=-1)
    discount = gamma * (1 - terminated)
    # y_t = a_t + b_t y_{t+1}
    a = mask * (reward + discount * (1 - lam * next_mask) * values[..., 1:])
    b = (mask * discount * lam * next_mask).expand_as(a).clone()
    T, reach = a.shape[-1], 1
    while reach < T:
        a[..., :-reach] = a[..., :-reach] + b[..., :-reach] * a[..., reach:]
        b[..., :-reach] = b[..., :-reach] * b[..., reach:]
        b[..., -reach:] = 0
        reach *= 2
    return a
