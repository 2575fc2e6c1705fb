"""Every reproduction, by its id."""

from collections.abc import Sequence

from shoal import registry
from shoal.reproduce.declaration import Reproduction
from shoal.utils.errors import UserError


def every() -> list[Reproduction]:
    """All of them, paper by paper."""
    from shoal.reproduce import cadp, lan, lan_pictures, payoff_exploration, payoff_game, smax

    return [
        payoff_game.REPRODUCTION,
        payoff_exploration.REPRODUCTION,
        smax.COMPARISON,
        smax.ACTIONS,
        cadp.CONFIDENCE,
        lan.SISL,
        lan_pictures.CODEBOOK,
        lan_pictures.ACTION_MAP,
        lan_pictures.TOY_MODES,
    ]


def find(name: str, among: Sequence[Reproduction]) -> Reproduction:
    """The reproduction of this id.

    Raises:
        UserError: there is none.
    """
    known = {reproduction.id: reproduction for reproduction in among}
    if name not in known:
        raise UserError(
            f"There is no reproduction '{name}': did you mean {registry.nearest(name, list(known))}? --list shows all."
        )
    return known[name]
