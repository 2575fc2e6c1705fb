"""By which name the user started Shoal, so that messages say what to type in that user's words."""

_SCRIPTS = {
    "train": "python src/main.py",
    "sweep": "python src/sweep.py",
    "compare": "python -m shoal.analysis",
    "reproduce": "python -m shoal.reproduce",
}
"""The entry points besides the ``shoal`` command. What has none of its own stands behind src/main.py."""
_started_as = ""


def started_as(name: str) -> None:
    """Say that the user typed ``name`` (``shoal``, ``python -m shoal``); empty for one of the scripts."""
    global _started_as
    _started_as = name


def typed(command: str) -> str:
    """What this user types for a command of ``shoal``: ``shoal sync``, or ``python src/main.py sync``."""
    if _started_as:
        return f"{_started_as} {command}"
    return _SCRIPTS.get(command, f"{_SCRIPTS['train']} {command}")
