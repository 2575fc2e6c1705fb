"""Every member of LAN's family: an environment's sizes and the settings of small networks."""

from typing import Any

import pytest

from shoal.components.spec import TeamSpec
from support.teams import SPEC, VECTORS

LAN = {"learner": "lan_learner", "td_lambda": 0, "value_embed_dim": 8, "value_hidden_dims": [8]}
MQ = {**LAN, "mac": "mq_mac", "mq_k": 12, "mq_head_dim": 8, "mq_manage_interval": 3, "mq_chunk": 8}
QF = {**LAN, "mac": "qf_mac", "qf_rank": 3, "qf_samples": 20, "qf_test_samples": 20, "qf_pool": 200}
KINDS: dict[str, tuple[TeamSpec, dict[str, Any]]] = {
    "lan": (SPEC, LAN),
    "qf_lan": (VECTORS, QF),
    "mq_lan": (VECTORS, MQ),
    "mq_lan_one_critic": (VECTORS, {**MQ, "mq_double_critic": False}),
    "mq_lan_shared": (VECTORS, {**MQ, "mq_codebook": "shared"}),
    "mq_lan_stable": (VECTORS, {**MQ, "mq_copies": 0.25}),
    "mq_lan_evolution": (VECTORS, {**MQ, "mq_grad": False, "mq_proximity": False, "mq_spawn": "random"}),
}
MORTAL = TeamSpec(3, 4, 5, 6, 6, discrete=True, has_alive=True)

each_kind = pytest.mark.parametrize("kind", [KINDS[name] for name in sorted(KINDS)], ids=sorted(KINDS))
"""Runs a test once for each member, which it takes as ``kind``."""
