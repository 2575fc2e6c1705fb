"""QPLEX's mixer: worked examples, and the network head by head."""

import torch
from torch import Tensor, nn

from shoal.modules.mixers.qplex import QPLEXMixer, QPLEXMixerSettings, attention_weights
from support.mixers import A, M, N, S, make_mixer

close = torch.testing.assert_close


def test_qplex_is_not_monotone_in_the_actions_but_bounded_by_the_greedy_one() -> None:
    """It can rank other joint actions in an order that no monotone mixer has: the attention reads the actions."""
    mixer = make_mixer("qplex")
    qs, state, maxima = torch.zeros(M, 50, N), torch.randn(50, S), torch.ones(M, 50, N)
    one, other = (mixer(qs, state, maxima, torch.full((1, 50, N), a)) for a in (0, 1))
    assert (one != other).float().mean() > 0.9  # same utilities, another joint action
    assert (one < mixer(maxima, state, maxima, torch.zeros(1, 50, N, dtype=torch.int64))).all()


def test_joint_values_of_a_worked_example() -> None:
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


def test_attention_of_one_head() -> None:
    """The attention weights of one of QPLEX's heads, a worked example."""
    key, agents, actions = torch.tensor([[-1.2]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[-1.0, 2.0]])
    close(attention_weights(key, agents, actions, dim=0), torch.tensor([0.1613648529, 0.7726971119]))


def test_parameter_count() -> None:
    """On 5m_vs_6m, counted by hand from the layers."""
    mixer = QPLEXMixer(QPLEXMixerSettings(), n_agents=5, state_dim=98, n_actions=12)
    assert sum(p.numel() for p in mixer.parameters()) == 107_574


def test_qplex_is_the_network_of_the_paper() -> None:
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


def test_values_and_advantages_are_weighed_apart() -> None:
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
