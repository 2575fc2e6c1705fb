"""Freed memory is kept where the C library can be asked to."""

import ctypes
import sys

import pytest

from shoal.utils import malloc


class Library:
    """A C library that notes what it is asked."""

    def __init__(self):
        self.asked = []

    def mallopt(self, option, value):
        self.asked.append((option, value))
        return 1


def test_glibc_is_asked_to_map_no_block_and_to_trim_nothing(monkeypatch):
    library = Library()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert malloc.keep_freed_memory()
    assert sorted(library.asked) == [(malloc.M_MMAP_MAX, 0), (malloc.M_TRIM_THRESHOLD, -1)]


@pytest.mark.parametrize(("platform", "library"), [("darwin", Library()), ("linux", object())])
def test_nothing_changes_where_there_is_no_such_switch(monkeypatch, platform, library):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert not malloc.keep_freed_memory()
