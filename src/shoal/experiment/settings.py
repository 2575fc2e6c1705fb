"""The settings of a run that are of no component."""

from dataclasses import dataclass, field
from typing import Annotated

from shoal.components.schedules import TMax
from shoal.declare import Checked, FileName, PathText, Range, Role
from shoal.recording.mongo_address import refuse_secret
from shoal.utils.errors import UserError
from shoal.utils.seeding import LARGEST_SEED

MOST_THREADS = 1024
"""Of torch. Starting more than the operating system allows would end the process without a word."""


@dataclass(frozen=True)
class ExperimentSettings(Checked):
    env: Annotated[str, "environment suite"]
    learner: Annotated[str, "learner: loss, updates and targets"]
    name: Annotated[str, "name of the run in records and folder names", FileName(), Role.NAME] = "run"
    runner: Annotated[
        str, "how environments run: episode (one), parallel (many), ray (on other machines)", Role.HARDWARE
    ] = "parallel"
    mac: Annotated[str, "controller: observations in, actions out"] = "basic_mac"
    memory: Annotated[str, "what the learner learns from: past episodes (replay)"] = "replay"
    seed: Annotated[
        int | None, "seed of all randomness; null: drawn, and recorded", Range(0, LARGEST_SEED), Role.SEED
    ] = None
    t_max: TMax = 2_000_000
    use_cuda: Annotated[bool, "train on a GPU if there is one", Role.HARDWARE] = True
    torch_threads: Annotated[
        int,
        "threads of one torch operation; 0: torch decides",
        Range(0, MOST_THREADS),
        Role.HARDWARE,
    ] = 1
    test_interval: Annotated[int, "environment steps between tests", Range(1), Role.MEASURE] = 10_000
    test_nepisode: Annotated[
        int, "episodes per test, rounded down to whole rollouts (at least one)", Range(1), Role.MEASURE
    ] = 32
    absolute_test_nepisode: Annotated[
        int,
        "episodes of one more test, at the end, of the policy with the best test (the absolute metric; the "
        "evaluation protocol asks for 10 x test_nepisode); 0: none",
        Range(0),
        Role.MEASURE,
    ] = 0
    range_alarm: Annotated[
        bool,
        "warn once, and record, when values leave the range of possible returns or inputs are far too large or grow",
        Role.MEASURE,
    ] = True
    runner_log_interval: Annotated[
        int, "environment steps between records of the training episodes' metrics", Range(1), Role.MEASURE
    ] = 10_000
    learner_log_interval: Annotated[
        int, "environment steps between records of the learner's metrics", Range(1), Role.MEASURE
    ] = 10_000
    local_results_path: Annotated[str, "folder of all results", PathText(needed=True), Role.RECORD] = "results"
    use_tensorboard: Annotated[bool, "also record for TensorBoard, in <local_results_path>/tb_logs", Role.RECORD] = (
        False
    )
    mongo_url: Annotated[
        str | None,
        "MongoDB that also records the run: HOST:PORT:DB or mongodb://... (passwords: see docs/recording.md)",
        Role.RECORD,
    ] = None
    save_model: Annotated[bool, "save checkpoints, in <local_results_path>/models", Role.RECORD] = True
    save_model_interval: Annotated[int, "environment steps between checkpoints", Range(1), Role.RECORD] = 50_000
    keep_checkpoints: Annotated[
        int, "number of newest checkpoints to keep, in addition to the best test's; 0: all", Range(0), Role.RECORD
    ] = 3
    checkpoint_path: Annotated[
        str, "checkpoint file or folder to start from, or to evaluate", PathText(), Role.START
    ] = ""
    callbacks: Annotated[
        list[str], "import paths of callbacks, such as [shoal.callbacks:CSV,my_module:Watch]", Role.RECORD
    ] = field(default_factory=list)
    load_step: Annotated[int, "environment step of the checkpoint to load; 0: the newest", Range(0), Role.START] = 0
    evaluate: Annotated[bool, "test the loaded checkpoint (greedy actions) instead of training", Role.START] = False
    save_replay: Annotated[
        bool,
        "with evaluate=True: save the first test episode as an animated GIF, and as the game's own replay file",
        Role.START,
    ] = False
    resume: Annotated[str, "recorded run, or its folder of checkpoints, to resume", PathText(), Role.START] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluate and not self.checkpoint_path:
            raise UserError("evaluate=True needs the checkpoint to test: add checkpoint_path=results/models/...")
        if self.mongo_url:
            refuse_secret(self.mongo_url)
        if self.save_replay and not self.evaluate:
            raise UserError("save_replay=True needs a trained team: add evaluate=True and checkpoint_path=...")
        if self.resume and self.checkpoint_path:
            raise UserError("resume and checkpoint_path exclude each other: resume already names the checkpoint.")
