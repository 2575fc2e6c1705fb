"""Named components: where each one lives, and how it is found, listed and built.

A component is a class with a nested ``Settings``, a frozen dataclass whose fields are
``name: Annotated[type, "help"] = default``. The first line of its docstring is what ``--list`` shows. To add one, write
the class and give it a line below, or name it by its import path on the command line:
``mixer=my_package.my_module:MyMixer``.
"""

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import traceback
from pathlib import Path
from typing import Any

from shoal.utils.errors import UserError

COMPONENTS: dict[str, dict[str, str]] = {
    "env": {
        "smax": "shoal.envs.smax:SmaxEnv",
        "sc2": "shoal.envs.sc2:SC2Env",
        "sc2v2": "shoal.envs.sc2v2:SC2v2Env",
        "sc2hard": "shoal.envs.sc2hard:SC2HardEnv",
        "grf": "shoal.envs.grf:GRFEnv",
        "matrix_game": "shoal.envs.matrix_game:MatrixGameEnv",
        "sisl": "shoal.envs.sisl:SislEnv",
        "toy_modes": "shoal.envs.toy_modes:ToyModesEnv",
        "gymma": "shoal.envs.gymma:GymmaEnv",
        "pettingzoo": "shoal.envs.pettingzoo:PettingZooEnv",
        "pymarl": "shoal.envs.pymarl:PyMARLEnv",
    },
    "runner": {
        "episode": "shoal.runners.runner:EpisodeRunner",
        "parallel": "shoal.runners.runner:ParallelRunner",
        "ray": "shoal.runners.ray_workers:RayRunner",
    },
    "memory": {
        "replay": "shoal.components.replay:ReplayBuffer",
    },
    "mac": {
        "basic_mac": "shoal.controllers.basic:BasicMAC",
        "comm_mac": "shoal.controllers.comm:CommMAC",
        "s2q_mac": "shoal.controllers.s2q:S2QMAC",
        "qf_mac": "shoal.controllers.qf:QFMAC",
        "mq_mac": "shoal.controllers.mq:MQMAC",
    },
    "central_mac": {
        "basic_central_mac": "shoal.controllers.central_mac:CentralMAC",
    },
    "agent": {
        "rnn": "shoal.modules.agents.rnn:RNNAgent",
        "mlp": "shoal.modules.agents.mlp:MLPAgent",
        "att_rnn": "shoal.modules.agents.cadp:CADPAgent",
    },
    "central_agent": {
        "central_rnn": "shoal.modules.agents.rnn:RNNAgent",
        "central_mlp": "shoal.modules.agents.mlp:MLPAgent",
    },
    "action_selector": {
        "epsilon_greedy": "shoal.components.action_selectors:EpsilonGreedy",
        "epsilon_uniform": "shoal.components.action_selectors:EpsilonUniform",
        "gaussian": "shoal.components.action_selectors:GaussianNoise",
    },
    "mixer": {
        "vdn": "shoal.modules.mixers.vdn:VDNMixer",
        "qmix": "shoal.modules.mixers.qmix:QMixer",
        "qplex": "shoal.modules.mixers.qplex:QPLEXMixer",
    },
    "central_mixer": {
        "ff": "shoal.modules.mixers.central_mixer:CentralMixer",
    },
    "critic": {
        "lan_value": "shoal.modules.critics.lan:LANValue",
    },
    "learner": {
        "q_learner": "shoal.learners.q_learner:QLearner",
        "wqmix_learner": "shoal.learners.wqmix:WQMIXLearner",
        "s2q_learner": "shoal.learners.s2q:S2QLearner",
        "lan_learner": "shoal.learners.lan:LANLearner",
    },
}
"""kind -> name -> "module:Class". The kinds are also the settings that choose a component."""

ALIASES: dict[str, dict[str, str]] = {
    "mac": {"n_mac": "basic_mac"},
    "agent": {"n_rnn": "rnn"},
    "learner": {
        "sq_learner": "s2q_learner",
        "max_q_learner": "wqmix_learner",
        "nq_learner": "q_learner",
        "dmaq_qatten_learner": "q_learner",
        "q_learner_teacher": "q_learner",
        "qplex_learner_teacher": "q_learner",
    },
    "mixer": {"dmaq": "qplex"},
}
"""Names that PyMARL, PyMARL2 and the papers' YAML files use for the same thing. With S2Q's learner ``n_mac`` is another
one, ``s2q_mac``."""

