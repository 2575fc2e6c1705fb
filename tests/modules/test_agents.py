"""The recurrent agent: copies against separate networks, and against plain PyTorch modules."""

import torch
from torch import Tensor, nn

from shoal.modules.agents.rnn import RNNAgent, RNNAgentSettings
from shoal.modules.layers.stacked import copy_state_dict
from shoal.modules.mixers.qmix import QMixer, QMixerSettings

close = torch.testing.assert_close
M, T, B, N, D, A, H, S = 3, 4, 2, 2, 5, 3, 6, 4


def make_agent(copies: int) -> RNNAgent:
    return RNNAgent(RNNAgentSettings(rnn_hidden_dim=H), D, A, copies).double()


def test_equals_linear_relu_gru_linear() -> None:
    agent = make_agent(1)
    fc_in, rnn, fc_out = nn.Linear(D, H).double(), nn.GRUCell(H, H).double(), nn.Linear(H, A).double()
    for plain, ours in ((fc_in, agent.fc_in), (rnn, agent.rnn), (fc_out, agent.fc_out)):
        plain.load_state_dict({name: tensor[0] for name, tensor in ours.state_dict().items()})
    inputs, h = torch.randn(T, B, N, D).double(), torch.zeros(B * N, H).double()
    outputs, states = agent(inputs, agent.initial_hidden(B, N))
    for t in range(T):
        h = rnn(fc_in(inputs[t].view(B * N, D)).relu(), h)
        close(states[0, t].view(B * N, H), h, rtol=0, atol=1e-12)
        close(outputs[0, t].view(B * N, A), fc_out(h), rtol=0, atol=1e-12)


def test_sequence_may_be_cut_anywhere() -> None:
    agent = make_agent(M)
    inputs = torch.randn(T, B, N, D).double()
    whole, states = agent(inputs, agent.initial_hidden(B, N))
    first, middle = agent(inputs[:2], agent.initial_hidden(B, N))
    second, _ = agent(inputs[2:], middle[:, -1])
    close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)
    assert states.shape == (M, T, B, N, H)


def test_copies_equal_separate_agents_and_mixers() -> None:
    """s2q.md 12, item 2: forward, loss and gradients of the M sub-values."""
    agent, mixer = make_agent(M), QMixer(QMixerSettings(4, 5), N, S, M).double()
    inputs, state = torch.randn(T, B, N, D).double(), torch.randn(B, T, S).double()
    actions = torch.randint(A, (T, B, N, 1))
    targets = torch.randn(M, B, T).double()

    def loss(agent: RNNAgent, mixer: QMixer, y: Tensor) -> Tensor:
        copies = agent.copies
        outputs, _ = agent(inputs, agent.initial_hidden(B, N))
        taken = outputs.gather(-1, actions.expand(copies, -1, -1, -1, -1)).squeeze(-1).transpose(1, 2)
        return (mixer(taken, state) - y).square().sum((1, 2))

    together = loss(agent, mixer, targets)
    together.sum().backward()
    for k in range(M):
        own_agent, own_mixer = make_agent(1), QMixer(QMixerSettings(4, 5), N, S, 1).double()
        own_agent.load_state_dict(copy_state_dict(agent, k))
        own_mixer.load_state_dict(copy_state_dict(mixer, k))
        own = loss(own_agent, own_mixer, targets[k : k + 1])
        own.sum().backward()
        close(together[k : k + 1], own, rtol=0, atol=1e-10)
        for stacked, single in ((agent, own_agent), (mixer, own_mixer)):
            for (name, p), q in zip(stacked.named_parameters(), single.parameters(), strict=True):
                assert q.grad.any(), name
                close(p.grad[k : k + 1], q.grad, rtol=0, atol=1e-10)
