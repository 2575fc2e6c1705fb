"""Who records a run, where its record is, and what it lacks at the end."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sacred.observers import FileStorageObserver, RunObserver

from shoal.recording.file_record import FileRecord, file_observer
from shoal.recording.mongo_address import MONGO_VARIABLE, refuse_secret
from shoal.recording.mongo_observer import MongoMirror, mongo_observer
from shoal.utils.program import typed


def run_dir_of(observers: Sequence[RunObserver]) -> Path | None:
    """The folder of the run's file record, once there is one."""
    for observer in observers:
        if isinstance(observer, FileStorageObserver) and observer.dir is not None:
            return Path(observer.dir)
    return None


def standard_observers(folder: Path, mongo: str | None) -> list[RunObserver]:
    """Who records the run: files, and MongoDB where an address is given or in the environment.

    Args:
        folder: of the records.
        mongo: the database's address, without a password; None for that of the environment, if there is one.

    Raises:
        UserError: one of them cannot record runs.
    """
    observers: list[RunObserver] = [file_observer(folder)]
    if mongo:
        refuse_secret(mongo)
    target = mongo or os.environ.get(MONGO_VARIABLE)
    if target:
        observers.append(mongo_observer(target, warn=lambda text: print(f"warning: {text}", file=sys.stderr)))
    return observers


def say_what_records_lack(observers: Sequence[RunObserver]) -> bool:
    """Of a run that has ended: say whether MongoDB was away, and what the file record could not take.

    Returns:
        Whether the file record lacks something.
    """
    folder = run_dir_of(observers)
    if folder is not None and any(isinstance(one, MongoMirror) and not one.up_to_date for one in observers):
        print(
            "warning: MongoDB does not have all of this run, the file record does; when the server is there: "
            f"{typed('sync')} {folder}",
            file=sys.stderr,
        )
    for one in observers:
        if isinstance(one, FileRecord) and one.lacks:
            print(
                f"error: the record in {one.dir} lacks {one.lacks}: free some space; the run itself has ended as said "
                "above.",
                file=sys.stderr,
            )
            return True
    return False
