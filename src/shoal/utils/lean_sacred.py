"""sacred without pandas, which it would only use to record what Shoal never records, at half a second a start."""

import sys


def import_sacred() -> None:
    """Import sacred for the first time in this process. Where sacred or pandas is imported already, nothing happens.

    sacred looks whether pandas can be imported and, if so, teaches its serialiser about data frames.
    """
    if "sacred" in sys.modules or "pandas" in sys.modules:
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]  # importing it is an ImportError meanwhile
    try:
        import sacred  # noqa: F401
    finally:
        del sys.modules["pandas"]
