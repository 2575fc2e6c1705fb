"""Settings: where they come from, what they mean, which are possible."""

from typing import Literal

CONFIG_OPTIONS: dict[str, Literal["algs", "envs"]] = {"--config": "algs", "--env-config": "envs"}
"""The command line's options that name YAML files, and the folder of each."""
