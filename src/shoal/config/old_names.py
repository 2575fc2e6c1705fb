"""Settings of PyMARL, PyMARL2, EPyMARL and the papers' releases that have another name here, or none.

Their YAML files run as they are: what is called otherwise is renamed, what asks for the way Shoal does it anyway is
noted, and what Shoal does not do is refused with what to do instead. No setting is ignored in silence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shoal.utils.errors import UserError

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Old:
    """A setting without a name here: what to know of it, and the values that ask for what Shoal does anyway.

    ``same`` is a tuple of values, or says of a value and the run's settings whether it has no effect.
    """

    why: str
    same: tuple[Any, ...] | Callable[[Any, Values], bool]

    def asks_for_the_same(self, value: Any, values: Values) -> bool:
        return self.same(value, values) if callable(self.same) else value in self.same


@dataclass(frozen=True)
class WithoutEffect:
    """What to say of a setting that no component of the run reads."""

    why: str
    harmless: bool
    """Whether the run continues, because the setting changes nothing."""


def _any(value: Any, values: Values) -> bool:
    return True


def _equal_to(key: str) -> Callable[[Any, Values], bool]:
    return lambda value, values: value == values.get(key)


RENAMED = {"hidden_dim": "rnn_hidden_dim"}
"""Their name -> ours, where the values mean the same."""


@dataclass(frozen=True)
class Moved:
    """What a setting of an environment, which had a name of its own there, is called in all of them."""

    name: str
    inverted: bool = False
    """Whether true is false now."""

    def value(self, old: Any) -> Any:
        return not old if self.inverted and isinstance(old, bool) else old


_STARCRAFT = {"obs_instead_of_state": Moved("own_state", inverted=True)}  # SMAC's name
IN_ENV_ARGS: dict[str, dict[str, Moved]] = {
    "matrix_game": {"episode_limit": Moved("time_limit")},
    "sc2": _STARCRAFT,
    "sc2hard": _STARCRAFT,
    "sc2v2": _STARCRAFT,
    "sisl": {
        "env_kwargs": Moved("kwargs"),
        "max_cycles": Moved("time_limit"),
        "reward_scalarisation": Moved("reward_aggregation"),
        "state_from_obs": Moved("own_state", inverted=True),
    },
    "smax": {"max_steps": Moved("time_limit")},  # JaxMARL's name
}
"""Suite -> old name in ``env_args`` -> what Shoal calls it in every suite."""

NO_LABELS = Old("name says what a run is called", _any)
NO_WANDB = Old("runs are recorded by sacred, with use_tensorboard=True for TensorBoard too", _any)
NO_PRIORITIES = Old("episodes are sampled uniformly", _any)

OLD: dict[str, Old] = {
    # All of them.
    "agent_output_type": Old("the methods here are value-based: q", ("q",)),
    "test_greedy": Old("tests are greedy; evaluation_epsilon is their probability of random actions", (True,)),
    "log_interval": Old("runner_log_interval and learner_log_interval say when to record", _any),
    "repeat_id": NO_LABELS,
    "label": NO_LABELS,
    "run": NO_LABELS,
    "double_q": Old("this learner always chooses the bootstrap action with the online network", (True,)),
    "batch_size_run": Old("runner=episode plays one environment; runner=parallel plays several", (1,)),
    "critic_lr": Old("all parameters are trained with lr", _equal_to("lr")),
    "env_args.seed": Old("seed, outside env_args, seeds everything", (None,)),
    # PyMARL2.
    "q_lambda": Old("targets are TD(lambda)", (False,)),
    "use_layer_norm": Old("the agent has no layer normalisation", (False,)),
    "use_orthogonal": Old("weights are initialised as torch does", (False,)),
    "gain": Old("it scales orthogonal initialisation", _any),
    "use_per": Old("episodes are sampled uniformly", (False,)),
    "per_alpha": NO_PRIORITIES,
    "per_beta": NO_PRIORITIES,
    "return_priority": Old("episodes are sampled uniformly", (False,)),
    "weight_decay": Old("the optimiser decays no weights", (0,)),
    "qmix_pos_func": Old("mixing weights are absolute values", ("abs",)),
    "central_action_embed": Old("a central utility is one number an action", (1,)),
    "central_rnn_hidden_dim": Old(
        "the central agent is as wide as the agents, rnn_hidden_dim", _equal_to("rnn_hidden_dim")
    ),
    "is_minus_one": Old("QPLEX subtracts 1 from the weights on the advantages", (True,)),
    "weighted_head": Old("QPLEX transforms the utilities", (True,)),
    "is_adv_attention": Old("QPLEX weights the advantages by attention", (True,)),
    "is_stop_gradient": Old("QPLEX stops the gradient of the advantages", (True,)),
    # EPyMARL.
    "use_rnn": Old(
        "agent=rnn is recurrent, agent=mlp is not", lambda value, values: value == (values["agent"] != "mlp")
    ),
    "common_reward": Old("the team shares one reward", (True,)),
    "reward_scalarisation": Old(
        "env_args.reward_aggregation=mean averages the agents' rewards",
        ("sum",),
    ),
    "add_value_last_step": Old("only actor-critic methods read it", _any),
    "obs_individual_obs": Old("learners read the environment's state", (False,)),
    "hypergroup": NO_LABELS,
    "use_wandb": Old("there is no W&B; use_tensorboard=True records for TensorBoard", (False,)),
    "wandb_team": NO_WANDB,
    "wandb_project": NO_WANDB,
    "wandb_mode": NO_WANDB,
    "wandb_save_model": NO_WANDB,
    "render": Old("evaluate=True save_replay=True draws a team", (False,)),
    "env_args.pretrained_wrapper": Old("an environment is played as it is", (None,)),
    # Shoal's own.
    "env_args.end_behind_half_line": Old(
        "football is the papers' task since: env_args.end_behind_line (ball_or_players, ball, never) says who ends an "
        "episode, env_args.line_x where; a run from before is another task and cannot continue",
        (),
    ),
}
"""Read only where no component of the run declares a setting of the name."""

MARK = "agent_output_type"
"""Every algorithm's file of PyMARL and its descendants sets it, and no file of Shoal."""

