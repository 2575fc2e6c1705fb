"""A run's checkpoints: which there are, what is read of the best one, and what a full disk leaves."""

import errno

import pytest

from shoal.experiment import ExperimentSettings
from shoal.experiment.saving import Saver
from shoal.recording.console import Console
from shoal.recording.logger import Logger
from shoal.utils import checkpoint as checkpoints


def saver_of(folder, save_model=True):
    settings = ExperimentSettings(
        env="matrix_game", learner="q_learner", runner="episode", memory="replay", save_model=save_model
    )
    return Saver(settings, folder, Logger(None, Console(t_max=100)))


@pytest.fixture
def saver(tmp_path):
    return saver_of(tmp_path)


def content(memory="episodes"):
    return {"learner": {}, "buffer": {"episodes": memory, "rng": None}, "progress": {"best": [0.5, 3.0]}}


def full_while(monkeypatch, is_full):
    """The disk has no room for a checkpoint while ``is_full(content)``."""
    write = checkpoints.write

    def limited(content, path):
        if is_full(content):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(content, path)

    monkeypatch.setattr(checkpoints, "write", limited)


def test_the_newest_is_that_of_the_latest_step(saver):
    assert saver.newest() is None
    assert saver.describe_newest() == "No checkpoint was saved before."
    for t_env in (1000, 200):
        assert saver.save(content(), t_env, last=False) == saver.folder / f"{t_env}.pt"
    assert saver.save_best(content())
    assert saver.newest() == saver.folder / "1000.pt"
    assert (saver.has(200), saver.has(20)) == (True, False)
    said = saver.describe_newest()
    assert "t_env 1,000;" in said
    assert f"resume={saver.folder} " in said


def test_a_run_that_saves_nothing_has_none(saver):
    saver.save(content(), 7, last=False)
    assert saver.newest() is not None
    assert saver_of(saver.folder, save_model=False).newest() is None


def test_the_best_score_is_that_of_the_best_checkpoint_unless_it_is_damaged(saver):
    assert saver.best_score() == []
    saver.save_best(content())
    assert saver.best_score() == [0.5, 3.0]
    best = saver.folder / checkpoints.BEST
    best.write_bytes(best.read_bytes()[:100])
    assert saver.best_score() == []


def test_a_full_disk_costs_a_checkpoint_between_and_no_older_one(saver, monkeypatch, capsys):
    saver.save(content(), 1, last=False)
    full_while(monkeypatch, lambda content: True)
    assert saver.save(content(), 2, last=False) is None
    assert not saver.save_best(content())
    assert [path.name for path in saver.folder.iterdir()] == ["1.pt"]
    said = capsys.readouterr()
    assert "No checkpoint at 2: " in said.out + said.err


def test_older_ones_make_room_for_the_last_and_the_newest_whole_one_stays(saver, monkeypatch):
    for t_env in (1, 2, 3):
        saver.save(content(), t_env, last=False)
    full_while(monkeypatch, lambda content: saver.has(1))
    assert saver.save(content(), 4, last=True) == saver.folder / "4.pt"
    assert checkpoints.steps_in(saver.folder) == [2, 3, 4]


def test_the_last_does_without_its_memory_where_nothing_else_helps(saver, monkeypatch):
    for t_env in (1, 2):
        saver.save(content(), t_env, last=False)
    full_while(monkeypatch, lambda content: content["buffer"]["episodes"] is not None)
    saver.save(content(), 3, last=True)
    assert checkpoints.steps_in(saver.folder) == [2, 3]
    assert checkpoints.load(saver.folder / "3.pt")["buffer"]["episodes"] is None


def test_an_error_that_room_does_not_help_deletes_nothing(saver, monkeypatch):
    saver.save(content(), 1, last=False)

    def forbidden(content, path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoints, "write", forbidden)
    assert saver.save(content(), 2, last=True) is None
    assert saver.has(1)
