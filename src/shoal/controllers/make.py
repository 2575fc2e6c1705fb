"""How components get the components that they are made of."""

from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from torch import nn

from shoal.components.action_selectors import ActionSelector
from shoal.modules.agents.agent import Agent
from shoal.modules.mixers.mixer import Mixer

if TYPE_CHECKING:
    from shoal.controllers.controller import Controller
    from shoal.controllers.team import TeamNetwork


class Make(Protocol):
    """``make(kind, **parts)`` builds the component that the setting ``kind`` names, from its settings and ``parts``.

    Types are those that a component of the kind has to have; one of your own that does the same need not inherit.
    """

    @overload
    def __call__(self, kind: Literal["agent", "central_agent"], **parts: Any) -> Agent: ...
    @overload
    def __call__(self, kind: Literal["mac"], **parts: Any) -> "Controller": ...
    @overload
    def __call__(self, kind: Literal["central_mac"], **parts: Any) -> "TeamNetwork": ...
    @overload
    def __call__(self, kind: Literal["mixer", "central_mixer"], **parts: Any) -> Mixer: ...
    @overload
    def __call__(self, kind: Literal["action_selector"], **parts: Any) -> ActionSelector: ...
    @overload
    def __call__(self, kind: Literal["critic"], **parts: Any) -> nn.Module: ...
    @overload
    def __call__(self, kind: str, **parts: Any) -> Any: ...
