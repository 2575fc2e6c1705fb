"""Mixers: worked examples, monotonicity and IGM by enumeration."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shoal.modules.layers.stacked import copy_state_dict
from shoal.modules.mixers.central_mixer import CentralMixer, CentralMixerSettings
from shoal.modules.mixers.initial import MixerSettings
from shoal.modules.mixers.qmix import QMixer, QMixerSettings, mix
from shoal.modules.mixers.qplex import QPLEXMixer, QPLEXMixerSettings, attention_weights
from shoal.modules.mixers.vdn import VDNMixer

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
    mixer = QMixer(QMixerSettings(mixing_embed_dim=E, hypernet_embed=7), N, S, A, copies=2)
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


MIXERS = {"vdn": VDNMixer, "qmix": QMixer, "qplex": QPLEXMixer}
SIZES: dict[str, dict[str, int]] = {
    "vdn": {},
    "qmix": {"mixing_embed_dim": E, "hypernet_embed": 8},
    "qplex": {"num_kernel": 2, "hypernet_embed": 8, "adv_hypernet_embed": 8},
}


def make_mixer(name: str) -> Any:
    mixer = MIXERS[name]
    return mixer(mixer.Settings(**SIZES[name]), N, S, A, M)


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


def test_qplex_is_not_monotone_in_the_actions_but_bounded_by_the_greedy_one() -> None:
    """It can rank other joint actions in an order that no monotone mixer has: the attention reads the actions."""
    mixer = make_mixer("qplex")
    qs, state, maxima = torch.zeros(M, 50, N), torch.randn(50, S), torch.ones(M, 50, N)
    one, other = (mixer(qs, state, maxima, torch.full((1, 50, N), a)) for a in (0, 1))
    assert (one != other).float().mean() > 0.9  # same utilities, another joint action
    assert (one < mixer(maxima, state, maxima, torch.zeros(1, 50, N, dtype=torch.int64))).all()


def test_specified_qplex_table() -> None:
    """QPLEX's duplex dueling, a worked example with the networks' outputs put in by hand."""
    mixer = QPLEXMixer(QPLEXMixerSettings(), 2, 1, 2)
    weights = {"[0, 0]": [0.5, 2], "[0, 1]": [1.5, 0.25], "[1, 0]": [3, 0.1], "[1, 1]": [0.2, 4]}
    mixer._attention = lambda s, actions: torch.tensor([[weights[str(u.tolist())] for u in actions[0]]])
    mixer.hyper_w.forward = lambda s: torch.tensor([[[2.0, 0.5]]])
    mixer.hyper_b.forward = lambda s: torch.tensor([[[1.0, -1.0]]])
    joint = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    utilities = torch.tensor([[3.0, 1.0], [0.0, 4.0]])
    taken = torch.stack([utilities[i, joint[:, i]] for i in range(2)], -1).unsqueeze(0)
    table = mixer(taken, torch.zeros(4, 1), utilities.amax(-1).expand(1, 4, 2), joint.unsqueeze(0))
    close(table, torch.tensor([[4.0, 8.0, -4.2, 7.2]]))


def test_specified_qplex_head() -> None:
    """The attention weights of one of QPLEX's heads, a worked example."""
    key, agents, actions = torch.tensor([[-1.2]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[-1.0, 2.0]])
    close(attention_weights(key, agents, actions, dim=0), torch.tensor([0.1613648529, 0.7726971119]))


def test_specified_qplex_parameter_count() -> None:
    """On 5m_vs_6m, counted by hand from the layers."""
    mixer = QPLEXMixer(QPLEXMixerSettings(), n_agents=5, state_dim=98, n_actions=12)
    assert sum(p.numel() for p in mixer.parameters()) == 107_574


def test_qplex_is_the_network_of_the_specification() -> None:
    """Head by head, from the weights: every copy, with gradients through the utilities' own path alone."""
    mixer = make_mixer("qplex").double()
    qs, state, maxima = (torch.randn(*shape).double() for shape in ((M, 9, N), (9, S), (M, 9, N)))
    actions = torch.randint(A, (1, 9, N))
    one_hots = nn.functional.one_hot(actions[0], A).double().flatten(1)
    weights = mixer.state_dict()

    def net(name: str, row: int, x: Tensor) -> Tensor:
        for layer in (0, 2):
            x = nn.functional.linear(x, weights[f"{name}.{layer}.weight"][row], weights[f"{name}.{layer}.bias"][row])
            x = x.relu() if layer == 0 else x
        return x

    values = mixer(qs, state, maxima, actions)
    for k in range(M):
        w, b = net("hyper_w", k, state).abs() + 1e-10, net("hyper_b", k, state)
        attention = torch.zeros(9, N).double()
        for row in (2 * k, 2 * k + 1):
            key, agents = net("key", row, state).abs() + 1e-10, net("agents", row, state).sigmoid()
            attention += key * agents * net("actions", row, torch.cat([state, one_hots], 1)).sigmoid()
        v, advantage = w * maxima[k] + b, w * (qs[k] - maxima[k])
        close(values[k], (v + attention * advantage).sum(-1), rtol=0, atol=1e-10)

    qs.requires_grad_()
    (gradient,) = torch.autograd.grad(mixer(qs, state, maxima, actions).sum(), qs)
    close(gradient, mixer.hyper_w(state.unsqueeze(0)).abs() + 1e-10)  # advantages carry none


def test_qplex_candidates_of_one_mixer_share_its_state() -> None:
    mixer = QPLEXMixer(QPLEXMixerSettings(2, 8, 8), N, S, A)
    qs, state, maxima = torch.randn(4, 9, N), torch.randn(9, S), torch.randn(1, 9, N)
    actions = torch.randint(A, (4, 9, N))
    together = mixer(qs, state, maxima, actions)
    for c in range(4):
        close(together[c : c + 1], mixer(qs[c : c + 1], state, maxima, actions[c : c + 1]))


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


def test_qplex_weighs_values_and_advantages_as_specified() -> None:
    """A worked example: V_tot 2.4, A_tot -0.12, Q_tot 2.28."""

    class Says(nn.Module):
        def __init__(self, *values: float) -> None:
            super().__init__()
            self.values = torch.tensor([[values]])

        def forward(self, state: Tensor) -> Tensor:
            return self.values

    mixer = QPLEXMixer(QPLEXMixerSettings(), n_agents=2, state_dim=1, n_actions=2)
    mixer.hyper_w, mixer.hyper_b = Says(0.8, 0.6), Says(0.3, 0.1)
    state, actions = torch.zeros(1, 1), torch.zeros(1, 1, 2, dtype=torch.int64)
    qs, maxima = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.5, 2.0]]])
    for weights, total in (([1.0, 1.0], 2.4), ([1.3, 0.7], 2.28)):
        mixer._attention = lambda s, a, weights=weights: torch.tensor([[weights]])
        torch.testing.assert_close(mixer(qs, state, maxima, actions), torch.tensor([[total]]), rtol=0, atol=1e-6)


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
