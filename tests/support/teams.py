"""Sizes of small teams, the settings that pick each algorithm, and a controller's outputs for a batch."""

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict

from shoal.components.batch import PackedSteps
from shoal.components.spec import TeamSpec
from shoal.controllers.controller import Controller
from shoal.learners.learner import Learner

MakeLearner = Callable[..., Learner]
MakeBatch = Callable[..., TensorDict]
"""The fixtures ``make_learner`` and ``make_batch``."""

SPEC = TeamSpec(n_agents=3, n_actions=4, obs_dim=5, state_dim=6, episode_limit=6, discrete=True)

VECTORS = TeamSpec(n_agents=2, n_actions=2, obs_dim=5, state_dim=10, episode_limit=6, discrete=False)
"""Two agents with actions in [-1, 1]^2."""

OWN_VALUE = {"central_mac": None, "central_mixer": None}
"""S2Q without a central Q*."""

CADP = {"agent": "att_rnn", "att_heads": 2, "att_embed_dim": 4}

ALGORITHMS: dict[str, dict[str, Any]] = {
    "iql": {"learner": "q_learner", "mixer": None},
    "vdn": {"learner": "q_learner", "mixer": "vdn"},
    "qmix": {"learner": "q_learner", "mixer": "qmix"},
    "cw_qmix": {"learner": "wqmix_learner", "hysteretic_qmix": False},
    "ow_qmix": {"learner": "wqmix_learner", "hysteretic_qmix": True},
    "qplex": {"learner": "q_learner", "mixer": "qplex"},
    "vdn_cadp": {"learner": "q_learner", "mixer": "vdn", **CADP},
    "qmix_cadp": {"learner": "q_learner", "mixer": "qmix", **CADP},
    "qplex_cadp": {"learner": "q_learner", "mixer": "qplex", **CADP},
    "qmix_comm": {"learner": "q_learner", "mac": "comm_mac"},
    "qmix_mlp": {"learner": "q_learner", "agent": "mlp"},
    "qmix_comm_mlp": {"learner": "q_learner", "mac": "comm_mac", "agent": "mlp"},
    "ow_qmix_mlp": {"learner": "wqmix_learner", "agent": "mlp", "central_agent": "central_mlp"},
    "ow_qmix_cadp": {"learner": "wqmix_learner", **CADP},
    "s2q": {"learner": "s2q_learner", "mac": "s2q_mac"},
    "s2q_cadp": {"learner": "s2q_learner", "mac": "s2q_mac", **CADP},
    "s2q_comm": {"learner": "s2q_learner", "mac": "s2q_mac", "comm": True},
    "s2q_vdn": {"learner": "s2q_learner", "mac": "s2q_mac", "mixer": "vdn", **OWN_VALUE},
    "s2q_qmix": {"learner": "s2q_learner", "mac": "s2q_mac", "mixer": "qmix", **OWN_VALUE},
    "s2q_qplex": {"learner": "s2q_learner", "mac": "s2q_mac", "mixer": "qplex", **OWN_VALUE},
    "s2q_mlp": {"learner": "s2q_learner", "mac": "s2q_mac", "agent": "mlp", "central_agent": "central_mlp"},
    "lan": {"learner": "lan_learner"},
    "lan_mlp": {"learner": "lan_learner", "agent": "mlp"},
    "lan_cadp": {"learner": "lan_learner", **CADP},
    "lan_comm": {"learner": "lan_learner", "mac": "comm_mac"},
}


def unrolled(controller: Controller, batch: TensorDict) -> torch.Tensor:
    """The outputs of a controller of one copy for every step of a batch: ``[B, T+1, N, A]``, zeros in padding."""
    steps = PackedSteps.of(batch)
    return steps.unpack(controller.unroll_packed(batch, steps)[0])[0]
