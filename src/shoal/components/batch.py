"""Episodes as tensors: the fields of a batch, and the one mask that says which transitions count.

An EpisodeBatch is a ``tensordict.TensorDict`` of batch size ``[B, T+1]``:

    obs [N, D] float32 · state [S] float32 · avail_actions [N, A] bool (discrete) ·
    actions [N] int64 or [N, d] float32 · reward [1] float32 · terminated [1] bool · filled [1] bool ·
    the controller's extra keys

Row t of an episode holds what was seen at t and done there. ``filled`` is true for every row with a real observation,
the last one (index = length of the episode) included, in which nothing is done any more.
"""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.spec import TeamSpec

EpisodeBatch: TypeAlias = TensorDict


@dataclass(frozen=True)
class Field:
    """One key of a batch: the shape behind ``[B, T+1]`` and the dtype it is stored in."""

    shape: tuple[int, ...]
    dtype: torch.dtype


Scheme = dict[str, Field]


def index_dtype(n: int) -> torch.dtype:
    """The smallest integer type that holds the indices of ``n`` things, 0 to n - 1."""
    return next((t for t in (torch.uint8, torch.int16, torch.int32) if n - 1 <= torch.iinfo(t).max), torch.int64)


def make_scheme(spec: TeamSpec, extra: Scheme | None = None) -> Scheme:
    """The fields of a batch for this environment, plus the controller's ``extra`` ones."""
    N, A = spec.n_agents, spec.n_actions
    scheme: Scheme = {
        "obs": Field((N, spec.obs_dim), torch.float32),
        "state": Field((spec.state_dim,), torch.float32),
        "reward": Field((1,), torch.float32),
        "terminated": Field((1,), torch.bool),
        "filled": Field((1,), torch.bool),
    }
    if spec.discrete:
        scheme["avail_actions"] = Field((N, A), torch.bool)
        scheme["actions"] = Field((N,), torch.int64)
    else:
        scheme["actions"] = Field((N, A), torch.float32)
    if spec.has_alive:
        scheme["alive"] = Field((N,), torch.bool)
    return scheme | (extra or {})


def transition_mask(batch: EpisodeBatch) -> Tensor:
    """1 where an action was executed, 0 in padding. Float ``[B, T]``.

    A transition t counts if its successor was observed and the task had not ended before t. PyMARL's
    ``filled_t * (1 - terminated_{t-1})`` also lets in the last, actionless row of an episode that was truncated early.
    """
    filled, terminated = batch["filled"].squeeze(-1), batch["terminated"].squeeze(-1)
    ended_before = terminated[:, :-1].cumsum(1) - terminated[:, :-1].long() > 0
    return (filled[:, 1:] & ~ended_before).float()


@dataclass(frozen=True)
class PackedSteps:
    """The real steps of a batch, P of them, laid end to end: all first steps, then all second ones, and so on.

    Episodes come longest first, so that at step t the first ``counts[t]`` episodes of the order are still running (the
    layout of ``torch.nn.utils.rnn.PackedSequence``). Networks run over these rows alone: padding costs nothing and
    cannot leak into a loss.
    """

    counts: list[int]
    index: Tensor
    """Row of each step in the batch flattened to ``[B * (T+1)]``: int64 ``[P]``."""
    acted: Tensor
    """Which of the P steps are transitions (``transition_mask``), as int64 indices ``[R]``."""
    shape: tuple[int, int]

    @classmethod
    def of(cls, batch: EpisodeBatch) -> "PackedSteps":
        """Find the real steps of ``batch``."""
        return cls._where(batch["filled"].squeeze(-1), batch)

    @classmethod
    def with_value(cls, batch: EpisodeBatch) -> "PackedSteps":
        """The real steps of ``batch`` but for the states in which a task is over: they are worth nothing.

        In a game of one step these are half of all states.
        """
        over = torch.nn.functional.pad(batch["terminated"][:, :-1, 0].cummax(1).values, (1, 0))
        return cls._where(batch["filled"].squeeze(-1) & ~over, batch)

    @classmethod
    def _where(cls, wanted: Tensor, batch: EpisodeBatch) -> "PackedSteps":
        """The steps ``wanted`` (bool ``[B, T+1]``), which are the first ones of every episode."""
        B, T1 = wanted.shape
        order = wanted.sum(1).argsort(descending=True, stable=True)
        time, place = wanted[order].T.nonzero(as_tuple=True)
        index = order[place] * T1 + time
        mask = torch.nn.functional.pad(transition_mask(batch), (0, 1)).flatten()
        counts = [count for count in wanted.sum(0).tolist() if count]
        return cls(counts, index, mask[index].nonzero().squeeze(-1), (B, T1))

    def pack(self, x: Tensor) -> Tensor:
        """``[B, T+1, ...] -> [P, ...]``."""
        return x.flatten(0, 1).index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """``[M, P, ...] -> [M, B, T+1, ...]``, zeros in padding."""
        return self._placed(x, self.index)

    def pack_acted(self, x: Tensor) -> Tensor:
        """Values that every transition has, ``[M, B, T] -> [M, R]``: undoes ``unpack_acted``."""
        return torch.nn.functional.pad(x, (0, 1)).flatten(1).index_select(1, self.index[self.acted])

    def unpack_acted(self, x: Tensor) -> Tensor:
        """Values of the transitions, where they belong: ``[M, R, ...] -> [M, B, T, ...]``, zeros in padding."""
        return self._placed(x, self.index[self.acted])[:, :, :-1]

    def _placed(self, x: Tensor, index: Tensor) -> Tensor:
        """``x [M, n, ...]`` at the rows ``index`` of a batch of zeros: ``[M, B, T+1, ...]``."""
        padded = x.new_zeros(x.shape[0], self.shape[0] * self.shape[1], *x.shape[2:])
        return padded.index_copy(1, index, x).unflatten(1, self.shape)


def episode_lengths(batch: EpisodeBatch) -> Tensor:
    """Transitions in each episode. Int64 ``[B]``."""
    return batch["filled"].squeeze(-1).sum(1) - 1


def one_hot(actions: Tensor, n_actions: int) -> Tensor:
    """Float one-hots: ``[...] -> [..., A]``."""
    return torch.nn.functional.one_hot(actions, n_actions).float()
