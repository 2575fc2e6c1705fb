"""What a run on a payoff game records besides its metrics: joint values, greedy joint actions, and what it plays."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.callbacks.callback import Callback
from shoal.components.action_selectors import greedy
from shoal.components.batch import PackedSteps
from shoal.learners.q_learner import QLearner
from shoal.learners.s2q import S2QLearner
from shoal.learners.value_learner import chosen
from shoal.learners.wqmix import WQMIXLearner
from shoal.reproduce.payoff_record import BEHAVIOUR, GREEDY, JOINT_Q, Q_STAR, joint_actions

if TYPE_CHECKING:
    from shoal.experiment import Experiment

BEHAVIOUR_EPISODES = 20_000


class Watcher(Callback):
    """Records, at every test on a one-state game, the values of all joint actions and which of them is greedy.

    Metrics, for each copy k of the controller and joint action such as AB: ``joint_q_<k>_AB``, ``joint_q_star_AB``
    where the learner has a central Q*, and ``greedy_joint_<k>``, the number of the joint action in their order.
    """

    @torch.no_grad()
    def on_test(self, experiment: Experiment, metrics: Mapping[str, float]) -> None:
        learner = experiment.learner
        assert isinstance(learner, QLearner | WQMIXLearner | S2QLearner)
        assert learner.mixer is not None
        spec = learner.spec
        N, A = spec.n_agents, spec.n_actions
        fields = {
            "obs": torch.ones(1, 1, N, spec.obs_dim),
            "state": torch.ones(1, 1, spec.state_dim),
            "avail_actions": torch.ones(1, 1, N, A, dtype=torch.bool),
            "actions": torch.zeros(1, 1, N, dtype=torch.int64),
            "terminated": torch.zeros(1, 1, 1, dtype=torch.bool),
            "filled": torch.ones(1, 1, 1, dtype=torch.bool),
        }
        batch = TensorDict(fields, batch_size=[1, 1])
        steps = PackedSteps.of(batch)
        joint = torch.tensor(list(itertools.product(range(A), repeat=N)))  # [C, N] with C = A^N
        state = batch["state"][0]  # [1, S]

        values, _ = learner.controller.unroll_packed(batch, steps)  # [M, 1, N, A]
        states, maxima = state.expand(len(joint), -1), values.amax(-1).expand(-1, len(joint), -1)
        q = learner.mixer(chosen(values, joint), states, maxima, joint.unsqueeze(0))  # [M, C]
        best = greedy(values, batch["avail_actions"][0])[:, 0]  # [M, N]
        place = A ** torch.arange(N - 1, -1, -1)
        noted: dict[str, float] = {}
        for k in range(len(q)):
            noted |= self._named(f"{JOINT_Q}{k}_", q[k], N, A)
            noted[f"{GREEDY}{k}"] = float((best[k] * place).sum())
        if not isinstance(learner, QLearner) and learner.central is not None:
            utilities = learner.central.utilities(batch, steps)  # [1, N, A]
            noted |= self._named(Q_STAR, learner.central(utilities, joint.unsqueeze(1), state)[:, 0], N, A)
        experiment.logger.log(noted, experiment.progress.t_env)

    @staticmethod
    def _named(prefix: str, values: Tensor, n_agents: int, n_actions: int) -> dict[str, float]:
        names = joint_actions(n_agents, n_actions)
        return {f"{prefix}{name}": value for name, value in zip(names, values.flatten().tolist(), strict=True)}


class BehaviourWatcher(Watcher):
    """Also counts, at the end, what the team plays when it acts as in training, without learning any more.

    Metrics: ``behaviour_AB``, the share of ``BEHAVIOUR_EPISODES`` episodes in which the team chose (A,B).
    """

    def on_end(self, experiment: Experiment, result: Mapping[str, float] | None) -> None:
        if result is None:
            return
        counts = count_behaviour(experiment, BEHAVIOUR_EPISODES)
        spec = experiment.runner.spec
        names = joint_actions(spec.n_agents, spec.n_actions)
        noted = {
            f"{BEHAVIOUR}{name}": value
            for name, value in zip(names, (counts / counts.sum()).ravel().tolist(), strict=True)
        }
        experiment.logger.log(noted, experiment.progress.t_env)


def count_behaviour(experiment: Experiment, n_episodes: int) -> np.ndarray:
    """How often each joint action is chosen in at least ``n_episodes`` episodes of training: int ``[A, A]``."""
    spec = experiment.runner.spec
    counts = np.zeros([spec.n_actions] * spec.n_agents, dtype=np.int64)
    for _ in range(0, n_episodes, experiment.runner.n):
        batch = experiment.runner.run(experiment.learner.controller, experiment.progress.t_env).batch
        np.add.at(counts, tuple(batch["actions"][:, 0].T.numpy()), 1)
    return counts
