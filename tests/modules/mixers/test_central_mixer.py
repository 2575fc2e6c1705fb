"""The mixer of the central Q*."""

import torch

from shoal.modules.mixers.central_mixer import CentralMixer, CentralMixerSettings
from support.mixers import M, N, S

close = torch.testing.assert_close


def test_central_mixer_reads_state_and_utilities_together() -> None:
    """Sharing the state's part between candidates changes nothing: f(s, q) + V(s)."""
    central = CentralMixer(CentralMixerSettings(central_mixing_embed_dim=8), N, S).double()
    qs, state = torch.randn(M, 20, N).double(), torch.randn(20, S).double()
    values = central(qs, state)
    assert values.shape == (M, 20)
    for k in range(M):
        plain = central.rest(central.first(torch.cat([state, qs[k]], -1)).relu()) + central.state_value(state)
        close(values[k], plain.view(20), rtol=0, atol=1e-12)


def test_central_mixer_is_not_monotone() -> None:
    central = CentralMixer(CentralMixerSettings(central_mixing_embed_dim=16), N, S)
    qs = torch.randn(1, 100, N, requires_grad=True)
    (grad,) = torch.autograd.grad(central(qs, torch.randn(100, S)).sum(), qs)
    assert (grad < 0).any()
    assert (grad > 0).any()
