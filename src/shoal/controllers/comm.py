"""Agents that read a message: what an encoder makes of the whole team's histories."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.batch import EpisodeBatch, PackedSteps
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC, BasicMACSettings
from shoal.controllers.make import Make
from shoal.declare import Range
from shoal.modules.layers.latent import Decoder, Encoder


@dataclass(frozen=True)
class CommMACSettings(BasicMACSettings):
    latent_dim: Annotated[int, "size of the encoder's latent vector", Range(1)] = 32
    latent_hidden_dim: Annotated[int, "hidden width of the encoder and the decoder", Range(1)] = 64


class CommMAC(BasicMAC):
    """Communicating agents (QMIX-Comm): each reads z_t = E(h_{t-1}), encoded from all agents' recurrent states.

    Source: S2Q (arXiv 2602.17062), section 4.3 and appendix H.3. A decoder reconstructs the state from the latent of
    h_t, so that the latent is worth sending. h enters the encoder without gradient; through z the learner's loss trains
    the encoder too. The message is a step late, because h_t depends on it, and E(0) at first.
    """

    Settings = CommMACSettings

    def __init__(
        self,
        settings: CommMACSettings,
        spec: TeamSpec,
        make: Make,
        copies: int = 1,
        comm: bool = True,
        n_candidates: int = 0,
        joint: bool = True,
    ) -> None:
        super().__init__(settings, spec, make, copies, message_dim=settings.latent_dim if comm else 0)
        self.comm = comm
        self.joint = joint
        """Whether the encoder reads the whole team's histories or one agent's."""
        width, latent = settings.latent_hidden_dim, settings.latent_dim
        self.encoder = Encoder(self.agent.hidden_dim * (spec.n_agents if joint else 1), width, latent)
        self.decoder: Decoder | None = Decoder(latent, width, spec.state_dim, n_candidates)

    def encode(self, histories: Tensor) -> Tensor:
        """Latents of copy 0's recurrent states, which get no gradient: ``[..., N, H] -> [..., (N,) E]``."""
        histories = histories.detach()
        return self.encoder(histories.flatten(-2) if self.joint else histories)

    def step(self, step: TensorDict, state: TensorDict) -> tuple[Tensor, Tensor]:
        if not self.comm:
            return super().step(step, state)
        inputs, hidden = self.inputs(step["obs"], state["last_actions"]), state["hidden"].transpose(0, 1)
        inputs = _with_message(inputs, self.encode(hidden[0]))
        return self._run(inputs, hidden, [inputs.shape[0]], self.alive_now(step))

    def agent_inputs(self, batch: EpisodeBatch, steps: PackedSteps) -> Tensor:
        """As ``TeamNetwork.agent_inputs``. Messages depend on the histories and these on messages, one after another.

        A first pass finds the histories step by step, without gradient, since none flows through them into messages;
        then every message is known, and the network can run over the whole batch at once.
        """
        inputs = super().agent_inputs(batch, steps)
        if not self.comm:
            return inputs
        hidden = self.agent.initial_hidden(batch.shape[0], self.spec.n_agents)
        before = self._histories_before(inputs, hidden, steps.counts, self.alive_in(batch, steps))
        return _with_message(inputs, self.encode(before))

    @torch.no_grad()
    def _histories_before(self, inputs: Tensor, hidden: Tensor, counts: list[int], alive: Tensor | None) -> Tensor:
        """Copy 0's states before each step: inputs ``[P, N, d]``, hidden ``[M, B, N, H]`` -> ``[P, N, H]``."""
        before: list[Tensor] = []
        living: Sequence[Tensor | None] = [None] * len(counts) if alive is None else alive.split(counts)
        for rows, alive_now in zip(inputs.split(counts), living, strict=True):
            hidden = hidden[:, : len(rows)]
            before.append(hidden[0])
            _, hidden = self._run(_with_message(rows, self.encode(hidden[0])), hidden, [len(rows)], alive_now)
        return torch.cat(before)

    def acting_part(self) -> BasicMAC:
        """A snapshot without the decoder: agents exchange the message, and the state is not reconstructed."""
        mac = copy.deepcopy(self)
        mac.decoder = None
        return mac

    def auxiliary_losses(self, batch: EpisodeBatch, steps: PackedSteps, histories: Tensor) -> dict[str, Tensor]:
        """``loss_state``: mean squared error of the state that the decoder reads out of the latent."""
        assert self.decoder is not None
        state_hat, _ = self.decoder(self.encode(histories[0, steps.acted]))
        return {"loss_state": (state_hat - steps.pack(batch["state"])[steps.acted]).square().mean()}


def _with_message(inputs: Tensor, z: Tensor) -> Tensor:
    """The team's inputs, each with the common message: ``[P, N, d]``, ``[P, E]`` -> ``[P, N, d + E]``."""
    return torch.cat([inputs, z.unsqueeze(1).expand(-1, inputs.shape[1], -1)], dim=-1)