_VALUES_ONLY = "its methods are value-based (--list shows them)"
_SHARED = "agents share their parameters; use mac=basic_mac, agent=rnn and obs_agent_id=True"

LEFT_OUT = {
    ("mixer", "dmaq_qatten"): "it cuts the state into one slice a unit, as SMAC's alone can be; mixer=dmaq is QPLEX "
    "with a network that reads any state",
    ("mixer", "qatten"): "it cuts the state into one slice a unit; use mixer=qmix or mixer=qplex",
    ("mixer", "qtran_base"): "use mixer=qplex, which can represent as many tasks",
    ("learner", "qtran_learner"): "use --config=qplex, which can represent as many tasks",
    ("learner", "coma_learner"): _VALUES_ONLY,
    ("learner", "ppo_learner"): _VALUES_ONLY,
    ("learner", "lica_learner"): _VALUES_ONLY,
    ("learner", "actor_critic_learner"): _VALUES_ONLY,
    ("learner", "maddpg_learner"): _VALUES_ONLY,
    ("learner", "pac_learner"): _VALUES_ONLY,
    ("mac", "non_shared_mac"): _SHARED,
    ("agent", "rnn_ns"): _SHARED,
    ("env", "gfootball"): "use --env-config=grf, with env_args.map_name as in Google Research Football",
    ("env", "one_step_matrix_game"): "use --env-config=matrix_game, with env_args.payoff=[[...]]",
    ("env", "smaclite"): "use --env-config=smax, which plays SMAC's maps without StarCraft",
}
"""Components of others that are not here, and what to take instead."""


def near(name: str, known: list[str], cutoff: float = 0.5) -> list[str]:
    """The known names most like ``name``, at most three, the likest first."""
    lower = {k.lower(): k for k in known}
    return [lower[match] for match in difflib.get_close_matches(name.lower(), list(lower), n=3, cutoff=cutoff)]


def nearest(name: str, known: list[str]) -> str:
    """The known names most like ``name``, quoted and joined, or all of them where none is like it."""
    return ", ".join(repr(k) for k in near(name, known) or sorted(known))


def find(kind: str, name: str) -> type[Any]:
    """The class registered as ``name``.

    Raises:
        UserError: there is no such component, or its module cannot be imported.
    """
    known = COMPONENTS[kind]
    path = name if ":" in name else known.get(ALIASES.get(kind, {}).get(name, name))
    if path is None and (kind, name) in LEFT_OUT:
        raise UserError(f"Shoal has no {kind} '{name}': {LEFT_OUT[kind, name]}.")
    if path is None:
        raise UserError(
            f"Unknown {kind} '{name}': did you mean {nearest(name, list(known))}? "
            "(--list shows them all; 'package.module:Class' names one of your own.)"
        )
    module_name, _, class_name = path.partition(":")
    try:
        component = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        if module_name == "__main__":
            raise UserError(
                f"{kind}={name}: the class was defined in a script or notebook other than this one. Go on from Python, "
                f"with the class itself: shoal.resume(..., {kind}={class_name})."
            ) from error
        raise UserError(f"{kind}={name} cannot be loaded from {path}: {error}.") from error
    except Exception as error:  # whatever the code in it raises
        what = " ".join(f"{type(error).__name__}: {error}".split())
        frames = traceback.extract_tb(error.__traceback__)
        raise UserError(
            f"{kind}={name} cannot be loaded from {path}: {what} ({frames[-1].filename}, line {frames[-1].lineno})."
        ) from error
    if not isinstance(component, type) or not dataclasses.is_dataclass(getattr(component, "Settings", None)):
        raise UserError(f"{kind}={name}: {path} is not a class with a nested Settings dataclass.")
    return component


def one_line(kind: str, name: str) -> str:
    """The first line of a registered component's docstring, read from its source: nothing of it is imported."""
    module_name, _, class_name = COMPONENTS[kind][name].partition(":")
    source = importlib.util.find_spec(module_name)
    assert source is not None
    assert source.origin is not None, module_name
    for node in ast.parse(Path(source.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    raise AssertionError(f"{module_name} defines no {class_name}")
