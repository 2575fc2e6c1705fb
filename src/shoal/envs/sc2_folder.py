"""Where StarCraft II is looked for."""

import os
from pathlib import Path


def game_folder() -> Path:
    """``SC2PATH``, or StarCraftII in the home folder."""
    return Path(os.environ.get("SC2PATH") or "~/StarCraftII").expanduser()
