"""What holds for every mixer: monotonicity and IGM by enumeration, copies, initial scale."""

from itertools import product

import pytest
import torch
from torch import nn

from shoal.modules.layers.stacked import copy_state_dict
from shoal.modules.mixers.central_mixer import CentralMixer, CentralMixerSettings
from shoal.modules.mixers.initial import MixerSettings
from shoal.modules.mixers.qmix import QMixer, QMixerSettings
from shoal.modules.mixers.qplex import QPLEXMixer, QPLEXMixerSettings
from support.mixers import SIZES, A, M, N, S, make_mixer

close = torch.testing.assert_close


def test_vdn_is_the_sum() -> None:
    qs = torch.randn(M, 6, N)
    close(make_mixer("vdn")(qs, torch.randn(6, S)), qs.sum(-1))
    assert not list(make_mixer("vdn").parameters())


@pytest.mark.parametrize("name", ["vdn", "qmix", "qplex"])
def test_individual_argmaxes_are_the_joint_argmax(name: str) -> None:
    """IGM of every copy, over all A^N joint actions of many random states."""
    mixer, B = make_mixer(name).double(), 200
    utilities, state = 3 * torch.randn(M, B, N, A).double(), torch.randn(B, S).double()
    joint = torch.tensor(list(product(range(A), repeat=N)))  # [A^N, N]
    taken = torch.stack([utilities[:, :, i, joint[:, i]] for i in range(N)], -1)  # [M, B, A^N, N]
    maxima = utilities.amax(-1).repeat_interleave(len(joint), 1)
    rows = state.repeat_interleave(len(joint), 0)
    values = mixer(taken.flatten(1, 2), rows, maxima, joint.repeat(B, 1).unsqueeze(0)).view(M, B, -1)
    assert torch.equal(joint[values.argmax(-1)], utilities.argmax(-1))


@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_monotone_in_every_utility(name: str) -> None:
    mixer = make_mixer(name)
    qs = (3 * torch.randn(M, 100, N)).requires_grad_()
    (grad,) = torch.autograd.grad(mixer(qs, torch.randn(100, S)).sum(), qs)
    assert (grad >= 0).all()
    assert (grad > 0).float().mean() > 0.99


@pytest.mark.parametrize("name", ["qmix", "qplex"])
def test_copies_do_not_touch_one_another(name: str) -> None:
    mixer = make_mixer(name)
    qs, state = torch.randn(M, 20, N, requires_grad=True), torch.randn(20, S)
    mixer(qs, state, torch.randn(M, 20, N), torch.randint(A, (1, 20, N)))[1].sum().backward()
    for tensor in [qs, *mixer.parameters()]:
        first, second, third = tensor.grad.chunk(M)
        assert second.any()
        assert not first.any()
        assert not third.any()


@pytest.mark.parametrize("name", ["vdn", "qmix", "qplex"])
def test_a_copy_alone_is_a_mixer(name: str) -> None:
    mixer = make_mixer(name)
    alone = type(mixer)(mixer.Settings(**SIZES[name]), N, S, A)
    alone.load_state_dict(copy_state_dict(mixer, 2))
    qs, state, maxima = torch.randn(M, 9, N), torch.randn(9, S), torch.randn(M, 9, N)
    actions = torch.randint(A, (1, 9, N))
    close(alone(qs[2:], state, maxima[2:], actions), mixer(qs, state, maxima, actions)[2:])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_hypernetworks_have_the_layers_asked_for(layers: int) -> None:
    qmix = QMixer(QMixerSettings(hypernet_layers=layers), N, S, A)
    qplex = QPLEXMixer(QPLEXMixerSettings(adv_hypernet_layers=layers), N, S, A)
    for hypernet in (qmix.hyper_w1, qmix.hyper_w2, qplex.key, qplex.agents, qplex.actions):
        assert sum(isinstance(layer, nn.ReLU) for layer in hypernet) == layers - 1
        assert len(hypernet) == 2 * layers - 1


def test_hypernetworks_without_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="hypernet_layers=0"):
        QMixerSettings(hypernet_layers=0)
    with pytest.raises(ValueError, match="adv_hypernet_layers=0"):
        QPLEXMixerSettings(adv_hypernet_layers=0)


def initial(mixer: str, copies: int, **settings: float) -> nn.Module:
    """A fresh mixer, from the same random numbers each time."""
    torch.manual_seed(4)
    if mixer == "ff":
        return CentralMixer(CentralMixerSettings(**settings), N, S)
    chosen = {"qmix": (QMixer, QMixerSettings), "qplex": (QPLEXMixer, QPLEXMixerSettings)}[mixer]
    return chosen[0](chosen[1](**settings), N, S, A, copies)


@pytest.mark.parametrize(("mixer", "copies"), [("ff", 1), ("qmix", 1), ("qmix", M), ("qplex", 1), ("qplex", M)])
def test_mixers_start_at_a_fraction_of_their_scale(mixer: str, copies: int) -> None:
    """Every weight and bias, of every copy; what a fresh mixer makes of a state far from 1 then is small."""
    usual, small = initial(mixer, copies), initial(mixer, copies, mixer_init_scale=0.001)
    for (name, theirs), ours in zip(usual.named_parameters(), small.parameters(), strict=True):
        close(ours, theirs * 0.001, rtol=0, atol=0, msg=name)
    qs, state = torch.ones(copies, 7, N), torch.full((7, S), -45.0)
    more = () if mixer == "ff" else (qs, torch.zeros(1, 7, N, dtype=torch.int64))
    assert usual(qs, state, *more).abs().max() > 1
    assert small(qs, state, *more).abs().max() < 0.1


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_no_mixer_can_start_at_is_refused(scale: float) -> None:
    for settings in (QMixerSettings, QPLEXMixerSettings, CentralMixerSettings, MixerSettings):
        with pytest.raises(ValueError, match=f"mixer_init_scale={scale} is out of range"):
            settings(mixer_init_scale=scale)
