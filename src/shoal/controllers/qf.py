"""QF-LAN's controller: advantages as functionals of the action, maximised by sampling."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from tensordict import TensorDict
from torch import Tensor

from shoal.components.spec import TeamSpec
from shoal.controllers.make import Make
from shoal.controllers.vectors import VectorMAC, VectorMACSettings
from shoal.declare import Range
from shoal.modules.layers.basis import Basis, Kind
from shoal.utils.errors import UserError

BLOCK = 512
"""States whose samples are valued together: their table of values stays in the processor's cache."""


@dataclass(frozen=True)
class QFMACSettings(VectorMACSettings):
    qf_basis: Annotated[Kind, "basis functions of the action, whose coefficients the agents learn"] = "legendre"
    qf_rank: Annotated[int, "largest degree of the basis functions", Range(1)] = 5
    qf_samples: Annotated[int, "actions sampled per maximisation, in training", Range(1)] = 1000
    qf_test_samples: Annotated[int, "actions sampled per maximisation, in tests", Range(1)] = 1000
    qf_coef_scaling_exponent: Annotated[
        float, "exponent p: the coefficient of multi-index q is divided by |q|^p", Range(0)
    ] = 0.0
    qf_pool: Annotated[
        int, "size of the pool of random actions, of which each maximisation uses a random stretch", Range(1)
    ] = 65_536

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qf_pool < max(self.qf_samples, self.qf_test_samples):
            raise UserError(f"qf_pool={self.qf_pool} is smaller than the samples taken of it: raise it.")


class QFMAC(VectorMAC):
    """Q-functional agents (Lobel et al. 2023) for LAN: A(tau, a) = c(tau) . phi(a), the best of 1,000 random actions.

    Samples are a stretch, at a random place, of a pool whose phi is computed once. All agents of a step and all states
    of an update share them. The seed of the pool is drawn with the networks, from the run's, and saved
    with them.
    """

    Settings = QFMACSettings

    def __init__(self, settings: QFMACSettings, spec: TeamSpec, make: Make) -> None:
        basis = Basis(settings.qf_basis, spec.n_actions, settings.qf_rank, settings.qf_coef_scaling_exponent)
        super().__init__(settings, spec, make, output_dim=basis.n_terms)
        self.basis = basis
        self.n_samples, self.n_test_samples = settings.qf_samples, settings.qf_test_samples
        self.n_draws = settings.qf_pool - settings.qf_test_samples + 1
        self.register_buffer("pool_seed", torch.randint(2**62, ()))
        self.register_buffer("pool", torch.empty(settings.qf_pool, spec.n_actions), persistent=False)
        self.register_buffer("features", torch.empty(settings.qf_pool, basis.n_terms), persistent=False)
        self.pool_seed: Tensor
        self.pool: Tensor
        self.features: Tensor
        self._draw_pool()

    def _draw_pool(self) -> None:
        self._drawn_from = int(self.pool_seed)
        generator = torch.Generator().manual_seed(self._drawn_from)
        self.pool.copy_(2 * torch.rand(self.pool.shape, generator=generator) - 1)
        self.features.copy_(self.basis(self.pool))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """The pool of the saved networks; it is 0's in files from before its seed was saved."""
        state_dict.setdefault(f"{prefix}pool_seed", torch.tensor(0))
        super()._load_from_state_dict(state_dict, prefix, *args)
        if int(self.pool_seed) != self._drawn_from:
            self._draw_pool()

    def select_actions(
        self, step: TensorDict, state: TensorDict, t_env: int, test_mode: bool = False
    ) -> tuple[TensorDict, TensorDict]:
        """See ``Controller.select_actions``."""
        with torch.no_grad():
            outputs, hidden = self.step(step, state)  # [1, B, N, J]
            here = self._samples(self.n_test_samples if test_mode else self.n_samples)
            best = self.pool[here][self._best(outputs[0], here)]  # [B, N, d]
            actions = self.selector.select(best, None, t_env, test_mode)
        return self._acted(actions, hidden)

    def deployed_actions(self, outputs: Tensor, avail_actions: Tensor | None, draw: Tensor) -> Tensor:
        """See ``Controller.deployed_actions``; ``draw`` is where in the pool the stretch of samples begins."""
        samples = self.pool[draw + torch.arange(self.n_test_samples)]  # [S, d]
        best = (outputs[0] @ self.basis(samples).mT).argmax(-1)  # [B, N]
        return samples[best]

    def value_taken(self, outputs: Tensor, actions: Tensor) -> Tensor:
        return (outputs * self.basis(actions)).sum(-1)

    def value_next(self, outputs: Tensor, target: VectorMAC, target_outputs: Tensor, double_q: bool) -> Tensor:
        here = self._samples(self.n_samples)
        best = self._best((outputs if double_q else target_outputs)[0], here)
        return (target_outputs[0] * self.features[here][best]).sum(-1)

    def _samples(self, n: int) -> slice:
        start = int(torch.randint(len(self.pool) - n + 1, ()))
        return slice(start, start + n)

    def _best(self, coefficients: Tensor, here: slice) -> Tensor:
        """Index of the best sample: ``[P, N, J] -> int64 [P, N]``."""
        features = self.features[here].mT
        rows = coefficients.flatten(0, 1).split(BLOCK)
        return torch.cat([(c @ features).argmax(-1) for c in rows]).view(coefficients.shape[:-1])
