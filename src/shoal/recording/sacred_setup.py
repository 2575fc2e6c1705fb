"""Settings of sacred that every run of Shoal needs."""

import os
import re
import sys

import sacred
import sacred.commands
import sacred.run

from shoal.utils.seeding import seed_everything


def prepare_sacred() -> None:
    """Settings of sacred for this process."""
    sacred.SETTINGS.CAPTURE_MODE = "sys"  # "fd" would take the terminal away from the live display
    # sacred's own takes no seed above 2**32
    sacred.run.set_global_seed = seed_everything  # type: ignore[attr-defined]
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        for name in [name for name in vars(sacred.commands) if name.startswith("COLOR_") or name in ("ENDC", "LEGEND")]:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", getattr(sacred.commands, name))
            setattr(sacred.commands, name, plain)
