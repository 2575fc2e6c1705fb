"""How a command ends: exit statuses, and one sentence for what the user can fix."""

import errno
import sys
from collections.abc import Callable

from shoal.utils.errors import UserError, shown
from shoal.utils.program import typed
from shoal.utils.signals import Interrupted
from shoal.utils.streams import lasting_output

OF_THE_SYSTEM = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.EMFILE),
    *(errno.ENFILE, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EFBIG, errno.EIO),
}
"""Refusals of the operating system that the user can fix."""
_ANOTHER_PLACE = "Choose another place, or see to it that this one can be written."
_REMEDY = {
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or lower batch_size_run.",
    errno.ENFILE: "The whole machine has too many files open: lower batch_size_run, or run fewer things.",
    errno.ENOSPC: "Free some space (files and inodes: df -h, df -i), or choose another place.",
    errno.EDQUOT: "Free some space, or choose another place.",
    errno.ENAMETOOLONG: "Choose shorter names.",
}


def exit_status(command: Callable[[], int], stopped: str = "stopped") -> int:
    """Run a command to its exit status: its own, 1 an error the user can fix, 128 + n stopped by signal n.

    Meanwhile a terminal that goes away costs only what it would have shown. ``stopped`` is what to say of a Ctrl-C.
    """
    with lasting_output():
        return _ended(command, stopped)


def _ended(command: Callable[[], int], stopped: str) -> int:
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as interrupt:
        saved = interrupt.checkpoint
        how = f"resume with: {typed('train')} with resume={saved.parent}" if saved else "no checkpoint was saved"
        print(f"stopped by {interrupt}; {how}", file=sys.stderr)
        return 128 + interrupt.signum
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in OF_THE_SYSTEM:
            raise
        where = f": {shown(error.filename)}" if error.filename else ""
        print(f"error: {error.strerror}{where}. {_REMEDY.get(error.errno or 0, _ANOTHER_PLACE)}", file=sys.stderr)
        return 1
