"""Exceptions whose message is meant for the person at the keyboard, and the one that costs only an episode."""

from typing import Any

LONGEST_SHOWN = 100
"""Characters of a value that a sentence shows."""


class UserError(Exception):
    """Something the user can fix: a misspelt setting, a missing package, an unwritable folder.

    The message is one clear sentence that says what to do. The command line prints it
    without a traceback and exits with status 1.
    """


class NonFiniteError(UserError):
    """A number that a run lives on (observation, state, reward, loss, gradient) is NaN or infinite.

    The run stops at the first one: whatever is learnt from it would be NaN as well.
    """


class EnvironmentCrashedError(Exception):
    """A game ended or stopped answering in the middle of things. Another one can be started in its place."""


def shown(value: Any) -> str:
    """A value as a sentence shows it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
