"""The examples run, each in a process and a folder of its own, with a tiny configuration."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.launch import MAIN, curves, environment, read_json

EXAMPLES = MAIN.parents[1] / "examples"
TINY = {
    "train": {"t_max": 300, "batch_size": 2, "buffer_size": 8, "batch_size_run": 2, "test_nepisode": 2},
    "own_mixer": {"t_max": 200, "batch_size": 8, "buffer_size": 64, "test_nepisode": 8, "learner_log_interval": 50},
    "own_environment": {"t_max": 200, "batch_size": 4, "buffer_size": 16, "batch_size_run": 2, "test_nepisode": 2},
}
SETTINGS = {
    "train": {"mixer": "qmix", "env": "smax"},
    "own_mixer": {"mixer": "own_mixer:WeightedSum", "weight_hidden_dim": 16},
    "own_environment": {"env": "own_environment:Meeting", "mixer": "vdn"},
}


@pytest.mark.parametrize("name", sorted(TINY))
def test_example_runs(tmp_path: Path, name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 64
    # As a script of its own, whose worker processes import it.
    (tmp_path / "tiny.py").write_text(
        f"import {name}\nif __name__ == '__main__':\n    print({name}.main(**{json.dumps(TINY[name])}))\n"
    )
    paths = f"{EXAMPLES}:{environment()['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "tiny.py"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=paths),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    record = tmp_path / "results" / "sacred" / "1"
    assert read_json(record / "run.json")["status"] == "COMPLETED"
    config = read_json(record / "config.json")
    assert {key: config[key] for key in SETTINGS[name]} == SETTINGS[name]
    assert curves(record)["test_return_mean"]


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TINY)
