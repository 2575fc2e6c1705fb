"""S2Q's controller: K+1 sub-value networks and the softmax behaviour policy over them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.action_selectors import greedy
from shoal.components.batch import EpisodeBatch, Field, PackedSteps, Scheme, index_dtype
from shoal.components.spec import TeamSpec
from shoal.controllers.basic import BasicMAC
from shoal.controllers.comm import CommMAC, CommMACSettings
from shoal.controllers.controller import Controller
from shoal.controllers.make import Make
from shoal.declare import Range
from shoal.modules.layers.stacked import copy_state_dict
from shoal.utils.errors import NonFiniteError, UserError

CandidateProbabilities = Callable[[TensorDict, TensorDict, Tensor], tuple[Tensor, Tensor]]
"""The true P while acting: step, state, candidates ``[M, B, N]`` -> P ``[B, M]``, next state of its networks."""


@dataclass(frozen=True)
class S2QMACSettings(CommMACSettings):
    K: Annotated[int, "number of sub-value functions (in addition to Q^tot)", Range(0, 1000)] = 2
    s2q_select: Annotated[
        Literal["predicted", "oracle", "independent", "independent_joint", "random", "none"],
        "what draws the sub-value to follow: the decoder's P_hat (predicted); P of the true state (oracle); "
        "each agent's own history (independent); each agent from the common P_hat (independent_joint); "
        "uniform (random); none: always Q^tot",
    ] = "predicted"
    s2q_fix_prob: Annotated[float, "probability that an episode follows Q^tot (index 0) throughout", Range(0, 1)] = 0.5
    comm: Annotated[bool, "agents read the encoding of the team's latest histories (S2Q-Comm)"] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.comm and self.s2q_select == "independent":
            raise UserError(
                "comm=True and s2q_select=independent exclude each other: the message encodes the whole team's "
                "histories, an independent agent only its own. Use s2q_select=independent_joint."
            )


class S2QMAC(CommMAC):
    """S2Q's controller: in training the team follows sub-value k ~ P_hat, in tests Q^tot alone.

    Behaviour (paper, section 4.3): for each episode one coin decides whether it follows index 0 throughout;
    otherwise every step draws one k for the whole team from the decoder's P_hat. Each agent then acts
    epsilon-greedily around Q_k. ``s2q_select`` is the paper's ablation of what draws k (section 5.3).
    """

    Settings = S2QMACSettings
    has_sub_values = True

    def __init__(self, settings: S2QMACSettings, spec: TeamSpec, make: Make) -> None:
        self.n_copies = M = settings.K + 1
        joint = settings.s2q_select != "independent"
        super().__init__(settings, spec, make, M, comm=settings.comm, n_candidates=M, joint=joint)
        self.select = settings.s2q_select
        self.fix_prob = 1.0 if self.select == "none" else settings.s2q_fix_prob
        execution = CommMAC if settings.comm else BasicMAC
        self._build_execution = lambda: execution(settings, spec, make)

    @property
    def extra_fields(self) -> Scheme:
        """``sub_index [N]``: which sub-value each agent followed (for diagnostics)."""
        return {"sub_index": Field((self.spec.n_agents,), index_dtype(self.n_copies))}

    def initial_state(self, batch_size: int) -> TensorDict:
        """Adds the episodes' coins: ``follows_q0 [B]``."""
        state = super().initial_state(batch_size)
        state["follows_q0"] = torch.rand(batch_size, device=state["hidden"].device) < self.fix_prob
        return state

    @torch.no_grad()
    def select_actions(
        self,
        step: TensorDict,
        state: TensorDict,
        t_env: int,
        test_mode: bool = False,
        oracle: CandidateProbabilities | None = None,
    ) -> tuple[TensorDict, TensorDict]:
        """See ``Controller.select_actions``; tests follow Q^tot, for which each agent needs only its own history.

        ``oracle`` says P where ``s2q_select=oracle``: ``S2QOracle`` plays so.
        """
        values, hidden = self.step(step, state)  # [M, B, N, A], [M, B, N, H]
        k = torch.zeros(values.shape[1:3], dtype=torch.int64, device=values.device)
        carried: dict[str, Tensor] = {}
        if not test_mode:
            p, carried = self._distribution(step, state, values, hidden, oracle)  # [B, M] or [B, N, M]
            k = self._draw(p).masked_fill(state["follows_q0"].unsqueeze(1), 0)  # [B, N]
        index = k[None, :, :, None].expand(1, -1, -1, values.shape[-1])
        actions = self.selector.select(values.gather(0, index)[0], step["avail_actions"], t_env, test_mode)
        out, next_state = self._acted(actions, hidden, sub_index=k.to(index_dtype(self.n_copies)))
        next_state["follows_q0"] = state["follows_q0"]
        return out, next_state.update(carried)

    def _distribution(
        self,
        step: TensorDict,
        state: TensorDict,
        values: Tensor,
        hidden: Tensor,
        oracle: CandidateProbabilities | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What k is drawn from, ``[B, M]`` or each agent's own ``[B, N, M]``; what to keep for the next step."""
        if self.select == "oracle":
            assert oracle is not None, "S2QOracle plays this"
            p, oracle_hidden = oracle(step, state, greedy(values, step["avail_actions"]))
            return p, {"oracle_hidden": oracle_hidden}
        if self.select == "random":
            return values.new_full((values.shape[1], self.n_copies), 1 / self.n_copies), {}
        _, log_p = self.predict(hidden[0])
        return log_p.exp(), {}

    def _draw(self, p: Tensor) -> Tensor:
        """One k for each agent, the team's or its own: ``[B, M]`` or ``[B, N, M]`` -> ``[B, N]``."""
        N = self.spec.n_agents
        if self.select == "independent_joint":
            p = p.unsqueeze(1).expand(-1, N, -1)
        try:
            drawn = torch.multinomial(p.flatten(0, -2), 1).view(p.shape[0], -1)  # [B, 1 or N]
        except RuntimeError as error:
            if bool(p.isfinite().all()):
                raise
            raise NonFiniteError(
                "NaN or infinity in the probabilities that sub-values are drawn from: values have "
                "overflowed. Look for rewards or observations that are far too large, or lower lr."
            ) from error
        return drawn.expand(-1, N)

    def acting_part(self) -> BasicMAC:
        """A plain controller holding a snapshot of copy 0: no other copy, no decoder, no state.

        Under S2Q-Comm it also holds the encoder.
        """
        with torch.random.fork_rng(devices=[]):  # its throw-away initialisation must not disturb the run
            mac = self._build_execution()
        if isinstance(mac, CommMAC):
            mac.decoder = None
        mac.load_state_dict(self.acting_state())
        return mac.to(next(self.agent.parameters()))

    def acting_state(self) -> dict[str, Tensor]:
        """The state dict of ``acting_part()``, as it is now."""
        state = {f"agent.{name}": value for name, value in copy_state_dict(self.agent, 0).items()}
        whole = {"inputs": self.inputs} | ({"encoder": self.encoder} if self.comm else {})
        for part, module in whole.items():
            state |= {f"{part}.{name}": value.detach().clone() for name, value in module.state_dict().items()}
        return state

    def predict(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructed states and log P_hat from copy 0's recurrent states ``[..., N, H]``, which get no gradient.

        One of each for the team, ``[..., S]`` and ``[..., M]``; one for each agent under ``s2q_select=independent``.
        """
        assert self.decoder is not None
        state_hat, log_p = self.decoder(self.encode(histories))
        return state_hat, log_p

    def auxiliary_losses(self, batch: EpisodeBatch, steps: PackedSteps, histories: Tensor) -> dict[str, Tensor]:
        """None of the controller's: S2Q's learner trains the decoder's two heads together, since it alone knows P."""
        return {}


class S2QOracle(Controller):
    """Plays an ``S2QMAC`` that follows sub-values by the true P, from the environment's state (S2Q_oracle)."""

    reads_state = True

    def __init__(self, mac: S2QMAC, probabilities: CandidateProbabilities) -> None:
        super().__init__()
        self.mac = mac
        self.spec = mac.spec
        self.probabilities = probabilities

    @property
    def extra_fields(self) -> Scheme:
        return self.mac.extra_fields

    def initial_state(self, batch_size: int) -> TensorDict:
        return self.mac.initial_state(batch_size)

    def select_actions(
        self, step: TensorDict, state: TensorDict, t_env: int, test_mode: bool = False
    ) -> tuple[TensorDict, TensorDict]:
        return self.mac.select_actions(step, state, t_env, test_mode, self.probabilities)
