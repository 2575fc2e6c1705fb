"""The pieces of every learner's loss, one episode, step and agent at a time, straight from the equations."""

from collections.abc import Iterator

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from shoal.components.batch import episode_lengths
from shoal.learners.central_value import CentralValue
from shoal.learners.learner import Learner


def prepared(learner: Learner, batch: TensorDict) -> tuple[Learner, TensorDict]:
    """In double precision, with targets that differ from the networks they follow, and values of some size."""
    learner.double()
    with torch.no_grad():
        for name, p in learner.named_parameters():
            if not p.requires_grad:
                p += 0.3 * torch.randn_like(p)
            elif name.startswith("controller.agent.fc_out"):
                p *= 5
    wide = {key: x.double() if x.is_floating_point() else x for key, x in batch.items()}
    return learner, TensorDict(wide, batch_size=batch.batch_size)


def episodes(batch: TensorDict) -> Iterator[TensorDict]:
    for b, length in enumerate(episode_lengths(batch).tolist()):
        yield batch[b : b + 1, : length + 1]


def best(values: Tensor, avail: Tensor) -> list[int]:
    """Each agent's best available action: values and avail ``[N, A]``."""
    rows = zip(values, avail, strict=True)
    return [max(allowed.nonzero().flatten().tolist(), key=row.__getitem__) for row, allowed in rows]


def at(values: Tensor, joint: list[int]) -> Tensor:
    return torch.stack([row[a] for row, a in zip(values, joint, strict=True)])


def td_targets(episode: TensorDict, v: list[float], gamma: float = 0.99, lam: float = 0.6) -> list[float]:
    y, length = [0.0] * (len(v) - 1), len(v) - 1
    for t in reversed(range(length)):
        later = v[t + 1] if t + 1 == length else lam * y[t + 1] + (1 - lam) * v[t + 1]
        ended = bool(episode["terminated"][0, t])
        y[t] = float(episode["reward"][0, t]) + (0.0 if ended else gamma * later)
    return y


def mixed(
    mixer: nn.Module, utilities: Tensor, joint: list[int], greedy: list[int], state: Tensor, k: int = 0, copies: int = 1
) -> float:
    """Mixer ``k`` of ``copies`` at a joint action: utilities ``[N, A]``, the agents' own best ones, state ``[S]``."""
    taken, maxima = (at(utilities, a).view(1, 1, -1).expand(copies, -1, -1) for a in (joint, greedy))
    return float(mixer(taken, state.view(1, -1), maxima, torch.tensor([[joint]]))[k])


def central_value(central: CentralValue, utilities: Tensor, joint: list[int], state: Tensor) -> float:
    return float(central.mixer(at(utilities, joint).view(1, 1, -1), state.view(1, -1)))
