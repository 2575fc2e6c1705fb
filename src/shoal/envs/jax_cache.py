"""JAX's compiled programs, kept between runs in the user's cache folder, so that only the first run waits for them."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import tempfile
import warnings
from pathlib import Path

VARIABLE = "SHOAL_JAX_CACHE"
"""The environment variable that names another folder, or says ``off``."""


@functools.cache
def keep_compiled_programs() -> Path | None:
    """Have JAX look for compiled programs in the cache folder and keep new ones there, once a process.

    Where the folder cannot be written, or an entry cannot be read, programs are compiled as if there were no cache (JAX
    leaves a broken entry where it is). One that the user has chosen for JAX (``JAX_COMPILATION_CACHE_DIR``) stays.

    Returns:
        the folder, or None where Shoal keeps nothing.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"]:
        return None
    folder = _folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    return folder


def _folder() -> Path | None:
    """Where the programs of this machine's kind of processor are kept."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() in ("off", "0", "no", "false"):
        return None
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(chosen).expanduser() if chosen else Path(cache) / "shoal" / "jax"
    except RuntimeError:  # no home folder
        return None
    return folder.absolute() / _processor()


def _processor() -> str:
    """A name for the kind of processor: a home folder may be shared by machines that cannot run each other's code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    told = sorted({line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))} or lines)
    return f"{platform.machine()}-{hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:12]}"
