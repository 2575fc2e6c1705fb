"""Encoder and decoder of the latent message."""

import torch

from shoal.modules.layers.latent import Decoder, Encoder

close = torch.testing.assert_close


def test_encoder_decoder_shapes_and_distribution() -> None:
    z = Encoder(history_dim=6, hidden_dim=8, latent_dim=2)(torch.randn(5, 7, 6))
    assert z.shape == (5, 7, 2)
    state_hat, log_p = Decoder(latent_dim=2, hidden_dim=8, state_dim=4, n_candidates=3)(z)
    assert state_hat.shape == (5, 7, 4)
    assert log_p.shape == (5, 7, 3)
    close(log_p.exp().sum(-1), torch.ones(5, 7))
    assert (state_hat < 0).any()  # no ReLU behind the heads
    assert Decoder(latent_dim=2, hidden_dim=8, state_dim=4, n_candidates=0)(z)[1] is None
