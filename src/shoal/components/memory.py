"""What a learner learns from: the kind of component ``memory``."""

from collections.abc import Iterator
from typing import Any

from shoal.components.batch import EpisodeBatch


class Memory:
    """Base of the memories: takes in every rollout and gives out the batches of the updates that follow it.

    A row of a batch is a run of consecutive steps of one episode, with the observation after its last action; nothing
    else that reads batches needs more. ``replay`` gives whole episodes of the past. A memory is built with

        Memory(settings, scheme, episode_limit, device, seed)

    where ``scheme`` are the fields of a batch, ``device`` is where the learner is, and ``seed`` is the run's.
    """

    Settings: type[Any]
    saves_episodes = False
    """Whether checkpoints hold what is stored, for an exact resume."""
    keep_buffers = 0
    """Newest checkpoints that keep it; 0: all of them."""

    def insert(self, rollout: EpisodeBatch) -> None:
        """Take in whole episodes: batch size ``[B, <= T+1]``, on any device."""
        raise NotImplementedError

    def batches(self, t_env: int) -> Iterator[EpisodeBatch]:
        """The batches to learn from after the last rollout, on the learner's device; none while there is too little.

        ``t_env``: environment steps done so far.
        """
        raise NotImplementedError

    def write_back(self, batch: EpisodeBatch) -> None:
        """Take what the learner has written into a batch of ``batches`` (priorities, say). Nothing, by default."""

    def describe(self) -> str:
        """A few words for the console: what is kept, and how large it is."""
        return type(self).__name__

    def state_dict(self, with_episodes: bool) -> dict[str, Any]:
        """What a checkpoint keeps: counters and random state, and what is stored (as ``episodes``) where asked.

        ``episodes`` is None where it is left out.
        """
        return {"episodes": None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``. Without stored episodes the memory starts empty."""
