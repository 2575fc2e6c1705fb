import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.utils.errors import UserError


class FakeRun:
    def __init__(self):
        self.logged = []

    def log_scalar(self, name, value, step):
        self.logged.append((name, value, step))


@pytest.fixture
def console():
    console = Console(t_max=100, live=False)
    yield console
    console.close()


def tensorboard_scalars(folder: Path) -> list[tuple[int, str, float]]:
    """Reads the record format by hand: length (8 bytes), checksum (4), data, checksum (4)."""
    scalars = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return scalars


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        np.float32(1.5),
        np.array(1.5),
        torch.tensor(1.5, requires_grad=True),
        torch.tensor(1.5, dtype=torch.bfloat16),
    ],
)
def test_every_scalar_reaches_sacred_as_a_plain_float(console, value):
    run = FakeRun()
    logger = Logger(run, console)
    logger.log({"grad_norm": value}, t_env=np.int64(7))
    assert run.logged == [("grad_norm", 1.5, 7)]
    assert type(run.logged[0][1]) is float
    assert type(run.logged[0][2]) is int
    assert logger.latest == {"grad_norm": 1.5}


def test_bools_and_integers_become_floats(console):
    logger = Logger(None, console)
    logger.log({"won": True, "episodes": 3}, 0)
    assert logger.latest == {"won": 1.0, "episodes": 3.0}


@pytest.mark.parametrize("value", [torch.zeros(2), torch.zeros(1), np.zeros((1, 1)), "1.5", None, [1.0], 1j])
def test_anything_else_is_refused_by_name_and_nothing_is_recorded(console, value):
    run = FakeRun()
    with pytest.raises(TypeError, match="'td_error'"):
        Logger(run, console).log({"loss": 1.0, "td_error": value}, 3)
    assert run.logged == []


def test_nan_and_infinity_pass(console, tmp_path):
    run = FakeRun()
    logger = Logger(run, console, tmp_path)
    logger.log({"loss": math.nan, "q": math.inf}, 3)
    logger.close()
    assert math.isnan(run.logged[0][1])
    assert run.logged[1] == ("q", math.inf, 3)
    assert math.isnan(tensorboard_scalars(tmp_path)[0][2])


def test_tensorboard_has_every_value_before_close(console, tmp_path):
    logger = Logger(None, console, tmp_path / "made" / "here")
    logger.log({"test_return_mean": 2.5, "loss_td": 0.5}, 10_000_000_000)
    assert tensorboard_scalars(tmp_path / "made" / "here") == [
        (10_000_000_000, "test_return_mean", 2.5),
        (10_000_000_000, "loss_td", 0.5),
    ]
    logger.close()


def test_a_folder_that_cannot_be_written_is_said_at_once(console, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose a folder"):
        Logger(None, console, tmp_path / "file" / "tb")


def test_a_missing_tensorboardx_is_said_at_once(console, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(UserError, match="needs the Python package 'tensorboardX'"):
        Logger(None, console, tmp_path)


def test_a_recorder_that_fails_is_dropped_with_one_warning(console, tmp_path, monkeypatch, capsys):
    run = FakeRun()
    logger = Logger(run, console, tmp_path)

    def full(self, event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventsWriter, "write_event", full)
    for t_env in range(30):  # tensorboardX's own queue holds ten and would then wait for ever
        logger.log({"loss": 1.0}, t_env)
    logger.close()
    assert len(run.logged) == 30
    output = capsys.readouterr().out
    assert output.count("TensorBoard failed at t_env 0") == 1
    assert "No space left" in output


def test_latest_is_the_callers_to_keep(console):
    logger = Logger(None, console)
    logger.log({"a": 1}, 0)
    logger.latest["a"] = 5.0
    logger.log({"b": 2}, 1)
    assert json.dumps(logger.latest) == '{"a": 1.0, "b": 2.0}'


def test_info_and_warning_are_whole_lines(console, capsys):
    logger = Logger(None, console)
    logger.info("saved")
    logger.warning("crashed")
    assert capsys.readouterr().out == "saved\nwarning: crashed\n"
