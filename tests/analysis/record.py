"""Writing records to draw from."""

import json

PNG = b"\x89PNG\r\n"


def record(folder, metrics, **config):
    """A run as sacred's file observer leaves it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": "s2q", "env": "matrix_game", **config}))
    series = {
        name: {"steps": steps, "values": values, "timestamps": ["now"] * len(steps)}
        for name, (steps, values) in metrics.items()
    }
    (folder / "metrics.json").write_text(json.dumps(series))
    return folder
