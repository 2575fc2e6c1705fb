"""The names of metrics, in one place: what Shoal records, what judges a run, and how a value is shown.

An episode brings numbers under keys: ``return``, ``ep_length``, ``action_<class>`` and those of the environment's last
info. A metric is their mean over episodes: ``<key>_mean``, or the key itself where it ends in ``_rate``, behind
``test_`` in tests and ``absolute_test_`` in the test of the best policy, then behind what names an execution other than
the deployed one (``EXECUTIONS``).
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

TEST, ABSOLUTE_TEST = "test_", "absolute_test_"
EXECUTIONS = ("teacher_",)
"""What stands before the metrics of tests that play another execution than the deployed one (CADP's model C)."""

RETURN, EP_LENGTH, ACTION_SHARE = "return", "ep_length", "action_"
"""Keys of an episode that are Shoal's own. Those of ``ACTION_SHARE`` continue with the name of a kind of action."""

WIN_RATES = {
    "battle_won": "win rate",
    "win_rate": "win rate",
    "won": "win rate",
    "success_rate": "success rate",
    "success": "success rate",
    "solved": "success rate",
}
"""Keys of the environment that say whether an episode was won (0 to 1), the one that counts most first, and what
figures call them."""

TEST_RETURN = f"{TEST}{RETURN}_mean"

OWN = (
    # Episodes, in training and in tests.
    r"((test_|absolute_test_)(teacher_)?)?(return_(mean|std)|ep_length_mean)",
    r"((test_|absolute_test_)(teacher_)?)?action_.+_mean",
    r"absolute_test_t_env",
    # The run.
    r"episode",
    r"env_restarts",
    r"episodes_dropped",
    r"alarm_(q_range|input_size|input_growth)",
    # Exploration.
    r"epsilon",
    r"act_noise",
    # Learners.
    r"loss_(td|central|kl|state|pruning)",
    r"grad_norm",
    r"lr",
    r"td_error_abs",
    r"target_(mean|max_abs)",
    r"(central_)?q_taken_mean",
    r"w_to_use",
    r"v_mean",
    r"adv_taken_mean",
    # S2Q.
    r"(loss_td|w|p_hat|sub_index|central_q_candidate)_\d+",
    r"candidate_.+_\d+",
    r"candidates_distinct",
    r"identified",
    r"sub_index_entropy",
    # CADP.
    r"pruning_(loss|weight)",
    r"confidence_(self|\d+_\d+)",
    r"teacher_action_agreement",
    # LAN's codebooks.
    r"(respawn|clash|starve|frozen)_frac",
    r"usage_entropy",
    r"nearest_pair",
    r"zeta",
    r"codebook_move",
)
"""Patterns of all names that Shoal itself records."""
_OWN = re.compile("|".join(OWN))
_PARTS = re.compile(rf"({ABSOLUTE_TEST}|{TEST}|)({'|'.join(EXECUTIONS)}|)(.*?)(?:_mean)?", re.DOTALL)


def metric_of(key: str, prefix: str = "") -> str:
    """The metric that holds the mean of an episode's ``key``: ``return`` -> ``return_mean``, ``win_rate`` as it is."""
    return f"{prefix}{key}" if key.endswith("_rate") else f"{prefix}{key}_mean"


def absolute(metric: str) -> str:
    """The same of the test of the best policy: ``test_return_mean`` -> ``absolute_test_return_mean``."""
    return f"absolute_{metric}"


def key_of(metric: str) -> str:
    """The key of which a metric is the mean: ``test_return_mean`` -> ``return``; ``loss_td`` as it is."""
    return _parts(metric)[2]


def _parts(metric: str) -> tuple[str, str, str]:
    """Prefix of the test, prefix of the execution, key."""
    match = _PARTS.fullmatch(metric)
    assert match is not None
    return match[1], match[2], match[3]


# Shoal's own names.


def is_own(metric: str) -> bool:
    """Whether Shoal itself records a metric of this name."""
    return _OWN.fullmatch(metric) is not None


def is_episode_key(key: str) -> bool:
    """Whether Shoal itself gives every episode (or, of kinds of action, those with a choice) a number of this key."""
    return key in (RETURN, EP_LENGTH) or key.startswith(ACTION_SHARE)


def environment_key(key: str) -> str:
    """The key under which a number of the environment's info is recorded: ``env_<key>`` where Shoal has that name.

    No two keys become one: ``env_return`` becomes ``env_env_return``.
    """
    bare = re.sub(r"^(env_)+", "", key)
    own = is_episode_key(bare) or is_own(metric_of(bare)) or bare.startswith((TEST, ABSOLUTE_TEST, *EXECUTIONS))
    return f"env_{key}" if own else key


# What judges a run.


def is_rate(metric: str) -> bool:
    """Whether a metric is meant as a share: a win rate, or whatever an environment calls ``..._rate``."""
    key = key_of(metric)
    return key in WIN_RATES or key.endswith("_rate")


def is_share(metric: str, values: Iterable[float]) -> bool:
    """Whether a rate's values are shares indeed: between 0 and 1 (NaN says nothing)."""
    return is_rate(metric) and not any(value < 0 or value > 1 for value in values)


def is_win_rate(metric: str) -> bool:
    """Whether a metric is the share of tests that were won."""
    test, execution, key = _parts(metric)
    return bool(test) and key in WIN_RATES and metric == metric_of(key, test + execution)


def return_beside(metric: str) -> str:
    """The mean return of the episodes that a metric of tests is about."""
    test, execution, _ = _parts(metric)
    return metric_of(RETURN, test + execution)


def win_rate(recorded: Collection[str], prefix: str = TEST) -> str | None:
    """The win rate among the metrics that were recorded, of the tests with this prefix; None without one."""
    return next((name for key in WIN_RATES if (name := metric_of(key, prefix)) in recorded), None)


def judge(recorded: Collection[str], prefix: str = TEST) -> str:
    """The metric that judges the tests with this prefix: the win rate where there is one, else the return."""
    return win_rate(recorded, prefix) or metric_of(RETURN, prefix)


def score(metrics: Mapping[str, float], prefix: str = TEST) -> list[float]:
    """What makes one test better than another: the win rate (0 where there is none), between equal ones the return.

    Always these two, so that a test before the first win compares with one after it.
    """
    won = win_rate(metrics, prefix)
    return [metrics[won] if won else 0.0, metrics[metric_of(RETURN, prefix)]]


def is_better(one: Sequence[float], best: Sequence[float]) -> bool:
    """Whether a test's score beats the best so far (empty: there is none). One that is not finite beats nothing."""
    return all(map(math.isfinite, one)) and (not best or list(one) > list(best))


def stored_score(stored: Sequence[float]) -> list[float]:
    """A score from a checkpoint: those of older versions leave out the win rate where there was none."""
    if not stored or not all(map(math.isfinite, stored)):
        return []
    return [stored[0] if len(stored) > 1 else 0.0, stored[-1]]


# How it is shown.


def label(metric: str) -> str:
    """What figures call a metric: ``test win rate``, ``absolute test return``, ``loss td``."""
    test, execution, key = _parts(metric)
    return f"{test}{execution}{WIN_RATES.get(key, key)}".replace("_", " ")


def shown(metric: str, value: float) -> str:
    """A value as text: rates in percent."""
    if is_rate(metric) and 0 <= value <= 1:
        return f"{100 * value:.1f}%"
    if key_of(metric) == EP_LENGTH:
        return f"{value:.1f}"
    return number(value)


def number(value: float) -> str:
    """A number with two digits behind the point, or three in all where it is tiny or huge."""
    if value == 0 or not math.isfinite(value) or 0.1 <= abs(value) < 100_000:
        return f"{value:.2f}"
    return f"{value:.3g}"
