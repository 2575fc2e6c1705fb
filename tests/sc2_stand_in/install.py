"""Lays out a folder that pysc2 takes for an installed StarCraft II, with the stand-in as its binary.

usage: python install.py FOLDER      then: export SC2PATH=FOLDER

The interpreter that plays must have s2clientprotocol and websockets (15 or newer).
"""

import runpy
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def install(folder: Path, python: str = sys.executable) -> Path:
    """Lays out the folder and returns it, for SC2PATH.

    Args:
        python: the interpreter that the stand-in runs in
    """
    root = Path(folder).resolve()
    binary = root / "Versions" / "Base75689" / "SC2_x64"
    binary.parent.mkdir(parents=True, exist_ok=True)
    binary.write_text(f'#!/bin/sh\nexec {shlex.join([python, str(HERE / "server.py")])} "$@"\n')
    binary.chmod(0o755)
    maps = root / "Maps" / "SMAC_Maps"
    maps.mkdir(parents=True, exist_ok=True)
    for name in runpy.run_path(str(HERE / "battle.py"))["MAPS"]:
        (maps / f"{name}.SC2Map").write_bytes(b"stand-in map\n")
    return root


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"export SC2PATH={install(Path(sys.argv[1]))}")
