"""Replay memory of whole episodes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import psutil
import torch
from tensordict import TensorDict

from shoal.components.batch import EpisodeBatch, Scheme, episode_lengths, index_dtype
from shoal.components.memory import Memory
from shoal.declare import Checked, Range, Role
from shoal.utils.errors import UserError

GB = 1e9


@dataclass(frozen=True)
class ReplaySettings(Checked):
    batch_size: Annotated[int, "episodes in a training batch", Range(1)] = 32
    buffer_size: Annotated[int, "episodes that the replay memory holds", Range(1)] = 5000
    updates_per_rollout: Annotated[int, "gradient steps after each rollout", Range(1)] = 1
    buffer_cpu_only: Annotated[bool, "keep the replay memory in main memory, not on the GPU", Role.HARDWARE] = True
    save_buffer: Annotated[bool, "save the replay memory in checkpoints, for an exact resume", Role.RECORD] = False
    keep_buffers: Annotated[
        int, "number of newest checkpoints that keep their replay memory; 0: all", Range(0), Role.RECORD
    ] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.buffer_size < self.batch_size:
            raise UserError(
                f"buffer_size={self.buffer_size} holds fewer episodes than one batch "
                f"(batch_size={self.batch_size}): raise it."
            )


class ReplayBuffer(Memory):
    """Replay memory: the last ``buffer_size`` episodes, sampled uniformly without replacement.

    All memory is taken once, at the start, so that a run which fits then fits to its end. Action indices are kept
    in the smallest type that holds them.
    """

    Settings = ReplaySettings

    def __init__(
        self, settings: ReplaySettings, scheme: Scheme, episode_limit: int, device: torch.device, seed: int
    ) -> None:
        self.settings, self.scheme, self.rows = settings, scheme, episode_limit + 1
        self.saves_episodes, self.keep_buffers = settings.save_buffer, settings.keep_buffers
        self.capacity = capacity = settings.buffer_size
        self.learner_device = device
        self.device = device = torch.device("cpu") if settings.buffer_cpu_only else device
        self._stored_dtypes = {key: self._compact(key, scheme) for key in scheme}
        self.gigabytes = (
            sum(
                capacity * self.rows * int(np.prod(field.shape)) * self._stored_dtypes[key].itemsize
                for key, field in scheme.items()
            )
            / GB
        )
        self._check_room()
        self._data = TensorDict(
            {
                key: torch.full((capacity, self.rows, *field.shape), 0, dtype=self._stored_dtypes[key], device=device)
                for key, field in scheme.items()
            },
            batch_size=[capacity, self.rows],
        )
        self._lengths = np.zeros(capacity, dtype=np.int64)
        self._next = 0
        self.n_episodes = 0
        self._rng = np.random.default_rng(seed)

    @staticmethod
    def _compact(key: str, scheme: Scheme) -> torch.dtype:
        dtype = scheme[key].dtype
        if key == "actions" and dtype == torch.int64:
            return index_dtype(scheme["avail_actions"].shape[-1])
        return dtype

    def _check_room(self) -> None:
        if self.device.type == "cuda":
            free = torch.cuda.mem_get_info(self.device)[0]
        else:
            free = psutil.virtual_memory().available
        if self.gigabytes * GB > 0.9 * free:
            raise UserError(
                f"The replay buffer of {self.capacity} episodes needs {self.gigabytes:.1f} GB, "
                f"but only {free / GB:.1f} GB are free on {self.device}: lower buffer_size"
                + (" or set buffer_cpu_only=True." if self.device.type == "cuda" else ".")
            )

    def insert(self, batch: EpisodeBatch) -> None:
        """Store the episodes of ``batch`` (batch size ``[B, <= T+1]``), overwriting the oldest."""
        for start in range(0, batch.shape[0], self.capacity):
            chunk = batch[start : start + self.capacity]
            index = (self._next + np.arange(chunk.shape[0])) % self.capacity
            rows = chunk.shape[1]
            where = torch.as_tensor(index, device=self.device)
            for key, stored in self._data.items():
                stored[where, :rows] = chunk[key].to(self.device, stored.dtype)
                stored[where, rows:] = 0
            self._lengths[index] = episode_lengths(chunk).cpu().numpy()
            self._next = int(index[-1] + 1) % self.capacity
            self.n_episodes = min(self.n_episodes + chunk.shape[0], self.capacity)

    def batches(self, t_env: int) -> Iterator[EpisodeBatch]:
        """``updates_per_rollout`` samples, once a batch's worth of episodes is stored."""
        if self.n_episodes >= self.settings.batch_size:
            for _ in range(self.settings.updates_per_rollout):
                yield self.sample(self.settings.batch_size)

    def sample(self, batch_size: int) -> EpisodeBatch:
        """``batch_size`` different episodes, cut to the longest of them: batch size ``[B, T+1]``."""
        index = self._rng.choice(self.n_episodes, size=batch_size, replace=False)
        rows = int(self._lengths[index].max()) + 1
        where = torch.as_tensor(index, device=self.device)
        device = self.learner_device
        sampled = {key: stored[where, :rows].to(device, self.scheme[key].dtype) for key, stored in self._data.items()}
        return TensorDict(sampled, batch_size=[batch_size, rows])

    def describe(self) -> str:
        """Its size."""
        return f"replay memory of {self.capacity} episodes, {self.gigabytes:.2f} GB"

    def state_dict(self, with_episodes: bool) -> dict[str, Any]:
        """Counters and the sampler's random state; the stored episodes too where asked."""
        state: dict[str, Any] = {"rng": self._rng.bit_generator.state, "episodes": None}
        if with_episodes:
            state["next"] = self._next
            state["lengths"] = torch.as_tensor(self._lengths[: self.n_episodes])
            state["episodes"] = {
                key: stored[: self.n_episodes].to("cpu", copy=True) for key, stored in self._data.items()
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo ``state_dict``. Without stored episodes the memory starts empty."""
        self._rng.bit_generator.state = state["rng"]
        self._next = self.n_episodes = 0
        if state["episodes"] is None:
            return
        self._next = state["next"]
        self.n_episodes = len(state["lengths"])
        self._lengths[: self.n_episodes] = state["lengths"].numpy()
        for key, stored in self._data.items():
            stored[: self.n_episodes] = state["episodes"][key].to(self.device)
