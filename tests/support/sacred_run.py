"""Runs of sacred's own, recorded by our observers."""

import json
from datetime import datetime
from pathlib import Path

from sacred import Experiment

from shoal.recording.captured_output import bounded_output

MOMENT = datetime(2024, 1, 2)
CAPTURED = {"--capture": "sys"}  # pytest leaves sacred's "fd" nothing to capture
START = {
    "ex_info": {"base_dir": ".", "sources": []},
    "command": "main",
    "host_info": {},
    "start_time": MOMENT,
    "config": {},
    "meta_info": {},
}


def experiment(main, *observers):
    ex = Experiment("test", save_git_info=False)
    ex.captured_out_filter = bounded_output
    ex.observers += observers
    ex.main(main)
    return ex


def measured(name="loss", values=(1.0,), steps=(1,)):
    return {name: {"name": name, "values": list(values), "steps": list(steps), "timestamps": [MOMENT] * len(steps)}}


def read(folder, name):
    return json.loads((Path(folder) / name).read_text())
