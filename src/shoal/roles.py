"""What each setting of a recorded run is for, by the name that the command line gives it."""

import functools

from shoal import registry
from shoal.declare import Role, roles_of
from shoal.experiment import ExperimentSettings


def role_of(path: str) -> Role:
    """The role of a setting, as ``lr`` or ``env_args.map_name``.

    METHOD for one that Shoal does not declare: it is of another version, or of somebody's own component.
    """
    return _declared().get(path, Role.METHOD)


@functools.cache
def _declared() -> dict[str, Role]:
    """The roles of the experiment's settings and of those of every registered component."""
    roles: dict[str, Role] = dict(roles_of(ExperimentSettings))
    for kind, names in registry.COMPONENTS.items():
        section = "env_args." if kind == "env" else ""
        for name in names:
            for key, role in roles_of(registry.find(kind, name).Settings).items():
                path = section + key
                # Where two components disagree it tells methods apart: the only mistake that would be seen.
                roles[path] = role if roles.get(path, role) is role else Role.METHOD
    return roles