BEHIND = ", its own code"
"""Ends the source of what such a file leaves to the code that it is from."""

OF_ITS_CODE = {"lr": 0.0005, "batch_size": 32, "td_lambda": 0, "td_loss": 1.0}
"""What their q_learner does where an algorithm's file says nothing, and Shoal's does not."""


@dataclass
class Translated:
    """A source's settings under our names, what lies behind them, and what to say about it."""

    settings: dict[str, Any]
    behind: dict[str, Any] = field(default_factory=dict)
    """What the code that the file is from does where the file says nothing."""
    foreign: bool = False
    """Whether it is an algorithm's file of PyMARL or a descendant."""
    notes: list[str] = field(default_factory=list)


def translate(given: Mapping[str, Any], source: str) -> Translated:
    """Settings as another code's users write them, under our names.

    Raises:
        UserError: two names of one setting have different values, or Shoal does not do what is asked.
    """
    result = Translated(dict(given), foreign=MARK in given)
    ours = result.settings
    for old, new in RENAMED.items():
        if old not in ours:
            continue
        value = ours.pop(old)
        if new not in ours:
            ours[new] = value
            result.notes.append(f"{old}={value} in {source} is called {new} here")
        elif ours[new] == value or result.foreign:  # S2Q's release gives both and reads ours
            result.notes.append(f"without effect in {source}: {old}={value}, next to {new}={ours[new]}")
        else:
            raise UserError(f"{old}={value} and {new}={ours[new]} ({source}) are one setting: leave {old} out.")
    if ours.get("use_rnn") is False and ours.get("agent", "rnn") == "rnn":
        ours["agent"] = "mlp"
        del ours["use_rnn"]
        result.notes.append(f"use_rnn=False in {source} is called agent=mlp here")
    epymarl = "target_update_interval_or_tau" in ours
    if epymarl:
        _update_interval(ours, source, result.notes)
    if result.foreign and ours.get("learner") == "nq_learner" and ours.get("agent") == "att_rnn":
        raise UserError(
            f"agent=att_rnn ({source}) is another network in PyMARL2, whose agents attend to each other when they act. "
            "Here it is CADP's, whose agents do so in training alone: use --config=qmix_cadp."
        )
    if result.foreign and ours.get("learner") == "q_learner":
        result.behind = {**OF_ITS_CODE, "optimizer": "adam" if epymarl else "rmsprop"}
        if "optimizer" in ours:  # as PyMARL2's files alone say, whose loss has the half
            result.behind |= {"td_loss": 0.5}
        unsaid = [f"{key}={value}" for key, value in result.behind.items() if key not in ours]
        result.notes.append(f"{source} leaves to its own code, and so has its values: {', '.join(unsaid)}")
    return result


