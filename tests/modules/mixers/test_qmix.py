"""QMIX's mixer: a worked example, and the network layer by layer."""

import torch
from torch import Tensor, nn

from shoal.modules.mixers.qmix import QMixer, QMixerSettings, mix
from support.mixers import A, E, N, S

close = torch.testing.assert_close
W1, B1 = torch.tensor([[1.0, 0.5], [0.25, 2.0]]), torch.tensor([0.1, -0.2])
W2, B2 = torch.tensor([0.5, 1.5]), torch.tensor(0.3)


def test_value_and_gradient_of_a_worked_example() -> None:
    q = torch.tensor([1.0, -2.0], requires_grad=True)
    q_tot = mix(q, W1, B1, W2, B2)
    q_tot.backward()
    close(q_tot, torch.tensor(-0.8629147103))
    close(q.grad, torch.tensor([0.5185426449, 0.1991705794]))


def test_joint_values_of_a_worked_example() -> None:
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
