"""A run's printed output: in order, whole and bounded."""

import threading
import time
from pathlib import Path

import pytest

from shoal.recording import captured_output
from shoal.recording.captured_output import bounded_output, guard_output
from shoal.recording.file_record import file_observer
from support.sacred_run import CAPTURED, experiment


class TestBoundedOutput:
    @pytest.mark.parametrize(
        ("printed", "shown"),
        [
            ("a\nb", "a\nb"),
            ("10%\r20%\r30%\ndone\n", "30%\ndone\n"),
            ("long line\rshort\n", "shortline\n"),
            ("abc\b\bX\n", "aXc\n"),
            ("\b\ba\n", "a\n"),
            ("windows\r\n", "windows\n"),
        ],
    )
    def test_lines_read_as_on_a_terminal(self, printed, shown):
        assert bounded_output(printed) == shown

    def test_a_line_may_arrive_in_pieces(self):
        text = "ab\rc\b\bdef\r\nxyz\r1"
        for cut in range(len(text)):
            assert bounded_output(bounded_output(text[:cut]) + text[cut:]) == bounded_output(text)

    def test_long_output_keeps_both_ends_and_counts_the_rest(self, monkeypatch):
        monkeypatch.setattr(captured_output, "_HEAD", 1000)
        monkeypatch.setattr(captured_output, "_TAIL", 1000)
        lines = [f"line {number}\n" for number in range(2000)]
        whole = "".join(lines)
        text = ""
        for start in range(0, 2000, 7):
            text = bounded_output(text + "".join(lines[start : start + 7]))
            assert len(text) < 2100
        assert text.startswith("line 0\n")
        assert text.endswith("line 1999\n")
        marks = [line for line in text.splitlines() if "left out here" in line]
        assert len(marks) == 1
        kept = len(text) - len(marks[0]) - 2
        assert int(marks[0].split()[1]) == len(whole) - kept
        assert bounded_output(text) == text

    def test_the_real_bound_fits_a_mongo_document(self):
        assert len(bounded_output("€" * 2**23).encode()) < 8 * 2**20


class SlowBuffer:
    """A run's output in which a heartbeat takes its time, after one of the two calls that reading consists of."""

    def __init__(self, buffer, slow):
        self._buffer, self._slow, self.reading = buffer, slow, threading.Event()

    def __getattr__(self, name):
        call = getattr(self._buffer, name)
        if name != self._slow or threading.current_thread() is threading.main_thread():
            return call

        def slowly(*args):
            result = call(*args)
            self.reading.set()
            time.sleep(0.2)
            return result

        return slowly


@pytest.mark.parametrize("slow", ["seek", "read"])
def test_output_printed_and_read_while_a_heartbeat_reads_is_recorded_in_its_place(tmp_path, slow):
    def main(_run):
        buffer = _run._output_file.buffer = SlowBuffer(_run._output_file.buffer, slow)
        guard_output(_run)
        print("first")
        heartbeat = threading.Thread(target=_run._get_captured_output)
        heartbeat.start()
        buffer.reading.wait()
        print("second")
        _run._get_captured_output()
        heartbeat.join()

    observer = file_observer(tmp_path)
    experiment(main, observer).run(options=CAPTURED)
    assert (Path(observer.dir) / "cout.txt").read_text() == "first\nsecond\n"


def test_what_is_printed_after_the_last_read_is_recorded(tmp_path):
    def main(_run):
        guard_output(_run)
        read = _run._get_captured_output

        def read_and_print():
            read()
            if not _run._output_file.closed:
                print("the last word")

        _run._get_captured_output = read_and_print

    observer = file_observer(tmp_path)
    experiment(main, observer).run(options=CAPTURED)
    assert (Path(observer.dir) / "cout.txt").read_text().count("the last word\n") == 1
