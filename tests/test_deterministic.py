"""One seed, one run: what is recorded twice is the same to the last bit."""

import pytest

from support.launch import curves, in_process

GAME = ["--env-config=matrix_game_shift", "with", "env_args.shift_at=40", "env_args.time_limit=3"]
SIZES = ["t_max=90", "batch_size=4", "buffer_size=12", "test_nepisode=2"]
LOG = ["test_interval=15", "runner_log_interval=12", "learner_log_interval=12"]
QUICK = [*SIZES, *LOG, "save_model=False", "epsilon_anneal_time=60", "target_update_interval=8"]

BATTLE = ["--env-config=smax", "with", "env_args.map_name=3m", "env_args.time_limit=20", "batch_size_run=4"]
BATTLE_QUICK = ["t_max=600", "batch_size=8", "buffer_size=16", "test_nepisode=4", *LOG, "save_model=False"]


def recorded(folder, *args):
    folder.mkdir()
    assert in_process(folder, *args) == 0
    return curves(folder / "results" / "sacred" / "1")


@pytest.mark.parametrize("alg", ["s2q", "qmix", "ow_qmix"])
def test_one_process_twice(tmp_path, alg):
    args = [f"--config={alg}", *GAME, *QUICK, "runner=episode"]
    first, second, other = (
        recorded(tmp_path / name, *args, f"seed={seed}") for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert first == second
    assert len(first["loss_td"]) >= 5
    assert first["loss_td"] != other["loss_td"]


def test_worker_processes_twice(tmp_path):
    env = "env=support.plain_game:PlainMatrixGame"
    args = ["--config=s2q", *GAME, *QUICK, "runner=parallel", "batch_size_run=2", "seed=5", env]
    first, second = (recorded(tmp_path / name, *args) for name in "ab")
    assert first == second
    assert len(first["loss_td"]) >= 5


@pytest.mark.slow
def test_battles_twice(tmp_path):
    args = ["--config=s2q", *BATTLE, *BATTLE_QUICK]
    first, second, other = (
        recorded(tmp_path / name, *args, f"seed={seed}") for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert first == second
    assert len(first["loss_td"]) >= 3
    assert "test_battle_won_mean" in first
    assert first["loss_td"] != other["loss_td"]
