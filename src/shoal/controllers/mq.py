"""MQ-LAN's controller: critics of action vectors, and the codebook of those that are worth trying."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.action_selectors import EpsilonUniform
from shoal.components.schedules import LinearSchedule, TMax
from shoal.components.spec import TeamSpec
from shoal.controllers.make import Make
from shoal.controllers.vectors import VectorMAC, VectorMACSettings
from shoal.declare import Range
from shoal.modules.codebook.action_head import ActionHead
from shoal.modules.codebook.anchored import AnchoredCodebook
from shoal.modules.codebook.codebook import Codebook, CodebookSettings, FrozenCodebook
from shoal.modules.layers.stacked import copy_state_dict
from shoal.utils.errors import UserError

PUBLISHED_EPISODES = 50_000
"""Length of the run for which the published step sizes of the codebook were chosen."""


@dataclass(frozen=True)
class MQMACSettings(CodebookSettings, VectorMACSettings):
    mq_top_k: Annotated[int, "number of best slots per state that win and follow the critic's gradient", Range(1)] = 5
    mq_lr_start: Annotated[float, "initial step size of the slots (zeta)", Range(0)] = 1e-4
    mq_lr_finish: Annotated[float, "final step size of the slots (zeta)", Range(0)] = 1e-5
    mq_lr_anneal_frac: Annotated[
        float, "length of the anneal of zeta (the slots' step size) as a fraction of t_max", Range(above=0, most=1)
    ] = 0.66666667
    mq_lr_autoscale: Annotated[
        bool, "multiply zeta by 50,000 / (t_max / episode limit), so that slots travel as far in shorter runs"
    ] = True
    mq_double_critic: Annotated[bool, "use two critics, whose targets take the lower value"] = True
    mq_head_dim: Annotated[int, "hidden width of the critics' heads", Range(1)] = 64
    mq_test_exclude_frozen: Annotated[bool, "exclude recently placed slots from tests"] = True
    mq_chunk: Annotated[
        int, "histories per batch when slots are valued; larger ones no longer fit the CPU's cache", Range(1)
    ] = 16
    t_max: TMax = 2_000_000


class MQMAC(VectorMAC):
    """MovingQ agents (CTDE^2) for LAN: every agent acts by the best of its codebook's K slots, which learn where to be.

    Two critics A_j(h, a) with encoders of their own; the first acts, and is climbed by the slots. The agent's outputs
    are the state's part of the critics' first layer (``modules/layers/action_head.py``).
    """

    Settings = MQMACSettings

    def __init__(self, settings: MQMACSettings, spec: TeamSpec, make: Make, execution: bool = False) -> None:
        copies = 2 if settings.mq_double_critic and not execution else 1
        super().__init__(settings, spec, make, settings.mq_head_dim, copies)
        if not isinstance(self.selector, EpsilonUniform):
            raise UserError(
                f"action_selector={settings.action_selector} does not fit mac=mq_mac, which counts the slots that are "
                "executed as they are: use epsilon_uniform."
            )
        N, d = spec.n_agents, spec.n_actions
        self.settings = settings
        self.head = ActionHead(copies, self.agent.hidden_dim, settings.mq_head_dim, d)
        self.codebook: Codebook | FrozenCodebook
        if execution:
            self.codebook = FrozenCodebook(N, settings.mq_k, d)
        else:
            self.codebook = (AnchoredCodebook if settings.mq_copies else Codebook)(settings, N, d)
        self._build_execution: Callable[[], MQMAC] = lambda: MQMAC(settings, spec, make, execution=True)
        episodes = settings.t_max / spec.episode_limit
        scale = PUBLISHED_EPISODES / episodes if settings.mq_lr_autoscale else 1.0
        duration = int(settings.mq_lr_anneal_frac * settings.t_max)
        self.zeta = LinearSchedule(scale * settings.mq_lr_start, scale * settings.mq_lr_finish, duration)
        """Step size of the slots after so many environment steps."""

    @torch.no_grad()
    def select_actions(
        self, step: TensorDict, state: TensorDict, t_env: int, test_mode: bool = False
    ) -> tuple[TensorDict, TensorDict]:
        """See ``Controller.select_actions``. In training, greedy picks count as the slots' usage."""
        outputs, hidden = self.step(step, state)  # [M, B, N, W]
        best, greedy = self._pick(outputs, leave_out=test_mode and self.settings.mq_test_exclude_frozen)
        actions = self.selector.select(greedy, None, t_env, test_mode)
        if not test_mode:
            assert isinstance(self.codebook, Codebook), "what executes does not train"
            self.codebook.count(best, (actions == greedy).all(-1))
        return self._acted(actions, hidden)

    def deployed_actions(self, outputs: Tensor, avail_actions: Tensor | None, draw: Tensor) -> Tensor:
        return self._pick(outputs, self.settings.mq_test_exclude_frozen)[1]

    def _pick(self, outputs: Tensor, leave_out: bool) -> tuple[Tensor, Tensor]:
        """The best slots and their actions, ``[B, N]`` and ``[B, N, d]``, perhaps without those just placed."""
        slots = self.codebook.actions()  # [N, K, d]
        values = self.head.table(outputs[0], slots)  # [B, N, K]
        if leave_out:
            values = values.masked_fill(~self.codebook.eligible(), -torch.inf)
        best = values.argmax(-1)  # [B, N]
        return best, slots[torch.arange(len(slots), device=slots.device), best]

    def value_taken(self, outputs: Tensor, actions: Tensor) -> Tensor:
        return self.head(outputs, actions)

    def value_next(self, outputs: Tensor, target: VectorMAC, target_outputs: Tensor, double_q: bool) -> Tensor:
        """max_k min_j A_j(h_j, u_k) of the target alone: the maximum of the minimum, not the other way around."""
        assert isinstance(target, MQMAC)
        return target.head.max_min(target_outputs, target.codebook.actions(), self.settings.mq_chunk)

    def before_step(
        self, outputs: Tensor, counted: Tensor, target: VectorMAC, t_env: int, n_updates: int
    ) -> dict[str, Tensor]:
        """The slots climb the critic by one step; every ``mq_manage_interval`` updates they are pruned.

        They climb the critic of the pass, before its gradient step. (The released code joins hidden states from before
        the step with the head from after it.)
        """
        codebook, s = self.codebook, self.settings
        assert isinstance(codebook, Codebook)
        zeta = self.zeta(t_env)
        ascent = self.head.ascend(outputs[0], codebook.actions(), s.mq_top_k, counted, s.mq_chunk)
        moved = codebook.climb(ascent.wins, ascent.gradient, zeta)
        if n_updates % s.mq_manage_interval == 0 and t_env < s.mq_manage_until * s.t_max:
            assert isinstance(target, MQMAC)
            assert isinstance(target.codebook, Codebook)
            target.codebook.take_over(codebook, codebook.manage().reset)
        return codebook.metrics() | {"zeta": torch.tensor(zeta), "codebook_move": torch.tensor(moved)}

    def acting_part(self) -> "MQMAC":
        """The first critic and the slots where they are now: a discrete choice among K actions, nothing that learns."""
        with torch.random.fork_rng(devices=[]):  # its throw-away initialisation must not disturb the run
            mac = self._build_execution()
        mac.inputs.load_state_dict(self.inputs.state_dict())
        mac.agent.load_state_dict(copy_state_dict(self.agent, 0))
        mac.head.load_state_dict(copy_state_dict(self.head, 0))
        mac.codebook.load_state_dict({"slots": self.codebook.actions(), "open": self.codebook.eligible()})
        return mac.to(next(self.agent.parameters()))
