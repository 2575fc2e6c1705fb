"""An environment whose processes are hard to get rid of. Each leaves a file named after its id in ``folder``."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from support.team_env import TeamEnv, TeamEnvSettings

GAME = "import os, sys, time; open(os.path.join(sys.argv[1], str(os.getpid())), 'w').close(); time.sleep(600)"


@dataclass(frozen=True)
class HidingEnvSettings(TeamEnvSettings):
    folder: Annotated[str, "where processes leave their ids"] = ""
    how: Annotated[Literal["stuck", "deaf", "session", "fork", "orphan"], "what makes them hard to get rid of"] = "fork"


class HidingEnv(TeamEnv):
    """At the start of its first episode it is stuck in C code or deaf to SIGTERM and stays so, or starts a process in a
    session of its own, forks, or starts one whose parent has ended.
    """

    Settings = HidingEnvSettings

    def reset(self, *, seed=None, options=None):
        settings = self.settings
        (Path(settings.folder) / str(os.getpid())).touch()
        game = [sys.executable, "-c", GAME, settings.folder]
        match settings.how:
            case "stuck":
                sum(range(10**14))
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            case "session":
                subprocess.Popen(game, start_new_session=True)
            case "fork":
                if os.fork() == 0:
                    os.setsid()
                    (Path(settings.folder) / str(os.getpid())).touch()
                    time.sleep(600)
                    os._exit(0)
            case "orphan":
                start = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
                subprocess.run([sys.executable, "-c", start, *game], check=True)
        return super().reset(seed=seed, options=options)


PROCESSES = {"stuck": 1, "deaf": 1, "session": 2, "fork": 2, "orphan": 2}
"""How many processes a copy consists of."""
