"""Metrics on disk: a journal that costs little, and one reader that sees file and journal as one."""

import json
import os

import pytest

from shoal.recording import series
from shoal.recording.series import JOURNAL_FILE, SERIES_FILE, SeriesWriter, read_series


@pytest.fixture(autouse=True)
def journals_soon(monkeypatch):
    monkeypatch.setattr(series, "_SMALL", 400)


def points(start, end, name="loss"):
    steps = list(range(start, end))
    return {name: {"values": [s / 2 for s in steps], "steps": steps, "timestamps": [f"t{s}" for s in steps]}}


def steps_of(folder, name="loss"):
    return read_series(folder)[name]["steps"]


def test_file_and_journal_are_one_series_at_every_moment(tmp_path):
    writer, journals = SeriesWriter(tmp_path), 0
    for k in range(200):
        writer.add(points(k, k + 1) | (points(k, k + 1, "late") if k > 100 else {}))
        writer.store()
        journals += (tmp_path / JOURNAL_FILE).exists()
        assert steps_of(tmp_path) == list(range(k + 1))
    assert journals > 150
    assert steps_of(tmp_path, "late") == list(range(101, 200))
    before = read_series(tmp_path)
    writer.store(whole=True)
    assert not (tmp_path / JOURNAL_FILE).exists()
    assert json.loads((tmp_path / SERIES_FILE).read_text()) == read_series(tmp_path) == before


def test_each_point_is_written_a_bounded_number_of_times(tmp_path, monkeypatch):
    written = 0
    replace_file = series.replace_file

    def counting(path, content):
        nonlocal written
        written += len(content)
        replace_file(path, content)

    monkeypatch.setattr(series, "replace_file", counting)
    writer = SeriesWriter(tmp_path)
    for k in range(1000):
        writer.add(points(k, k + 1))
        writer.store()
    writer.store(whole=True)
    assert written < 5 * (tmp_path / SERIES_FILE).stat().st_size


def with_journal(folder):
    """Ten points in the file, five in the journal."""
    writer = SeriesWriter(folder)
    writer.add(points(0, 60))
    writer.store()
    writer.add(points(60, 62))
    writer.store()
    assert (folder / JOURNAL_FILE).exists()
    return writer


def test_a_kill_between_the_file_and_the_journals_end_counts_no_point_twice(tmp_path):
    writer = with_journal(tmp_path)
    journal = (tmp_path / JOURNAL_FILE).read_bytes()
    writer.store(whole=True)
    (tmp_path / JOURNAL_FILE).write_bytes(journal)
    assert steps_of(tmp_path) == list(range(62))


def test_a_kill_in_the_midst_of_a_line_costs_that_line(tmp_path):
    with_journal(tmp_path)
    with open(tmp_path / JOURNAL_FILE, "ab") as file:
        file.write(b'{"loss": {"at": 62, "val')
    assert steps_of(tmp_path) == list(range(62))


POINT = '"values": [1], "steps": [0], "timestamps": [""]'
LINES = [
    "[]",
    '{"loss": 3}',
    f'{{"loss": {{{POINT}}}}}',
    f'{{"loss": {{"at": "62", {POINT}}}}}',
    '{"loss": {"at": 62}}',
]
FILES = ['{"loss": {"values": 1, "steps": 1, "timestamps": 1}}', f'{{"loss": {{{POINT}}}}}'.replace("[0]", "[null]")]


@pytest.mark.parametrize("damage", ["the file is gone", "a line is torn", "half a file", "no lists", *LINES, *FILES])
def test_damage_is_refused(tmp_path, damage):
    with_journal(tmp_path)
    file, journal = tmp_path / SERIES_FILE, tmp_path / JOURNAL_FILE
    if damage == "the file is gone":
        file.unlink()
    elif damage == "a line is torn":
        journal.write_bytes(b"\0\n" + journal.read_bytes())
    elif damage == "half a file":
        file.write_bytes(file.read_bytes()[:100])
    elif damage in LINES:
        journal.write_text(f"{damage}\n")
    elif damage in FILES:
        file.write_text(damage)
    else:
        file.write_text('{"loss": {"values": [1], "steps": [], "timestamps": []}}')
    with pytest.raises(ValueError, match=r"."):
        read_series(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_a_full_disk_refused_is_stored_once_the_next_time(tmp_path, monkeypatch, call):
    writer = with_journal(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        writer.add(points(62, 64))
        if call == "fsync":
            with pytest.raises(OSError, match="No space"):
                writer.store()
            assert not writer.up_to_date
        else:  # no room for the whole: there is for a line
            writer.store(whole=True)
            assert writer.up_to_date
    writer.add(points(64, 65))
    writer.store()
    assert steps_of(tmp_path) == list(range(65))
