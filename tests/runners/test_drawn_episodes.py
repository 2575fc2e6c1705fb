"""save_replay: an episode that can be drawn becomes a GIF, and one that cannot is evaluated all the same."""

import logging

import numpy as np
import pytest
from PIL import Image

from shoal.runners.runner import EpisodeRunner, ParallelRunner, ParallelRunnerSettings, RunnerSettings
from support.launch import in_process
from support.reflex import Reflex
from support.team_env import TeamEnv, TeamEnvSettings


class Drawn(TeamEnv):
    """Draws how many steps were played."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium's attribute
    render_mode = "rgb_array"

    def render(self):
        return np.full((8, 8, 3), self._steps, dtype=np.uint8)


class Undrawn(Drawn):
    def render(self):
        raise RuntimeError("no screen")


class Empty(Drawn):
    def render(self):
        return None


class Sketched(Drawn):
    def render(self):
        return np.zeros((8, 8))


def runner_of(kind, env_class, **settings):
    if kind == "episode":
        return EpisodeRunner(RunnerSettings(), env_class, TeamEnvSettings(**settings), 3)
    return ParallelRunner(ParallelRunnerSettings(batch_size_run=2), env_class, TeamEnvSettings(**settings), 3)


@pytest.mark.parametrize("kind", ["episode", "parallel"])
def test_the_first_copy_is_drawn_in_every_state(kind):
    runner = runner_of(kind, Drawn)
    try:
        frames = []
        rollout = runner.run(Reflex(), 0, test_mode=True, frames=frames)
        length = int(rollout.stats["ep_length"][0])
        assert [int(frame[0, 0, 0]) for frame in frames] == list(range(length + 1))
    finally:
        runner.close()


@pytest.mark.parametrize(
    ("kind", "env_class", "why"),
    [
        ("episode", Undrawn, "RuntimeError: no screen"),
        ("parallel", Undrawn, "RuntimeError: no screen"),
        ("episode", Empty, "save_replay needs"),
        ("episode", Sketched, "save_replay needs"),
    ],
)
def test_what_cannot_be_drawn_is_played_all_the_same_and_that_is_said_once(kind, env_class, why, caplog):
    runner, plain = runner_of(kind, env_class), runner_of(kind, env_class)
    try:
        with caplog.at_level(logging.WARNING, "shoal.runners"):
            frames = []
            drawn = runner.run(Reflex(), 0, test_mode=True, frames=frames)
        assert frames == []
        (line,) = [line for line in caplog.messages if "being drawn" in line]
        assert why in line
        assert drawn.env_restarts == 0
        assert drawn.stats == plain.run(Reflex(), 0, test_mode=True).stats
    finally:
        runner.close()
        plain.close()


def test_pictures_of_an_episode_that_failed_are_left_out():
    runner = EpisodeRunner(RunnerSettings(max_env_restarts=100), Drawn, TeamEnvSettings(fail_share=0.7), 3)
    while True:
        frames = []
        rollout = runner.run(Reflex(), 0, frames=frames)
        assert len(frames) == rollout.stats["ep_length"][0] + 1
        if rollout.env_restarts:
            return


SMALL = ["seed=3", "t_max=12", "batch_size=2", "buffer_size=4", "test_nepisode=2", "runner=episode"]


@pytest.mark.parametrize(
    ("env", "key", "drawn"),
    [
        ("gymma", "support.foreign:ShoalModern-v0", True),
        ("gymma", "support.foreign:ShoalUndrawn-v0", False),
    ],
)
def test_an_evaluation_leaves_a_gif_or_a_sentence(env, key, drawn, tmp_path, capsys, caplog):
    game = ["--config=vdn", f"--env-config={env}", "with", f"env_args.key={key}", *SMALL]
    assert in_process(tmp_path, *game) == 0
    (models,) = (tmp_path / "results" / "models").iterdir()
    capsys.readouterr()
    assert in_process(tmp_path, *game, "evaluate=True", "save_replay=True", f"checkpoint_path={models}") == 0
    said = capsys.readouterr()
    assert "test_return_mean" in said.out
    pictures = list((tmp_path / "results" / "replays").glob("*.gif"))
    assert len(pictures) == drawn
    assert ("no screen" in caplog.text) != drawn
    for picture in pictures:
        with Image.open(picture) as gif:
            assert gif.n_frames == 5
