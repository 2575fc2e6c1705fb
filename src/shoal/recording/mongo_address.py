"""The address of a MongoDB, which may hold a password: where it comes from, and how it is shown."""

from shoal.utils.errors import UserError

MONGO_VARIABLE = "SHOAL_MONGO_URL"
"""The environment variable for an address, and the place for one with a password."""


def redact(target: str) -> str:
    """A MongoDB address fit for showing: without user, password and options."""
    scheme, mark, rest = target.partition("://") if "://" in target else ("", "", target)
    _, at, address = rest.rpartition("@")
    return scheme + mark + ("***@" if at else "") + address.partition("?")[0]


def refuse_secret(target: str) -> None:
    """Refuse an address with a password where it would be written down: settings go into records and checkpoints.

    Raises:
        UserError: saying where the address belongs, without its secrets.
    """
    if "@" in target or "password" in target.partition("?")[2].lower():
        raise UserError(
            f"The MongoDB address {redact(target)} holds a password, and settings are written into the record: "
            f"put the address into the environment variable {MONGO_VARIABLE} instead."
        )
