"""CADP's agent: worked examples of the paper's equations 1 to 3, its two models, and bugs of the release."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shoal.modules.agents.cadp import CADPAgent, CADPAgentSettings, advice_logits, advise, pruning_loss
from shoal.modules.layers.stacked import copy_state_dict

close = torch.testing.assert_close
COUNTS = [3, 2, 2, 1]  # teams still running at each step
P, B = sum(COUNTS), COUNTS[0]
N, D, A, H = 3, 5, 4, 6
SMALL = {"rnn_hidden_dim": H, "att_heads": 2, "att_embed_dim": 3}
FUSIONS = ["late", "early"]


def make_agent(copies: int = 1, **settings: Any) -> CADPAgent:
    return CADPAgent(CADPAgentSettings(**SMALL | settings), D, A, copies).double()


def packed(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


# CADP, equation 1: one head, three agents.

Q = torch.tensor([[1.0, 0], [0, 2], [1, 1]], dtype=torch.float64)
K = torch.tensor([[1.0, 1], [2, 0], [0, 1]], dtype=torch.float64)
V = torch.tensor([[1.0, 2], [3, 4], [5, 6]], dtype=torch.float64)


def table(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def assert_table(ours: Tensor, *rows: list[float]) -> None:
    close(ours.squeeze(), table(*rows).squeeze(), rtol=0, atol=1e-6)


def test_confidence_and_advice_of_a_worked_example() -> None:
    alpha = advice_logits(Q[None, None], K[None, None])  # [P, heads, N, N]
    assert_table(alpha, [0.707107, 1.414214, 0], [1.414214, 0, 1.414214], [1.414214, 1.414214, 0.707107])
    c = alpha.softmax(-1)
    assert_table(c, [0.283995, 0.575975, 0.140029], [0.445808, 0.108383, 0.445808], [0.401112, 0.401112, 0.197776])
    assert_table(advise(c[None], V[None]), [2.712068, 3.712068], [3, 4], [2.593327, 3.593327])


def test_pruning_loss_and_gradient_of_a_worked_example() -> None:
    alpha = advice_logits(Q[None, None], K[None, None]).requires_grad_()
    paper = pruning_loss(alpha, "sum")
    close(paper.item(), 5.101498, rtol=0, atol=1e-6)
    close(pruning_loss(alpha).item(), 0.566833, rtol=0, atol=1e-6)
    paper.backward()
    assert alpha.grad is not None
    assert_table(
        alpha.grad, [-0.716005, 0.575975, 0.140029], [0.445808, -0.891617, 0.445808], [0.401112, 0.401112, -0.802224]
    )


def test_dead_agent_of_a_worked_example() -> None:
    alive = torch.tensor([[True, True, False]])
    alpha = advice_logits(Q[None, None], K[None, None], alive)
    c = alpha.softmax(-1)
    assert_table(c[..., :2, :], [0.330238, 0.669762, 0], [0.804430, 0.195570, 0])
    assert c[0, 0, 2, 2] > 0  # the dead still hear themselves: no empty row
    assert_table(advise(c[None], V[None])[..., :2, :], [2.339523, 3.339523], [1.391141, 2.391141])
    close(pruning_loss(alpha, "sum", alive).item(), 2.739776, rtol=0, atol=1e-6)
    close(pruning_loss(alpha, "mean", alive).item(), 0.304420, rtol=0, atol=1e-6)


# CADP, equation 3: the pruning loss of given confidences, whose logarithms are logits.

GIVEN = table([0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4])
UNIFORM = torch.full((3, 3), 1 / 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("heads", "mean", "total"),
    [
        ([GIVEN], 0.203620, 1.832581),
        ([GIVEN, UNIFORM], 0.284912, 2.564209),
        ([torch.full((5, 5), 0.2, dtype=torch.float64)], 0.321888, 8.047190),
    ],
)
def test_losses_of_a_worked_example(heads: list[Tensor], mean: float, total: float) -> None:
    logits = torch.stack(heads).log()
    close(pruning_loss(logits).item(), mean, rtol=0, atol=1e-6)
    close(pruning_loss(logits, "sum").item(), total, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certainty_costs_exactly_nothing(dtype: torch.dtype) -> None:
    """Not even the -3e-8 that log(c + 1e-8) makes of it."""
    assert pruning_loss(800.0 * torch.eye(3, dtype=dtype)[None]).item() == 0.0


def test_gradient_is_full_where_confidence_has_vanished() -> None:
    """Bug D10 of the release: log(c + 1e-8) has a gradient of -4.7e-6 here."""
    logits = torch.zeros(1, 3, 3, dtype=torch.float64)
    logits[0, 0, 0] = -30.0
    logits.requires_grad_()
    loss = pruning_loss(logits, "sum")
    close(loss.item() - 2 * math.log(3), 30.693147, rtol=0, atol=1e-6)
    loss.backward()
    assert logits.grad is not None
    close(logits.grad[0, 0], table([-1.0, 0.5, 0.5])[0], rtol=0, atol=1e-6)


# CADP, equations 1 and 2: whole agents with given weights.

LATE = [
    ([0.026100, -0.093122, 0.092143], [0.001476, -0.046987, -0.022569]),
    ([0.046080, -0.148233, 0.084060], [0.004649, -0.087113, -0.042799]),
]
"""States, which do not depend on the model."""
LATE_C = [
    ([0.487285, -0.510101], [0.458259, -0.488995]),
    ([0.461154, -0.490994], [0.459250, -0.490269]),
]
LATE_D = [
    ([0.510520, -0.527458], [0.471222, -0.498394]),
    ([0.459708, -0.489946], [0.468316, -0.496845]),
]
CONFIDENCE = [  # time, head
    [([0.838673, 0.161327], [0.226172, 0.773828]), ([0.830545, 0.169455], [0.244780, 0.755220])],
    [([0.557714, 0.442286], [0.292654, 0.707346]), ([0.570724, 0.429276], [0.299239, 0.700761])],
]
EARLY_C = [
    ([1.035381, 0.377072], [1.007205, 0.357191]),
    ([1.024413, 0.373713], [0.994438, 0.351218]),
]
EARLY_C_STATES = [
    ([-0.000601, -0.041488, 0.094862], [0.042616, -0.098089, -0.021423]),
    ([0.013695, -0.094367, 0.087577], [0.073278, -0.170312, -0.034625]),
]
EARLY_D = [
    ([1.039740, 0.378974], [1.011453, 0.359172]),
    ([1.027643, 0.374938], [1.000720, 0.353804]),
]
EARLY_D_STATES = [
    ([-0.012140, -0.013603, 0.096998], [0.038084, -0.085139, -0.011272]),
    ([0.005705, -0.073304, 0.088034], [0.067086, -0.149360, -0.022269]),
]


def example_agent(fusion: str) -> CADPAgent:
    """Tensor j, entry k: 0.4 cos(0.9 j + 0.7 k) + 0.15, with tensors counted in the order below."""
    settings = CADPAgentSettings(rnn_hidden_dim=3, att_heads=2, att_embed_dim=2, cadp_fusion=fusion)  # type: ignore[arg-type]
    agent = CADPAgent(settings, 3, 2).double()
    assert agent.query_key is not None
    queries, keys = agent.query_key.weight[0].chunk(2)
    rnn, linears = agent.rnn, [layer for layer in agent.head if not isinstance(layer, nn.ReLU)]
    order: list[Any] = [agent.fc_in.weight, agent.fc_in.bias]
    order += [rnn.weight_ih, rnn.weight_hh, rnn.bias_ih, rnn.bias_hh, keys, queries]
    order += [agent.value.weight, agent.fc_message.weight, agent.fc_message.bias]
    order += [parameter for layer in linears for parameter in (layer.weight, layer.bias)]
    with torch.no_grad():
        for j, tensor in enumerate(order):
            k = torch.arange(tensor.numel(), dtype=torch.float64)
            tensor.copy_((0.4 * torch.cos(0.9 * j + 0.7 * k) + 0.15).view_as(tensor))
    return agent


def example_inputs() -> Tensor:
    t, n, e = (torch.arange(size, dtype=torch.float64) for size in (2, 2, 3))
    return torch.cos(t[:, None, None] + 2 * n[:, None] + 0.5 * e)  # [P, N, E]: one team, two steps


@pytest.mark.parametrize(
    ("fusion", "centralised", "values", "states"),
    [
        ("late", True, LATE_C, LATE),
        ("late", False, LATE_D, LATE),
        ("early", True, EARLY_C, EARLY_C_STATES),
        ("early", False, EARLY_D, EARLY_D_STATES),
    ],
)
def test_agents_of_a_worked_example(fusion: str, centralised: bool, values: Any, states: Any) -> None:
    agent = example_agent(fusion)
    agent = agent if centralised else agent.decentralised()
    q, h = agent(example_inputs(), agent.initial_hidden(1, 2), [1, 1])
    close(q[0], torch.tensor(values, dtype=torch.float64), rtol=0, atol=1e-6)
    close(h[0], torch.tensor(states, dtype=torch.float64), rtol=0, atol=1e-6)


def test_confidences_and_losses_of_a_worked_example() -> None:
    agent = example_agent("late")
    logits = agent.logits(example_inputs(), None)[0]
    close(logits.softmax(-1), torch.tensor(CONFIDENCE, dtype=torch.float64), rtol=0, atol=1e-6)
    close(pruning_loss(logits), table([0.112345, 0.230823])[0], rtol=0, atol=1e-6)
    close(pruning_loss(logits, "sum"), table([0.449380, 0.923292])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_both_models_are_one_function_where_everyone_heeds_itself_alone(fusion: str) -> None:
    """In float32: unit i of every head reads id entry i with weight 30."""
    settings = CADPAgentSettings(att_heads=4, att_embed_dim=32, cadp_fusion=fusion)  # type: ignore[arg-type]
    agent = CADPAgent(settings, D + N, A)
    assert agent.query_key is not None
    with torch.no_grad():
        weight = agent.query_key.weight.zero_().view(2, 4, 32, D + N)
        for i in range(N):
            weight[:, :, i, D + i] = 30.0
    inputs = torch.cat([torch.randn(P, N, D), torch.eye(N).expand(P, -1, -1)], -1)
    logits = agent.logits(inputs, None)
    assert torch.equal(logits.softmax(-1), torch.eye(N).expand_as(logits))
    assert pruning_loss(logits).abs().max() == 0
    ours, theirs = (one(inputs, one.initial_hidden(B, N), COUNTS) for one in (agent, agent.decentralised()))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def test_number_of_parameters() -> None:
    agent = CADPAgent(CADPAgentSettings(), input_dim=72, output_dim=12)
    assert sum(p.numel() for p in agent.parameters()) == 78_732


# The network, layer by layer.


@pytest.mark.parametrize("fusion", FUSIONS)
def test_equals_a_plain_loop_over_steps(fusion: str) -> None:
    """Loops over steps and agents of plain linear layers and a GRU cell, episodes ending one after another."""
    agent = make_agent(cadp_fusion=fusion)
    assert agent.query_key is not None
    cell = nn.GRUCell(agent.rnn.weight_ih.shape[-1], H).double()
    cell.load_state_dict({name: tensor[0] for name, tensor in agent.rnn.state_dict().items()})
    queries, keys = agent.query_key.weight[0].chunk(2)
    inputs, h = packed(P, N, D), torch.zeros(B, N, H, dtype=torch.float64)
    outputs, states = agent(inputs, agent.initial_hidden(B, N), COUNTS)
    steps = zip(COUNTS, *(tensor.split(COUNTS) for tensor in (inputs, outputs[0], states[0])), strict=True)
    for running, x, output, state in steps:
        for b in range(running):
            z = torch.zeros(N, 6, dtype=torch.float64)
            for head in range(2):
                rows = slice(3 * head, 3 * head + 3)
                q, k, v = (x[b] @ weight[rows].T for weight in (queries, keys, agent.value.weight[0]))
                for i in range(N):
                    c = torch.stack([q[i] @ k[j] / math.sqrt(3) for j in range(N)]).softmax(0)
                    z[i, rows] = sum(c[j] * v[j] for j in range(N))
            message = agent.fc_message(z[None])[0].relu()
            embedded = agent.fc_in(x[b][None])[0].relu()
            now = cell(embedded if fusion == "late" else torch.cat([message, embedded], -1), h[b])
            h = h.index_copy(0, torch.tensor([b]), now[None])
            close(state[b], now, rtol=0, atol=1e-12)
            u = torch.cat([now, message], -1) if fusion == "late" else now
            close(output[b], agent.head(u[None])[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_sequence_may_be_cut_anywhere(fusion: str) -> None:
    """A whole batch at once (training) and step after step (acting) are the same, with the dead masked too."""
    agent = make_agent(2, cadp_fusion=fusion, att_mask_dead=True)
    inputs, alive = packed(P, N, D), torch.rand(P, N) < 0.7
    whole, _ = agent(inputs, agent.initial_hidden(B, N), COUNTS, alive)
    hidden, outputs = agent.initial_hidden(B, N), []
    for x, living in zip(inputs.split(COUNTS), alive.split(COUNTS), strict=True):
        out, hidden = agent(x, hidden[:, : len(x)], [len(x)], living)
        outputs.append(out)
    close(torch.cat(outputs, 1), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_copies_equal_separate_agents(fusion: str) -> None:
    agent, inputs, acted = make_agent(3, cadp_fusion=fusion, breakpoint=0), packed(P, N, D), torch.tensor([0, 1, 3, 4])

    def total(one: CADPAgent) -> Tensor:
        outputs, _, losses = one.forward_with_losses(inputs, one.initial_hidden(B, N), COUNTS, None, acted, 1)
        return outputs.square().sum() + losses["loss_pruning"]

    together = total(agent)
    together.backward()
    apart = torch.zeros(())
    for k in range(3):
        own = make_agent(cadp_fusion=fusion, breakpoint=0)
        own.load_state_dict(copy_state_dict(agent, k))
        loss = total(own)
        loss.backward()
        apart = apart + loss.detach()
        for (name, p), q in zip(agent.named_parameters(), own.parameters(), strict=True):
            assert q.grad.any(), name
            close(p.grad[k : k + 1], q.grad, rtol=0, atol=1e-10)
    close(together.detach(), apart, rtol=0, atol=1e-10)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_permuting_the_agents_permutes_their_values(fusion: str) -> None:
    agent, inputs, order = make_agent(cadp_fusion=fusion), packed(P, N, D), torch.tensor([2, 0, 1])
    values, _ = agent(inputs, agent.initial_hidden(B, N), COUNTS)
    permuted, _ = agent(inputs[:, order], agent.initial_hidden(B, N), COUNTS)
    close(permuted, values[:, :, order], rtol=0, atol=1e-12)
    losses = [pruning_loss(agent.logits(x, None)) for x in (inputs, inputs[:, order])]
    close(*losses, rtol=0, atol=1e-12)


def test_the_exchange_is_computed_once_for_all_steps_and_leaves_nothing_behind() -> None:
    """Bugs D4 and D5 of the release: both models at every forward, step by step, and outputs kept on the module."""
    agent, calls = make_agent(), list[str]()
    for name in ("query_key", "value", "fc_message", "fc_in", "rnn", "head"):
        agent.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    known = {name: set(vars(module)) for name, module in agent.named_modules()}
    agent(packed(P, N, D), agent.initial_hidden(B, N), COUNTS)
    assert sorted(calls) == sorted(["query_key", "value", "fc_message", "fc_in", "rnn", "head"])
    assert {name: set(vars(module)) for name, module in agent.named_modules()} == known
    assert not any(isinstance(x, Tensor) for module in agent.modules() for x in vars(module).values())


# Model (D).


@pytest.mark.parametrize("fusion", FUSIONS)
def test_others_cannot_reach_an_agent_that_executes_alone(fusion: str) -> None:
    """Bit for bit; model (C) does depend on them."""
    agent, inputs = make_agent(cadp_fusion=fusion), packed(P, N, D)
    noise = inputs.clone()
    noise[:, [0, 2]] = 9 * packed(P, 2, D)
    for one, alike in ((agent.decentralised(), True), (agent, False)):
        plain, disturbed = (one(x, one.initial_hidden(B, N), COUNTS) for x in (inputs, noise))
        assert torch.equal(plain[0][:, :, 1], disturbed[0][:, :, 1]) is alike
        assert not torch.equal(plain[0][:, :, 0], disturbed[0][:, :, 0])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_agent_needs_no_more_than_its_own_input(fusion: str) -> None:
    """Alone, at any batch shape, as in the team."""
    agent, inputs = make_agent(cadp_fusion=fusion).decentralised(), packed(P, N, D)
    values, states = agent(inputs, agent.initial_hidden(B, N), COUNTS)
    for i in range(N):
        own, own_states = agent(inputs[:, i : i + 1], agent.initial_hidden(B, 1), COUNTS)
        close(own, values[:, :, i : i + 1], rtol=0, atol=1e-12)
        close(own_states, states[:, :, i : i + 1], rtol=0, atol=1e-12)
    single, _ = agent(inputs[:1, :1], agent.initial_hidden(1, 1), [1])
    close(single, values[:, :1, :1], rtol=0, atol=1e-12)


def test_execution_keeps_no_queries_and_keys() -> None:
    """What is left is a snapshot."""
    agent = make_agent(att_mask_dead=True)
    alone = agent.decentralised()
    assert {name for name, _ in agent.named_parameters()} - {name for name, _ in alone.named_parameters()} == {
        "query_key.weight"
    }
    assert agent.query_key is not None
    assert not alone.reads_alive
    before = alone.value.weight.clone()
    with torch.no_grad():
        agent.value.weight.zero_()
    assert torch.equal(alone.value.weight, before)
    outputs, _, losses = alone.forward_with_losses(
        packed(P, N, D), alone.initial_hidden(B, N), COUNTS, None, torch.arange(P), 10**9
    )
    assert outputs.shape == (1, P, N, A)
    assert losses == {}


def test_what_is_tested() -> None:
    assert list(make_agent().executions()) == ["", "teacher_"]
    assert list(make_agent(test_teacher=False).executions()) == [""]


# The pruning loss in the agent.


def test_pruning_trains_queries_and_keys_alone() -> None:
    agent = make_agent(breakpoint=0)
    losses = agent.forward_with_losses(packed(P, N, D), agent.initial_hidden(B, N), COUNTS, None, torch.arange(P), 1)[2]
    losses["loss_pruning"].backward()
    assert {name for name, p in agent.named_parameters() if p.grad is not None} == {"query_key.weight"}


def test_pruning_begins_after_the_breakpoint() -> None:
    """Strictly after it, at once or along a ramp, and never ends."""
    step = make_agent(cadp_alpha=0.5, breakpoint=100)
    assert [step.pruning_weight(t) for t in (0, 100, 101, 10**9)] == [0, 0, 0.5, 0.5]
    ramp = make_agent(cadp_alpha=0.5, breakpoint=100, cadp_ramp=200)
    assert [ramp.pruning_weight(t) for t in (100, 150, 200, 300, 10**9)] == [0, 0.125, 0.25, 0.5, 0.5]


def test_pruning_counts_transitions_alone_and_is_weighted() -> None:
    """Sections 9.2 and 3.3: the mean over steps that count."""
    agent, inputs, acted = make_agent(cadp_alpha=0.5, breakpoint=100), packed(P, N, D), torch.tensor([0, 2, 5])
    hidden = agent.initial_hidden(B, N)
    losses = agent.forward_with_losses(inputs, hidden, COUNTS, None, acted, 101)[2]
    per_step = pruning_loss(agent.logits(inputs, None)[0])
    close(losses["loss_pruning"], 0.5 * per_step[acted].mean(), rtol=0, atol=1e-12)
    assert agent.forward_with_losses(inputs, hidden, COUNTS, None, acted, 100)[2] == {}
    paper = make_agent(cadp_alpha=0.5, breakpoint=100, cadp_loss_reduction="sum")
    paper.load_state_dict(agent.state_dict())
    losses = paper.forward_with_losses(inputs, hidden, COUNTS, None, acted, 101)[2]
    close(losses["loss_pruning"], 0.5 * N**2 * per_step[acted].mean(), rtol=0, atol=1e-12)


def test_steps_that_do_not_count() -> None:
    """Equation 3: per-step losses [0.203620, 0.366204, 7.0] of which the last does not count; TD loss 0.625."""
    N = GIVEN.shape[-1]
    padding = torch.full((N, N), 7.0 * N / (N - 1)).double().fill_diagonal_(0.0)  # any logits with a loss of 7 or so
    td = torch.tensor([0.5, -1.0]).square().mean().item()
    for alpha, t_env, expected in ((0.5, 11, 0.767456), (1.0, 11, 0.909912), (0.5, 10, 0.625), (1.0, 10, 0.625)):
        agent = make_agent(cadp_alpha=alpha, breakpoint=10)
        agent.logits = lambda inputs, alive: torch.stack([GIVEN.log(), UNIFORM.log(), padding]).view(1, 3, 1, N, N)
        inputs = packed(3, N, D)
        losses = agent.forward_with_losses(inputs, agent.initial_hidden(1, N), [1] * 3, None, torch.arange(2), t_env)[2]
        close(td + float(losses.get("loss_pruning", 0.0)), expected, rtol=0, atol=1e-6)


def test_the_dead_neither_advise_nor_count_where_masked() -> None:
    agent, inputs, acted = make_agent(att_mask_dead=True, breakpoint=0), packed(P, N, D), torch.arange(P)
    alive = torch.ones(P, N, dtype=torch.bool)
    alive[:, 1] = False
    other = inputs.clone()
    other[:, 1] = packed(P, D)
    hidden = agent.initial_hidden(B, N)
    one, two = (agent.forward_with_losses(x, hidden, COUNTS, alive, acted, 1) for x in (inputs, other))
    close(one[0][:, :, [0, 2]], two[0][:, :, [0, 2]], rtol=0, atol=1e-12)
    close(one[2], two[2], rtol=0, atol=1e-12)
    assert one[2]["loss_pruning"] > 0
    everyone = agent.forward_with_losses(inputs, hidden, COUNTS, torch.ones_like(alive), acted, 1)[2]
    assert not torch.allclose(everyone["loss_pruning"], one[2]["loss_pruning"])


# Diagnostics.


def test_recorded_confidences() -> None:
    agent, inputs, acted = make_agent(2, breakpoint=5), packed(P, N, D), torch.tensor([0, 1, 4])
    metrics = agent.diagnostics(inputs, None, acted, 6)
    confidence = agent.logits(inputs, None)[0, acted].softmax(-1).mean((0, 1))  # copy 0, over steps and heads
    for i in range(N):
        for j in range(N):
            close(metrics[f"confidence_{i}_{j}"], confidence[i, j], rtol=0, atol=1e-12)
    close(metrics["confidence_self"], confidence.diagonal().mean(), rtol=0, atol=1e-12)
    close(metrics["pruning_loss"], pruning_loss(agent.logits(inputs, None)[0, acted]).mean(), rtol=0, atol=1e-12)
    assert metrics["pruning_weight"] == 0.5
    assert agent.diagnostics(inputs, None, acted, 5)["pruning_weight"] == 0


def test_recorded_confidences_leave_the_masked_dead_out() -> None:
    agent, inputs, acted = make_agent(att_mask_dead=True), packed(P, N, D), torch.arange(P)
    alive = torch.ones(P, N, dtype=torch.bool)
    alive[2:, 0] = False
    metrics = agent.diagnostics(inputs, alive, acted, 0)
    c = agent.logits(inputs, alive)[0].softmax(-1).mean(1)
    close(metrics["confidence_0_1"], c[:2, 0, 1].mean(), rtol=0, atol=1e-12)
    own = torch.cat([c[:2, 0, 0], c[:, 1, 1], c[:, 2, 2]])
    close(metrics["confidence_self"], own.mean(), rtol=0, atol=1e-12)


def test_of_a_large_team_the_diagonal_is_recorded() -> None:
    metrics = make_agent().diagnostics(packed(P, 11, D), None, torch.arange(P), 0)
    assert sum(name.startswith("confidence_") for name in metrics) == 11 + 1
    assert "confidence_10_10" in metrics


@pytest.mark.parametrize(
    "setting", [{"att_heads": 0}, {"att_embed_dim": 0}, {"cadp_alpha": -1.0}, {"breakpoint": -1}, {"cadp_ramp": -1}]
)
def test_impossible_settings(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        CADPAgentSettings(**setting)
