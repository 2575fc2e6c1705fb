"""Stop requests: noted, not obeyed at once; a second Ctrl-C is."""

import os
import signal
import threading

import pytest

from shoal.utils.signals import STOP_SIGNALS, Interrupted, StopNow, StopRequest, stops_interrupt, time_limit


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_signal_is_noted_and_the_work_goes_on(signum):
    before = signal.getsignal(signum)
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), signum)
        assert stop
        assert stop.signum == signum
    assert signal.getsignal(signum) is before


@pytest.mark.parametrize("signum", sorted(set(STOP_SIGNALS) - {signal.SIGINT}))
def test_a_stop_signal_interrupts_where_nothing_can_be_saved_yet(signum):
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted, match=signal.Signals(signum).name) as end, stops_interrupt():
        os.kill(os.getpid(), signum)
    assert end.value.signum == signum
    assert end.value.checkpoint is None
    assert signal.getsignal(signum) is before


def test_ctrl_c_is_told_from_an_environments_own_keyboard_interrupt():
    with pytest.raises(StopNow), stops_interrupt():
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("how", [stops_interrupt, StopRequest])
def test_what_was_ignored_before_stays_ignored(how):
    """``nohup`` has SIGHUP ignored; a shell has SIGINT ignored for what it runs in the background."""
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGHUP, signal.SIGINT)}
    try:
        with how():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def test_a_stop_request_inside_notes_sigterm_as_ever():
    with stops_interrupt():
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_ctrl_c_ends_at_once():
    with pytest.raises(KeyboardInterrupt) as end, StopRequest():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert not isinstance(end.value, Interrupted)


def test_ctrl_c_after_sigterm_ends_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_changes_nothing():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM


def test_the_handlers_come_back_after_an_exception():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="broken"), StopRequest():
        raise ValueError("broken")
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with StopRequest() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_an_interruption_names_its_signal():
    error = Interrupted(signal.SIGTERM)
    assert isinstance(error, KeyboardInterrupt)
    assert str(error) == "SIGTERM"
    assert error.signum == 15


def test_what_takes_too_long_is_interrupted():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeoutError, match=r"more than 0\.05 seconds"), time_limit(0.05):
        threading.Event().wait(60)
    assert signal.getsignal(signal.SIGALRM) is before
    with time_limit(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_somebody_elses_alarm_clock_is_left_alone():
    rung = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: rung.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with time_limit(0.01):
            assert rung.wait(60)
    finally:
        signal.signal(signal.SIGALRM, before)
