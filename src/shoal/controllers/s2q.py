"""S2Q's controller: K+1 sub-value networks and the softmax behaviour policy over them."""

from dataclasses import dataclass
from typing import Annotated

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.batch import Field, Scheme
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC, BasicMACSettings, Make
from shoal.modules.layers.latent import EncoderDecoder
from shoal.modules.layers.stacked import copy_state_dict
from shoal.utils.errors import UserError


@dataclass(frozen=True)
class S2QMACSettings(BasicMACSettings):
    K: Annotated[int, "number of sub-values beside Q^tot"] = 2
    s2q_fix_prob: Annotated[float, "probability that an episode follows Q^tot alone (index 0) throughout"] = 0.5
    latent_dim: Annotated[int, "size of the encoder's latent"] = 32
    latent_hidden_dim: Annotated[int, "hidden width of the encoder and the decoder"] = 64

    def __post_init__(self) -> None:
        if self.K < 0:
            raise UserError(f"K={self.K} is not possible: the number of sub-values must be 0 or more.")
        if not 0 <= self.s2q_fix_prob <= 1:
            raise UserError(f"s2q_fix_prob={self.s2q_fix_prob} is not a probability: give a number from 0 to 1.")


class S2QMAC(BasicMAC):
    """S2Q's controller: in training the team follows sub-value k ~ P_hat, in tests Q^tot alone.

    Behaviour (paper, section 4.3): for each episode one coin decides whether it follows index 0 throughout;
    otherwise every step draws one k for the whole team from the decoder's P_hat. Each agent then acts
    epsilon-greedily around Q_k.
    """

    Settings = S2QMACSettings
    has_sub_values = True

    def __init__(self, settings: S2QMACSettings, spec: TeamSpec, make: Make) -> None:
        self.n_copies = settings.K + 1
        super().__init__(settings, spec, make, copies=self.n_copies)
        self.fix_prob = settings.s2q_fix_prob
        self._build_execution = lambda: BasicMAC(settings, spec, make)
        self.latent = EncoderDecoder(
            spec.n_agents * self.agent.hidden_dim,
            spec.state_dim,
            self.n_copies,
            settings.latent_hidden_dim,
            settings.latent_dim,
        )

    @property
    def extra_fields(self) -> Scheme:
        """``sub_index [1]``: which sub-value the team followed (for diagnostics)."""
        return {"sub_index": Field((1,), torch.uint8)}

    def initial_state(self, batch_size: int) -> TensorDict:
        """Adds the episodes' coins: ``follows_q0 [B]``."""
        state = super().initial_state(batch_size)
        state["follows_q0"] = torch.rand(batch_size, device=state["hidden"].device) < self.fix_prob
        return state

    @torch.no_grad()
    def select_actions(
        self, step: TensorDict, state: TensorDict, t_env: int, test_mode: bool = False
    ) -> tuple[TensorDict, TensorDict]:
        """See ``BasicMAC.select_actions``; tests follow Q^tot, for which each agent needs only its own history."""
        values, hidden = self._forward_step(step, state)  # [M, B, N, A], [M, B, N, H]
        B = values.shape[1]
        if test_mode:
            k = torch.zeros(B, dtype=torch.int64, device=values.device)
        else:
            _, log_p = self.latent(hidden[0].flatten(1))
            drawn = torch.multinomial(log_p.exp(), 1).squeeze(-1)
            k = drawn.masked_fill(state["follows_q0"], 0)
        chosen = values[k, torch.arange(B, device=values.device)]  # [B, N, A]
        actions = self.selector.select(chosen, step["avail_actions"], t_env, test_mode)
        out, next_state = self._acted(actions, hidden, sub_index=k.unsqueeze(-1).to(torch.uint8))
        next_state["follows_q0"] = state["follows_q0"]
        return out, next_state

    def for_execution(self) -> BasicMAC:
        """A plain controller holding a snapshot of copy 0: no other copy, no encoder, no state."""
        with torch.random.fork_rng(devices=[]):  # its throw-away initialisation must not disturb the run
            mac = self._build_execution()
        mac.agent.load_state_dict(copy_state_dict(self.agent, 0))
        return mac.to(self.agent.fc_in.weight)

    def predict(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructed states and log P_hat from copy 0's recurrent states ``[..., N, H]``, which get no gradient."""
        state_hat, log_p = self.latent(histories.detach().flatten(-2))
        return state_hat, log_p
