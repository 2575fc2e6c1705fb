"""What is read from a team environment's spaces."""

from typing import Any

import pytest
from gymnasium import spaces

from shoal.components.spec import TeamSpec
from shoal.utils.errors import UserError


def test_spec_reads_the_spaces() -> None:
    observation = spaces.Dict(obs=spaces.Box(-1, 1, (3, 5)), state=spaces.Box(-1, 1, (6,)))
    assert TeamSpec.from_spaces(observation, spaces.MultiDiscrete([4] * 3), 7) == TeamSpec(3, 4, 5, 6, 7, True)
    with_alive = spaces.Dict(**observation.spaces, alive=spaces.MultiBinary(3))
    box = spaces.Box(-1, 1, (3, 2))
    assert TeamSpec.from_spaces(with_alive, box, 7) == TeamSpec(3, 2, 5, 6, 7, discrete=False, has_alive=True)


def test_spec_refuses_other_spaces() -> None:
    observation = spaces.Dict(obs=spaces.Box(-1, 1, (3, 5)), state=spaces.Box(-1, 1, (6,)))
    with pytest.raises(UserError, match="adapter"):
        TeamSpec.from_spaces(spaces.Box(-1, 1, (3,)), spaces.MultiDiscrete([4] * 3), 7)
    with pytest.raises(UserError, match="action space"):
        TeamSpec.from_spaces(observation, spaces.Discrete(4), 7)


def test_spec_holds_the_declared_classes() -> None:
    observation = spaces.Dict(obs=spaces.Box(-1, 1, (3, 5)), state=spaces.Box(-1, 1, (6,)))
    declared = {"stop": [0], "go": range(1, 4)}
    spec = TeamSpec.from_spaces(observation, spaces.MultiDiscrete([4] * 3), 7, declared)
    assert spec.action_classes == (("stop", (0,)), ("go", (1, 2, 3)))
    assert hash(spec) is not None


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"go": [1, 4]}, "action 4 in 'go', but its actions are 0 to 3"),
        ({"go": [-1]}, "action -1 in 'go'"),
        ({"go": 3}, "must map names to lists of action indices"),
        ({"go": ["north"]}, "must map names to lists of action indices"),
        ([("go", [1])], "must map names to lists of action indices"),
    ],
)
def test_spec_refuses_classes_that_do_not_fit(declared: Any, reason: str) -> None:
    observation = spaces.Dict(obs=spaces.Box(-1, 1, (3, 5)), state=spaces.Box(-1, 1, (6,)))
    with pytest.raises(UserError, match=reason):
        TeamSpec.from_spaces(observation, spaces.MultiDiscrete([4] * 3), 7, declared)


def test_spec_refuses_classes_of_continuous_actions() -> None:
    observation = spaces.Dict(obs=spaces.Box(-1, 1, (3, 5)), state=spaces.Box(-1, 1, (6,)))
    with pytest.raises(UserError, match="continuous"):
        TeamSpec.from_spaces(observation, spaces.Box(-1, 1, (3, 2)), 7, {"go": [0]})
