"""A run recorded by an earlier version (commit af5f1cd, before settings had roles) is read, compared and resumed.

Its settings have names of that time: ``env_args.episode_limit`` is ``env_args.time_limit`` today.
"""

import gzip
import shutil
from pathlib import Path

import pytest

from shoal.analysis.records import read_run
from shoal.analysis.sources import gather
from shoal.analysis.study import study
from shoal.recording.reader import read_record
from support.launch import in_process

EARLIER = Path(__file__).parent / "earlier"
GAME = ["--config=vdn", "--env-config=matrix_game", "with", "runner=episode", "t_max=40", "test_interval=20"]
SAME = [*GAME, "batch_size=2", "buffer_size=8", "test_nepisode=2", "rnn_hidden_dim=4", "env_args.time_limit=2"]


@pytest.fixture
def results(tmp_path):
    record, models = tmp_path / "results" / "sacred" / "1", tmp_path / "results" / "models" / "earlier"
    shutil.copytree(EARLIER, record, ignore=shutil.ignore_patterns("*.gz"))
    (record / "model_dir.txt").write_text(f"{models}\n")
    models.mkdir(parents=True)
    (models / "40.pt").write_bytes(gzip.decompress((EARLIER / "40.pt.gz").read_bytes()))
    return tmp_path / "results"


def test_it_is_read(results):
    record = read_record(results / "sacred" / "1", strict=True)
    assert (record.status, record.host, record.commit, record.start) == ("COMPLETED", "node7", "af5f1cd", None)
    run = read_run(record.folder)
    assert (run.label, run.settings["env_args.time_limit"]) == ("vdn on matrix_game", 2)
    assert run.metrics["test_return_mean"][0].tolist() == [0, 20, 40]


def test_it_is_a_seed_of_the_same_method_as_a_run_of_today(results, tmp_path):
    assert in_process(tmp_path, *SAME, "seed=6", "save_model=False") == 0
    made = study(gather([str(results)]))
    (seeds,) = made.cells.values()
    assert ([run.config["seed"] for run in seeds.runs], made.differing, made.left_out) == ([5, 6], [], [])


def test_it_is_resumed(results, tmp_path):
    assert in_process(tmp_path, "with", "resume=results/sacred/1", "t_max=60") == 0
    (run,) = gather([str(results)])
    assert (run.id, run.status) == ("1+2", "COMPLETED")
    assert run.metrics["test_return_mean"][0].tolist() == [0, 20, 40, 60]