def _update_interval(ours: dict[str, Any], source: str, notes: list[str]) -> None:
    """EPyMARL counts gradient steps up to the next copy, or below 1 moves the targets a little in each."""
    key = "target_update_interval_or_tau"
    value = ours.pop(key)
    if not isinstance(value, int | float) or value < 1:
        raise UserError(
            f"{key}={value} ({source}) asks for soft target updates, which Shoal does not make: give the gradient "
            "steps between copies, such as target_update_interval=200 target_update_unit=gradient_steps."
        )
    named = {"target_update_interval": value, "target_update_unit": "gradient_steps"}
    for name, wanted in named.items():
        if ours.setdefault(name, wanted) != wanted:
            raise UserError(f"{key}={value} and {name}={ours[name]} ({source}) exclude each other: leave {key} out.")
    notes.append(f"{key}={value} in {source} is called target_update_interval here, target_update_unit=gradient_steps")


def in_env_args(given: Mapping[str, Any], env: Any, source: str) -> Translated:
    """Settings of a source with those of the environment suite ``env`` under the names of today.

    Raises:
        UserError: two names of one setting have different values.
    """
    result = Translated(dict(given))
    old_names, env_args = IN_ENV_ARGS.get(env, {}) if isinstance(env, str) else {}, given.get("env_args")
    if not isinstance(env_args, Mapping) or not old_names.keys() & env_args.keys():
        return result
    ours = {key: value for key, value in env_args.items() if key not in old_names}
    for old, moved in old_names.items():
        if old not in env_args:
            continue
        said, value = f"env_args.{old}={env_args[old]}", moved.value(env_args[old])
        if ours.setdefault(moved.name, value) != value:
            other = f"env_args.{moved.name}={ours[moved.name]}"
            raise UserError(f"{said} and {other} ({source}) are one setting: leave env_args.{old} out.")
        result.notes.append(f"{said} in {source} is called env_args.{moved.name}={value} here")
    result.settings["env_args"] = ours
    return result


def current(config: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings under the names of today; what cannot be told apart is left as it is."""
    try:
        return in_env_args(config, config.get("env"), "the record").settings
    except UserError:
        return dict(config)


def is_foreign(source: str, sources: Mapping[str, str]) -> bool:
    """Whether ``source`` is an algorithm's file of another code, which sets more than the algorithm reads."""
    return MARK in sources and source in (sources[MARK], sources[MARK] + BEHIND)


def without_effect(path: str, value: Any, values: Values) -> WithoutEffect | None:
    """What to say of a setting (dotted name) that no component of a run with the settings ``values`` reads.

    None where no other code is known to have it.
    """
    old = OLD.get(path)
    return None if old is None else WithoutEffect(old.why, old.asks_for_the_same(value, values))
