"""Writing records to draw from."""

import json
from datetime import datetime, timedelta

PNG = b"\x89PNG\r\n"
START = datetime(2026, 1, 1, 12, 0, 0)


def record(folder, metrics, status="", model_dir="", started=START, steps_per_second=10.0, **config):
    """A run as sacred's file observer leaves it; with a ``status``, run.json too.

    Each value is recorded when the run, at its speed, has come to that step from the first one that it recorded.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": "s2q", "env": "matrix_game", **config}))
    first = min((steps[0] for steps, _ in metrics.values() if steps), default=0)
    last = max((steps[-1] for steps, _ in metrics.values() if steps), default=0)

    def moment(step):
        return (started + timedelta(seconds=(step - first) / steps_per_second)).isoformat()

    series = {
        name: {"steps": steps, "values": values, "timestamps": [moment(step) for step in steps]}
        for name, (steps, values) in metrics.items()
    }
    (folder / "metrics.json").write_text(json.dumps(series))
    if status:
        entry = {"status": status, "start_time": started.isoformat(), "heartbeat": moment(last), "host": {}}
        entry |= {"stop_time": moment(last)} if status != "RUNNING" else {}
        entry |= {"fail_trace": ["Traceback\n", "ValueError: too bad\n"]} if status == "FAILED" else {}
        (folder / "run.json").write_text(json.dumps(entry))
    if model_dir:
        (folder / "info.json").write_text(json.dumps({"model_dir": model_dir}))
    return folder
