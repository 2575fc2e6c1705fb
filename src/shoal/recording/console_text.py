"""How the console writes a run's numbers: tests, speed, durations, and a curve of one line."""

import math
from collections.abc import Mapping, Sequence

from shoal.recording import metric_names


def test_text(metrics: Mapping[str, float]) -> str:
    """A test's means over episodes: the return first, then the win rate, then the rest, episode length last.

    Shares of kinds of action are for the record alone.
    """
    shown = sorted(filter(_is_shown, metrics), key=_place)
    return ", ".join(f"{_short(name)} {metric_names.shown(name, metrics[name])}" for name in shown)


def _is_shown(metric: str) -> bool:
    is_mean = metric.endswith("_mean") or metric_names.is_rate(metric)
    return is_mean and not metric_names.key_of(metric).startswith(metric_names.ACTION_SHARE)


def _place(metric: str) -> int:
    order = (metric_names.RETURN, *metric_names.WIN_RATES)
    key = _short(metric)  # behind these come those of other executions, then the length
    return order.index(key) if key in order else len(order) + (key == metric_names.EP_LENGTH)


def _short(metric: str) -> str:
    return metric.removeprefix(metric_names.TEST).removesuffix("_mean")


def speed(steps_per_second: float | None) -> str:
    """Environment steps per second, of ten or more without digits behind the point."""
    if steps_per_second is None:
        return "- steps/s"
    return f"{steps_per_second:,.0f} steps/s" if steps_per_second >= 10 else f"{steps_per_second:.1f} steps/s"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, with days where there are any; dashes for None."""
    if seconds is None:
        return "-:--:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}d {hour:02}:{minute:02}:{second:02}" if days else f"{hour}:{minute:02}:{second:02}"


def sparkline(values: Sequence[float]) -> str:
    """Eight heights of block, one per value; a value that is not finite leaves a gap.

    The scale is [0, 1] when all values lie in it (a win rate), else from the least to the greatest.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, high = min(finite), max(finite)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    blocks = "▁▂▃▄▅▆▇█"
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((v - low) * scale)] if math.isfinite(v) else " " for v in values)
