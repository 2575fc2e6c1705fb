"""Output that outlives its terminal."""

import io
import os
import sys

import pytest

from shoal.utils.streams import lasting_output


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text):
        raise OSError(5, "Input/output error")

    def flush(self):
        raise OSError(5, "Input/output error")


def test_what_a_closed_terminal_would_have_shown_is_lost_and_nothing_else(monkeypatch):
    gone = Gone()
    monkeypatch.setattr(sys, "stdout", gone)
    with lasting_output():
        print("text", flush=True)
        sys.stdout.writelines(["one\n", "two\n"])
    assert sys.stdout is gone


def test_nobody_closes_the_output(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with lasting_output():
        sys.stdout.close()
        print("text")
        assert sys.stdout.getvalue() == "text\n"
        sys.stdout = None
    assert sys.stdout is out
    assert not out.closed


def test_a_character_that_cannot_be_written_is_not_lost_in_silence(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True))
    with lasting_output(), pytest.raises(UnicodeEncodeError):
        print("ä")


def test_a_process_without_output_needs_none(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with lasting_output():
        print("text")


def test_python_can_end_with_its_own_status_when_the_reader_has_gone(monkeypatch):
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    with lasting_output():
        os.close(reader)
        print("text")
    stream.close()  # which flushes once more, as the end of Python does
