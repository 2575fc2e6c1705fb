"""Callbacks that tests name by their import paths."""

import random

import numpy as np
import torch

from shoal.callbacks import Callback
from shoal.utils.errors import UserError


class Watch(Callback):
    """Notes every hook with its t_env, and draws random numbers in each."""

    events: list = []  # noqa: RUF012

    def __init__(self):
        self.events.clear()

    def _note(self, hook, experiment, what):
        self.events.append((hook, experiment.progress.t_env, what))
        random.random(), np.random.rand(3), torch.randn(2)

    def on_start(self, experiment):
        self._note("start", experiment, None)

    def on_rollout(self, experiment, rollout):
        self._note("rollout", experiment, rollout.env_steps)

    def on_update(self, experiment, metrics):
        self._note("update", experiment, float(metrics["loss_td"]))

    def on_test(self, experiment, metrics):
        self._note("test", experiment, metrics["test_return_mean"])

    def on_checkpoint(self, experiment, path):
        self._note("checkpoint", experiment, int(path.stem))

    def on_end(self, experiment, result):
        self._note("end", experiment, result)


class Stumble(Callback):
    """Fails at 12 environment steps, before the updates, with what ``error`` holds."""

    error: Exception = RuntimeError("it stumbled")

    def on_rollout(self, experiment, rollout):
        if experiment.progress.t_env == 12:
            raise self.error


class Enough(Stumble):
    error = UserError("That is enough.")


class NeedsOne(Callback):
    def __init__(self, something):
        pass


def no_callback():
    return 3
