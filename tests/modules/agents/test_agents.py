"""The recurrent and the feed-forward agent: copies against separate networks, and against plain PyTorch modules."""

import pytest
import torch
from torch import Tensor, nn

from shoal.modules.agents.mlp import MLPAgent, MLPAgentSettings
from shoal.modules.agents.rnn import RNNAgent, RNNAgentSettings
from shoal.modules.layers.stacked import copy_state_dict
from shoal.modules.mixers.qmix import QMixer, QMixerSettings

close = torch.testing.assert_close
M, N, D, A, H, S = 3, 2, 5, 3, 6, 4
COUNTS = [3, 2, 2, 1]  # teams still running at each step
P, B = sum(COUNTS), COUNTS[0]


def make_agent(copies: int) -> RNNAgent:
    return RNNAgent(RNNAgentSettings(rnn_hidden_dim=H), D, A, copies).double()


def test_equals_linear_relu_gru_linear() -> None:
    agent = make_agent(1)
    fc_in, rnn, fc_out = nn.Linear(D, H).double(), nn.GRUCell(H, H).double(), nn.Linear(H, A).double()
    for plain, ours in ((fc_in, agent.fc_in), (rnn, agent.rnn), (fc_out, agent.fc_out)):
        plain.load_state_dict({name: tensor[0] for name, tensor in ours.state_dict().items()})
    inputs, h = torch.randn(P, N, D).double(), torch.zeros(B, N, H).double()
    outputs, states = agent(inputs, agent.initial_hidden(B, N), COUNTS)
    assert outputs.shape == (1, P, N, A)
    assert states.shape == (1, P, N, H)
    steps = zip(COUNTS, *(tensor.split(COUNTS) for tensor in (inputs, outputs[0], states[0])), strict=True)
    for running, x, output, state in steps:
        h = rnn(fc_in(x).relu().view(-1, H), h[:running].view(-1, H)).view(running, N, H)
        close(state, h, rtol=0, atol=1e-12)
        close(output, fc_out(h), rtol=0, atol=1e-12)


def test_sequence_may_be_cut_anywhere() -> None:
    agent = make_agent(M)
    inputs = torch.randn(P, N, D).double()
    whole, _ = agent(inputs, agent.initial_hidden(B, N), COUNTS)
    cut = sum(COUNTS[:2])
    first, states = agent(inputs[:cut], agent.initial_hidden(B, N), COUNTS[:2])
    second, _ = agent(inputs[cut:], states[:, -COUNTS[1] :][:, : COUNTS[2]], COUNTS[2:])
    close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)


def test_copies_equal_separate_agents_and_mixers() -> None:
    """Forward, loss and gradients of the M sub-values."""
    settings = QMixerSettings(mixing_embed_dim=4, hypernet_embed=5)
    agent, mixer = make_agent(M), QMixer(settings, N, S, A, M).double()
    inputs, state = torch.randn(P, N, D).double(), torch.randn(P, S).double()
    actions, targets = torch.randint(A, (P, N, 1)), torch.randn(M, P).double()

    def loss(agent: RNNAgent, mixer: QMixer, y: Tensor) -> Tensor:
        outputs, _ = agent(inputs, agent.initial_hidden(B, N), COUNTS)
        taken = outputs.gather(-1, actions.expand(agent.copies, -1, -1, -1)).squeeze(-1)
        return (mixer(taken, state) - y).square().sum(1)

    together = loss(agent, mixer, targets)
    together.sum().backward()
    for k in range(M):
        own_agent, own_mixer = make_agent(1), QMixer(settings, N, S, A, 1).double()
        own_agent.load_state_dict(copy_state_dict(agent, k))
        own_mixer.load_state_dict(copy_state_dict(mixer, k))
        own = loss(own_agent, own_mixer, targets[k : k + 1])
        own.sum().backward()
        close(together[k : k + 1], own, rtol=0, atol=1e-10)
        for stacked, single in ((agent, own_agent), (mixer, own_mixer)):
            for (name, p), q in zip(stacked.named_parameters(), single.parameters(), strict=True):
                assert q.grad.any(), name
                close(p.grad[k : k + 1], q.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_feed_forward_agent_is_a_multilayer_perceptron_without_memory(layers: int) -> None:
    agent = MLPAgent(MLPAgentSettings(rnn_hidden_dim=H, mlp_layers=layers), D, A, M)
    inputs = torch.randn(P, N, D)
    outputs, features = agent(inputs, agent.initial_hidden(B, N), COUNTS)
    assert outputs.shape == (M, P, N, A)
    assert features.shape == (M, P, N, H)
    for k in range(M):
        weights, x = copy_state_dict(agent, k), inputs
        for i in range(layers):
            x = nn.functional.linear(x, weights[f"body.{2 * i}.weight"][0], weights[f"body.{2 * i}.bias"][0]).relu()
        close(features[k], x)
        close(outputs[k], nn.functional.linear(x, weights["fc_out.weight"][0], weights["fc_out.bias"][0]))
    anything, _ = agent(inputs, torch.randn(M, B, N, H), COUNTS)
    close(anything, outputs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["rnn_hidden_dim", "mlp_layers"])
def test_widths_and_layers_are_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0 is out of range"):
        MLPAgentSettings(**{name: 0})
