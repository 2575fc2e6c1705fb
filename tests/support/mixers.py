"""Small mixers of every kind."""

from typing import Any

from shoal.modules.mixers.qmix import QMixer
from shoal.modules.mixers.qplex import QPLEXMixer
from shoal.modules.mixers.vdn import VDNMixer

M, N, A, S, E = 3, 3, 4, 5, 6
MIXERS = {"vdn": VDNMixer, "qmix": QMixer, "qplex": QPLEXMixer}
SIZES: dict[str, dict[str, int]] = {
    "vdn": {},
    "qmix": {"mixing_embed_dim": E, "hypernet_embed": 8},
    "qplex": {"num_kernel": 2, "hypernet_embed": 8, "adv_hypernet_embed": 8},
}


def make_mixer(name: str) -> Any:
    mixer = MIXERS[name]
    return mixer(mixer.Settings(**SIZES[name]), N, S, A, M)
