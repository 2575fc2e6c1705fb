"""The process of one run of a sweep: what `python src/main.py` would do, or continue with, in the run's folder.

    python -m shoal.sweeps.child FOLDER CONFIG ENV_CONFIG PARENT_PID

What has to be done is decided here, on the machine that does it, after an earlier process of the run has ended.
"""

import shlex
import signal
import sys
from pathlib import Path

import yaml

from shoal.declare import Role, roles_of
from shoal.sweeps.folder import LOCK_FILE, RunFolder
from shoal.utils.lock import held
from shoal.utils.signals import STOP_SIGNALS, end_with

RESUME_FILE = "resume.yaml"


def main(argv: list[str]) -> int:
    """Start the run, or continue it. Returns the command line's exit status."""
    path, config, env_config, parent = argv
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # Ray's processes block SIGINT
    end_with(int(parent))
    folder = RunFolder(Path(path))
    # A machine that was thought lost may still be at work on it.
    with held(folder.path / LOCK_FILE, wait=True):
        from shoal.command_line.main import main as run
        from shoal.experiment import ExperimentSettings

        models = folder.to_go_on_with()
        if models is None:
            arguments = [f"--config={config}", f"--env-config={env_config}", "with", str(folder.settings_file)]
        else:
            resume = folder.path / RESUME_FILE
            settings = folder.settings()
            roles = roles_of(ExperimentSettings)
            storage = {key: value for key, value in settings.items() if roles.get(key) is Role.RECORD}
            resume.write_text(yaml.safe_dump({"resume": str(models)} | storage))
            arguments = ["with", str(resume)]
        print(f"python src/main.py {shlex.join(arguments)}", flush=True)
        return run(["src/main.py", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
