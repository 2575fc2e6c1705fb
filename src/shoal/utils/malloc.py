"""Keeping freed memory for the next training step."""

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed blocks instead of handing them back to the system. Returns whether it did.

    A training step on a CPU allocates and frees the same few hundred megabytes again and again; by default glibc maps
    each large block anew, and the kernel clears it page by page: a third of the step (``docs/performance.md``).
    The process keeps its peak memory until it ends. Only glibc has the switch; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
