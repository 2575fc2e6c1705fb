"""Mixers: the specification's numbers (s2q.md 8.4), monotonicity and IGM by enumeration."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from shoal.modules.mixers.central import CentralMixer, CentralMixerSettings
from shoal.modules.mixers.qmix import QMixer, QMixerSettings, mix
from shoal.modules.mixers.vdn import VDNMixer, VDNMixerSettings

close = torch.testing.assert_close
M, N, A, S, E = 3, 3, 4, 5, 6

W1, B1 = torch.tensor([[1.0, 0.5], [0.25, 2.0]]), torch.tensor([0.1, -0.2])
W2, B2 = torch.tensor([0.5, 1.5]), torch.tensor(0.3)


def test_specified_value_and_gradient() -> None:
    q = torch.tensor([1.0, -2.0], requires_grad=True)
    q_tot = mix(q, W1, B1, W2, B2)
    q_tot.backward()
    close(q_tot, torch.tensor(-0.8629147103))
    close(q.grad, torch.tensor([0.5185426449, 0.1991705794]))


def test_specified_table() -> None:
    utilities = torch.tensor([[3.0, 1.0], [0.0, 4.0]])
    table = torch.tensor([[mix(torch.stack([a, b]), W1, B1, W2, B2) for b in utilities[1]] for a in utilities[0]])
    close(table, torch.tensor([[3.8, 16.3], [1.3, 13.8]]))


def test_qmix_is_the_network_of_the_paper() -> None:
    mixer = QMixer(QMixerSettings(mixing_embed_dim=E, hypernet_embed=7), N, S, copies=2)
    qs, state = torch.randn(2, 9, N), torch.randn(9, S)
    weights = mixer.state_dict()

    def layer(name: str, k: int, x: Tensor) -> Tensor:
        return nn.functional.linear(x, weights[f"{name}.weight"][k], weights[f"{name}.bias"][k])

    for k in range(2):
        w1 = layer("hyper_w1.2", k, layer("hyper_w1.0", k, state).relu()).abs().view(9, N, E)
        w2 = layer("hyper_w2.2", k, layer("hyper_w2.0", k, state).relu()).abs()
        b1 = layer("hyper_b1", k, state)
        b2 = layer("hyper_b2.2", k, layer("hyper_b2.0", k, state).relu())
        hidden = nn.functional.elu(torch.einsum("rn,rne->re", qs[k], w1) + b1)
        close(mixer(qs, state)[k], (hidden * w2).sum(-1) + b2[:, 0])


def make_mixer(name: str) -> nn.Module:
    if name == "vdn":
        return VDNMixer(VDNMixerSettings(), N, S, M)
    return QMixer(QMixerSettings(mixing_embed_dim=E, hypernet_embed=8), N, S, M)


def test_vdn_is_the_sum() -> None:
    qs = torch.randn(M, 6, N)
    close(make_mixer("vdn")(qs, torch.randn(6, S)), qs.sum(-1))
    assert not list(make_mixer("vdn").parameters())


@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_individual_argmaxes_are_the_joint_argmax(name: str) -> None:
    """IGM of every copy, over all A^N joint actions of many random states."""
    mixer, B = make_mixer(name), 40
    utilities, state = 3 * torch.randn(M, B, N, A), torch.randn(B, S)
    joint = torch.tensor(list(product(range(A), repeat=N)))  # [A^N, N]
    taken = torch.stack([utilities[:, :, i, joint[:, i]] for i in range(N)], -1)  # [M, B, A^N, N]
    values = mixer(taken.flatten(1, 2), state.repeat_interleave(len(joint), 0)).view(M, B, -1)
    assert torch.equal(joint[values.argmax(-1)], utilities.argmax(-1))


@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_monotone_in_every_utility(name: str) -> None:
    mixer = make_mixer(name)
    qs = (3 * torch.randn(M, 100, N)).requires_grad_()
    (grad,) = torch.autograd.grad(mixer(qs, torch.randn(100, S)).sum(), qs)
    assert (grad >= 0).all()
    assert (grad > 0).float().mean() > 0.99


def test_copies_do_not_touch_one_another() -> None:
    mixer = make_mixer("qmix")
    qs, state = torch.randn(M, 20, N, requires_grad=True), torch.randn(20, S)
    mixer(qs, state)[1].sum().backward()
    for tensor in [qs, *mixer.parameters()]:
        assert tensor.grad[1].any()
        assert not tensor.grad[[0, 2]].any()


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
