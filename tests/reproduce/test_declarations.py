"""Every declared reproduction: its runs can start, it is named once, and its shared runs are really the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from shoal.reproduce import catalogue, running
from shoal.reproduce.declaration import Arm, Reproduction

EVERY = catalogue.every()
ids = [one.id for one in EVERY]


def options(tmp_path: Path, quick: bool) -> running.Options:
    return running.Options(2, 1, tmp_path, tmp_path, quick)


def test_ids_are_unique() -> None:
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("one", EVERY, ids=ids)
@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
def test_every_run_could_start(one: Reproduction, quick: bool, tmp_path: Path) -> None:
    """Settings are checked as ``print_config`` checks them; nothing is run."""
    runs = running.planned(one, options(tmp_path, quick))
    names = [run.name for of_arm in runs.values() for run in of_arm]
    assert len(set(names)) == len(names)
    for arm in one.arms:
        for seed, run in zip(arm.seeds(2, one.first_seed), runs[arm.name], strict=True):
            assert run.values["seed"] == seed
            wanted = {**arm.settings, **(one.quick if quick else {})}
            for key, value in wanted.items():
                section, _, name = key.rpartition(".")
                assert (run.values[section] if section else run.values)[name] == value
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("one", EVERY, ids=ids)
def test_a_quick_run_is_quick(one: Reproduction) -> None:
    for arm in one.arms:
        assert one.quick["t_max"] <= arm.settings["t_max"] / 5


@pytest.mark.parametrize("one", [one for one in EVERY if one.runs_of], ids=lambda one: one.id)
def test_shared_runs_are_those_of_the_other(one: Reproduction) -> None:
    other = catalogue.find(one.runs_of, EVERY)
    assert one.runs_folder == other.folder
    assert {arm.name for arm in one.arms} <= {arm.name for arm in other.arms}
    for arm in one.arms:
        assert arm in other.arms
    assert one.first_seed == other.first_seed
    assert one.quick == other.quick


def test_a_share_of_the_seeds_is_rounded_up() -> None:
    arm = Arm("vdn", "VDN", "vdn", "matrix_game", share=3)
    assert list(arm.seeds(10)) == [0, 1, 2, 3]
    assert list(arm.seeds(1, first=5)) == [5]
    assert list(replace(arm, share=1).seeds(2, first=1)) == [1, 2]


def test_a_command_line_can_be_pasted_into_a_shell() -> None:
    arm = Arm("mq", "MQ", "mq_lan", "sisl", {"env_args.env_name": "waterworld", "test_interval": 5000})
    assert arm.command(3, {"test_interval": 10}) == (
        "python src/main.py --config=mq_lan --env-config=sisl with env_args.env_name=waterworld test_interval=10 seed=3"
    )
