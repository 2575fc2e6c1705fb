"""Settings by dotted name."""

from shoal.utils.dotted import flatten


def test_the_settings_of_the_environment_are_dotted_and_no_others():
    settings = {"lr": 0.1, "env_args": {"map_name": "3m", "kwargs": {"a": 1}}, "callbacks": {"x": 1}}
    expected = {"lr": 0.1, "env_args.map_name": "3m", "env_args.kwargs": {"a": 1}, "callbacks": {"x": 1}}
    assert flatten(settings) == expected
    assert flatten({"env_args": None}) == {"env_args": None}
