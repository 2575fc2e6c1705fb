"""What a run's numbers should never be: values beyond all returns, inputs far from the networks' scale. Said once each.

Networks read numbers of about 1 best. An entry that falls to -45 during an episode makes untrained networks predict
more than any return for whatever makes it last, and bootstrapping spreads that promise: the run learns to stay alive
and does nothing else. Nothing fails, so somebody has to look.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shoal.components.batch import EpisodeBatch

VALUES = ("q_taken_mean", "central_q_taken_mean", "target_max_abs")
"""Metrics of learners that returns bound. The largest target tells first: it takes one state that is promised too much,
where a mean takes most. (S2Q's suppressed targets and LAN's V without its advantages are not bounded by anything.)"""
MARGIN, SLACK = 2.0, 5.0
"""Values may be ``MARGIN`` times the largest return and ``SLACK``: bootstrapped values overshoot at first, and fresh
networks promise something before there is any reward."""
LARGE = 10.0
"""An observation's or a state's entry may be so large."""
GROWN, GROWTH = 2.0, 3.0
"""An entry grows along an episode if its mean size rises from quarter to quarter, above ``GROWN`` and to ``GROWTH``
times that of the first."""
LONG, MANY, MOST = 20, 20, 0.8
"""Looked at are episodes of ``LONG`` steps and more. An entry keeps growing if it grew along ``MOST`` of at least
``MANY`` of them: a position that drifted once does not."""


@dataclass(frozen=True)
class Alarm:
    """One that goes off: what to record, and what to say."""

    metric: str
    value: float
    sentence: str


class RangeAlarm:
    """Watches a run's values and inputs; every kind of alarm goes off once in a run.

    Args:
        entry_names: the environment's own names of the entries of ``obs`` and ``state``, where it has some.
        advice: what to do about an input that is too large.
        inputs: whether to look at inputs at all; where they are normalised, raw inputs do not matter.
    """

    def __init__(self, entry_names: Mapping[str, Sequence[str]], advice: str, inputs: bool = True) -> None:
        self._names = entry_names
        self._advice = advice
        self._inputs = inputs
        self.largest_return = 0.0
        """Largest absolute discounted return-to-go of all training episodes so far."""
        self._episodes = 0
        self._said: set[str] = set()
        self._growth = {key: _Growth() for key in ("obs", "state")}

    def look_at_episodes(self, batch: EpisodeBatch, returns_to_go: Tensor) -> Iterator[Alarm]:
        """New training episodes, in main memory, and their discounted returns-to-go as the learner counts rewards."""
        self._episodes += batch.shape[0]
        if returns_to_go.numel():
            self.largest_return = max(self.largest_return, float(returns_to_go.abs().max()))
        for key in ("obs", "state") if self._inputs else ():
            if not batch[key].numel():
                continue
            numbers = batch[key].numpy()  # whose minimum is four times as fast as torch's, of rows that have gaps
            size = max(-float(numbers.min()), float(numbers.max()))
            if size > LARGE and self._first_time(f"{key} size"):
                self._said.add(f"{key} growth")  # the same entry, in all likelihood
                yield self._too_large(key, batch[key])
            elif size > GROWN and f"{key} growth" not in self._said:
                worst = self._growth[key].add(batch[key], batch["filled"].squeeze(-1))
                if worst is not None and self._first_time(f"{key} growth"):
                    yield self._growing(key, batch[key].shape[2:], *worst)

    def look_at_values(self, metrics: Mapping[str, Any]) -> Iterator[Alarm]:
        """What a learner says of its last update, once ``MANY`` episodes have shown what returns can be."""
        values = {name: float(metrics[name]) for name in VALUES if name in metrics}
        if not values or self._episodes < MANY:
            return
        name = max(values, key=lambda of: abs(values[of]))
        if abs(values[name]) > MARGIN * self.largest_return + SLACK and self._first_time("values"):
            yield Alarm(
                "alarm_q_range",
                abs(values[name]) / max(self.largest_return, SLACK),
                f"{name} is {values[name]:.4g}, but no training episode has had a discounted return beyond "
                f"{self.largest_return:.4g}: the networks predict impossible returns. Look for inputs that are too "
                "large or grow (normalise_inputs=True), or lower lr.",
            )

    def _first_time(self, kind: str) -> bool:
        if kind in self._said:
            return False
        self._said.add(kind)
        return True

    def _too_large(self, key: str, values: Tensor) -> Alarm:
        sizes = values.abs().flatten(0, 1)  # [B * (T+1), ...]
        per_entry, when = sizes.max(0)
        worst = int(per_entry.argmax())
        row = int(when.flatten()[worst])
        step = row % values.shape[1]
        value = float(values.flatten(0, 1)[row].flatten()[worst])
        others = int((per_entry > LARGE).sum()) - 1
        also = f", and {others} more {'entry is' if others == 1 else 'entries are'} above {LARGE:g}" if others else ""
        return Alarm(
            "alarm_input_size",
            abs(value),
            f"{self._entry(key, values.shape[2:], worst)} is {value:.4g} at step {step}{also}; networks read numbers "
            f"of about 1 best. {self._advice}",
        )

    def _growing(self, key: str, shape: torch.Size, worst: int, quarters: list[float]) -> Alarm:
        sizes = ", ".join(f"{size:.3g}" for size in quarters)
        return Alarm(
            "alarm_input_growth",
            quarters[-1] / max(quarters[0], 1e-6),
            f"{self._entry(key, shape, worst)} grows for as long as an episode lasts (mean size in its quarters: "
            f"{sizes}): fresh networks then value long episodes by their length. {self._advice}",
        )

    def _entry(self, key: str, shape: torch.Size, flat: int) -> str:
        """The observation's entry 3 (health) of agent 1."""
        index = flat % shape[-1]
        names = self._names.get(key, ())
        name = f" ({names[index]})" if index < len(names) else ""
        if key == "state":
            return f"The state's entry {index}{name}"
        return f"Entry {index}{name} of the observation of agent {flat // shape[-1]}"

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        growth = {key: (seen.episodes, seen.grown) for key, seen in self._growth.items()}
        return {
            "largest_return": self.largest_return,
            "episodes": self._episodes,
            "said": sorted(self._said),
            "growth": growth,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        self.largest_return, self._episodes = state["largest_return"], state["episodes"]
        self._said = set(state["said"])
        self._growth = {key: _Growth(*seen) for key, seen in state["growth"].items()}


@dataclass
class _Growth:
    """How many long episodes there were, and along how many of them each entry grew (int64 ``[E]``)."""

    episodes: int = 0
    grown: Tensor | None = None

    def add(self, values: Tensor, filled: Tensor) -> tuple[int, list[float]] | None:
        """Count these episodes.

        Args:
            values: ``[B, T+1, ...]``.
            filled: which rows are real, bool ``[B, T+1]``.

        Returns:
            The entry that keeps growing, by its place in the flattened ones, and its mean size in each quarter of these
            episodes; the largest of several, None where there is none.
        """
        long = filled.sum(1) > LONG
        quarters = quarter_means(values[long].flatten(2), filled[long])  # [L, 4, E]
        first, last = quarters[:, 0], quarters[:, 3]
        grown = (quarters.diff(dim=1) > 0).all(1) & (last > GROWN) & (last > GROWTH * first)  # [L, E]
        self.episodes += len(quarters)
        self.grown = grown.sum(0) if self.grown is None else self.grown + grown.sum(0)
        keeps = (self.grown >= MOST * self.episodes) & grown.any(0)
        if self.episodes < MANY or not keeps.any():
            return None
        means = quarters.mean(0)  # [4, E]
        worst = int(torch.where(keeps, means[3], 0).argmax())
        return worst, means[:, worst].tolist()


def quarter_means(values: Tensor, filled: Tensor) -> Tensor:
    """Mean absolute value of every entry in each quarter of every episode.

    Shapes: values ``[B, T+1, E]``, filled (which rows are real) bool ``[B, T+1]`` -> ``[B, 4, E]``.
    """
    rows = filled.sum(1, keepdim=True)  # [B, 1]
    quarter = 4 * torch.arange(filled.shape[1], device=filled.device) // rows  # [B, T+1]
    member = torch.nn.functional.one_hot(quarter.clamp(max=4), 5)[..., :4] * filled.unsqueeze(-1)
    weight = member / member.sum(1, keepdim=True)  # [B, T+1, 4]
    return weight.transpose(1, 2) @ values.abs()
