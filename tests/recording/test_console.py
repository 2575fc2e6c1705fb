import io
import math
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from shoal.recording.console import Console
from shoal.recording.console_text import sparkline


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """Keeps what is written and can show what a terminal would have on its screen."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def screen(self):
        lines, row = [""], 0
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if token == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif token.endswith("A") and token[0] == "\x1b":
                row -= int(token[2:-1])
            elif token == "\x1b[J":
                lines = [*lines[:row], ""]
            elif token[0] not in "\x1b\r":
                lines[row] += token
        return lines


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sit_down(monkeypatch):
    """Puts one terminal behind stdout, stderr and the live display, as in life.

    To be called in the test itself: pytest changes the streams between a fixture and its test.
    """

    def sit(columns: int = 120) -> Terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", str(columns))
        return terminal

    return sit


def test_plain_lines_come_at_most_every_interval(clock, capsys):
    console = Console(1000, live=False, plain_interval_s=30, clock=clock)
    for step in range(1, 101):
        clock.now += 1
        console.progress(step * 10, step, {"return_mean": 2.5, "epsilon": 0.05, "loss_td": 0.25})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0] == (
        "t_env 300 of 1,000 (30.0%), episode 30, 10 steps/s, 0:00:30 elapsed, 0:01:10 left, "
        "return 2.50, epsilon 0.050, loss 0.25"
    )
    console.close()
    assert capsys.readouterr().out.startswith("finished at t_env 1,000 of 1,000 after 0:01:40")


def test_speed_is_recent_and_time_left_is_over_the_whole_run(clock):
    console = Console(100_000, live=False, clock=clock)
    for step in range(100):
        clock.now += 1
        console.progress((step + 1) * 10, step, {})
    for step in range(100):
        clock.now += 1
        console.progress(1000 + (step + 1) * 30, step, {})
    assert console.steps_per_second() == pytest.approx(30)
    assert console.seconds_left() == pytest.approx(96_000 / (4000 / 200))
    console.close()


def test_a_resumed_run_counts_only_its_own_steps(clock):
    console = Console(1000, live=False, t_start=800, clock=clock)
    assert console.steps_per_second() is None
    assert console.seconds_left() is None
    clock.now += 10
    console.progress(900, 1, {})
    assert console.steps_per_second() == pytest.approx(10)
    assert console.seconds_left() == pytest.approx(10)
    console.close()


def test_a_run_past_its_end_has_no_time_left(clock, capsys):
    console = Console(100, live=False, clock=clock)
    clock.now += 40
    console.progress(120, 1, {})
    assert console.seconds_left() == 0
    assert "(100.0%)" in capsys.readouterr().out
    console.close()


def test_a_test_leaves_one_line_with_what_it_is_judged_by(capsys):
    console = Console(100, live=False)
    metrics = {
        "test_ep_length_mean": 41.25,
        "test_dead_allies_mean": 2.0,
        "test_return_std": 1.0,
        "test_battle_won_mean": 0.625,
        "test_return_mean": math.nan,
    }
    console.test_result(50, metrics)
    console.close()
    assert capsys.readouterr().out == (
        "test at t_env 50: return nan, battle_won 62.5%, dead_allies 2.00, ep_length 41.2\n"
    )


def test_a_football_test_shows_its_win_rate(capsys):
    with Console(100, live=False) as console:
        for won in (0.25, 0.5):
            metrics = {"test_score_reward_mean": -0.5, "test_return_mean": 3.0, "test_win_rate": won}
            console.test_result(50, metrics | {"test_teacher_win_rate": 0.75, "test_action_pass_mean": 0.5})
    line = "test at t_env 50: return 3.00, win_rate 25.0%, score_reward -0.50, teacher_win_rate 75.0%"
    assert capsys.readouterr().out.splitlines()[0] == line
    assert console._tests == [0.25, 0.5]  # what the live display draws


def test_lines_go_to_the_stdout_of_the_moment(monkeypatch):
    console = Console(100, live=False)
    later = io.StringIO()
    monkeypatch.setattr(sys, "stdout", later)
    console.print("seen")
    console.warn("careful")
    console.close()
    assert later.getvalue() == "seen\nwarning: careful\n"


def test_a_stdout_that_is_gone_or_narrow_minded_does_not_stop_the_run(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    ascii_bytes = io.BytesIO()
    console = Console(100, live=False)
    monkeypatch.setattr(sys, "stdout", Gone())
    console.print("lost")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(ascii_bytes, encoding="ascii"))
    console.print("naïve")
    console.close()
    assert ascii_bytes.getvalue() == b"na?ve\n"


def test_no_terminal_means_no_control_sequences(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    with Console(100, stream=stream) as console:
        console.progress(1, 1, {})
    assert stream.getvalue() == ""


def test_a_terminal_is_recognised(monkeypatch, sit_down):
    terminal = sit_down()
    monkeypatch.setenv("TERM", "xterm")
    with Console(100, stream=terminal):
        time.sleep(0.7)
    assert "0/100" in terminal.getvalue()


def test_lines_scroll_by_above_the_live_display_and_close_removes_it(sit_down):
    terminal = sit_down()
    before = sys.stdout, sys.stderr
    with Console(1000, live=True, stream=terminal) as console:
        console.progress(420, 7, {"return_mean": 3.5, "epsilon": 0.1})
        console.test_result(400, {"test_return_mean": 1.0, "test_battle_won_mean": 0.0})
        console.test_result(410, {"test_return_mean": 1.0, "test_battle_won_mean": 1.0})
        time.sleep(0.15)
        print("from an environment")
        sys.stderr.write("in two ")
        sys.stderr.write("pieces\n")
        time.sleep(0.15)
        console.print("last")
        screen = terminal.screen()
        assert screen[2:5] == ["from an environment", "in two pieces", "last"]
        assert "42.0%" in screen[5]
        assert "420/1,000" in screen[5]
        assert "episode 7" in screen[6]
        assert "return 3.50" in screen[6]
        assert screen[7].rstrip() == "last test return 1.00, battle_won 100.0%  at 410  ▁█"
    assert (sys.stdout, sys.stderr) == before
    assert [line for line in terminal.screen() if line][-1].startswith("stopped at t_env 420 of 1,000")
    assert "\x1b[?25l" not in terminal.getvalue()


def test_an_exception_removes_the_display_too(sit_down):
    terminal = sit_down()

    def run():
        with Console(1000, live=True, stream=terminal) as console:
            console.print("shown")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert [line for line in terminal.screen() if line] == ["shown"]
    assert sys.stdout is terminal


def test_a_line_that_never_ended_is_let_out_at_close(sit_down):
    terminal = sit_down()
    with Console(1000, live=True, stream=terminal):
        print("no end", end="")
    assert "no end\n" in terminal.getvalue()


def test_a_terminal_that_hangs_up_ends_the_display_only(sit_down):
    terminal = sit_down()

    class HungUp(Terminal):
        def write(self, text):
            raise OSError(5, "Input/output error")

    with Console(1000, live=True, stream=HungUp()) as console:
        time.sleep(0.7)
        console.print("goes on")
    assert "goes on\n" in terminal.getvalue()


def test_the_display_survives_a_narrow_terminal(sit_down):
    terminal = sit_down(40)
    with Console(1000, live=True, stream=terminal) as console:
        console.progress(420, 7, {"return_mean": 3.5})
        console.test_result(400, {"test_return_mean": 1.0, "test_ep_length_mean": 10.0})
        rows = terminal.screen()[1:4]
    assert len(rows) == 3
    assert all(0 < len(row) < 40 for row in rows)


def test_a_forked_worker_prints_without_waiting_for_our_lock(sit_down):
    terminal = sit_down()
    console = Console(1000, live=True, stream=terminal)
    held, release = threading.Event(), threading.Event()

    def draw_slowly():
        with console._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=draw_slowly)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        print("from the child")
        console.print("and this")
        console.close()
        os._exit(0 if "from the child\nand this\n" in terminal.getvalue() else 1)
    deadline = time.monotonic() + 10
    ended, status = 0, None
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
    release.set()
    thread.join()
    if not ended:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    console.close()
    assert ended
    assert status == 0


def test_a_console_never_closed_is_closed_at_exit():
    code = "import sys; from shoal.recording.console import Console\n"
    code += "Console(10, live=True).progress(3, 1, {}); print('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "x"
    assert done.stdout.splitlines()[1].startswith("stopped at t_env 3 of 10")


def test_progress_is_cheap():
    console = Console(10**9, live=False)
    start = time.perf_counter()
    for step in range(10_000):
        console.progress(step, step, {})
    assert time.perf_counter() - start < 0.5
    console.close()


def test_sparkline():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([-10.0, math.nan, 10.0]) == "▁ █"
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([math.nan]) == " "
