"""``sync RUN_DIR ...``: its help and its words; what it does is in ``recording/sync.py``."""

from pathlib import Path

from shoal.command_line.imports import late_imports
from shoal.recording.mongo_address import MONGO_VARIABLE
from shoal.utils.errors import UserError
from shoal.utils.lean_imports import import_sacred
from shoal.utils.program import typed

HELP = f"""Brings recorded runs to MongoDB: those made while it was away, cut short by its end, or recorded elsewhere.

  {{sync}} RUN_DIR ... [-m HOST:PORT:DB]

  RUN_DIR           a recorded run (results/sacred/7), or a folder of them (results/sacred)
  -m HOST:PORT:DB   the database; else the environment variable {MONGO_VARIABLE} (an address with a password belongs
                    there), else the run's own mongo_url

What the database has already is left alone: a run that was partly sent is completed, one that is whole stays as it is.
"""


def main(args: list[str]) -> int:
    """Run the command. Exit status 0 if every run is in the database now, else 1.

    Raises:
        UserError: the command line cannot be understood, or a database cannot be used.
    """
    if {"-h", "--help"} & set(args):
        print(HELP.format(sync=typed("sync")))
        return 0
    folders, target = _parse(args)
    with late_imports():
        import_sacred()
        from shoal.recording.sync import bring
    return bring(folders, target)


def _parse(args: list[str]) -> tuple[list[Path], str | None]:
    folders, target, rest = [], None, list(args)
    while rest:
        word = rest.pop(0)
        if word in ("-m", "--mongo_db"):
            if not rest:
                raise UserError(f"{word} needs an address: {word} HOST:PORT:DB.")
            target = rest.pop(0)
        elif word.startswith(("-m=", "--mongo_db=")):
            target = word.partition("=")[2]
        elif word.startswith("-"):
            raise UserError(f"sync has no option {word}: see {typed('sync')} --help.")
        else:
            folders.append(Path(word))
    if not folders:
        raise UserError(f"sync needs recorded runs: {typed('sync')} results/sacred/7 (see sync --help).")
    return folders, target
