"""The ``shoal`` command: one door to everything, over the same code as the scripts of ``src`` and the modules."""

import difflib
import sys
from collections.abc import Callable

from shoal.command_line import main as cli
from shoal.utils.ending import exit_status
from shoal.utils.errors import UserError
from shoal.utils.program import started_as, typed

_HELP = """Shoal trains teams of cooperating agents (multi-agent reinforcement learning).

  {program} COMMAND ...        ({program} COMMAND --help for more)

{commands}

Try:
  {program} train --config=s2q --env-config=smax with env_args.map_name=3m t_max=500000
  {program} train with resume=results/sacred/1
  {program} evaluate results/sacred/1 with test_nepisode=100
  {program} compare report results/sacred --out report.html
"""


def _train(words: list[str]) -> int:
    """Train, or resume a run that was stopped."""
    return _run(words or ["--help"])


def _evaluate(words: list[str]) -> int:
    """Test a checkpoint with its own settings, or with some of them changed."""
    if not words or {"-h", "--help"} & set(words):
        print(_EVALUATE_HELP.format(evaluate=typed("evaluate"), train=typed("train")))
        return 0
    return exit_status(lambda: cli.understood(_evaluation(words)))


def _print_config(words: list[str]) -> int:
    """Every setting of a run, its meaning and source."""
    return _run(["print_config", *words])


def _sweep(words: list[str]) -> int:
    """Many runs: algorithms, environments, maps and seeds, or a search for settings."""
    from shoal.sweeps.cli import main

    return main(["sweep", *words])


def _compare(words: list[str]) -> int:
    """Recorded runs as tables, pictures and a report."""
    from shoal.analysis.__main__ import main

    return main(words)


def _reproduce(words: list[str]) -> int:
    """Reproduce the papers' figures and tables, with verdicts on their claims."""
    from shoal.reproduce.__main__ import main

    return main(words)


def _list(words: list[str]) -> int:
    """Every algorithm, environment, runner, controller, learner, mixer and agent."""
    if words and words not in (["-h"], ["--help"]):
        return exit_status(lambda: _refuse(f"list takes nothing else, not {' '.join(words)!r}."))
    return _run(["--list"])


def _doctor(words: list[str]) -> int:
    """Check the installation, play a step of every suite and print fixes."""
    return _run(["doctor", *words])


def _export(words: list[str]) -> int:
    """Write the trained team of a checkpoint to a file, for Shoal or as ONNX."""
    return _run(["export", *words])


def _sync(words: list[str]) -> int:
    """Send recorded runs to MongoDB afterwards."""
    return _run(["sync", *words])


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "sweep": _sweep,
    "compare": _compare,
    "reproduce": _reproduce,
    "list": _list,
    "print_config": _print_config,
    "export": _export,
    "sync": _sync,
    "doctor": _doctor,
}
"""Name -> what carries it out: the words behind the name -> the exit status. Its docstring is its line of help."""

_EVALUATE_HELP = """Tests a checkpoint: its own settings, greedy actions, nothing learnt.

  {evaluate} CHECKPOINT [options] [with KEY=VALUE ...]

  CHECKPOINT          a recorded run (results/sacred/7), a folder of results/models, or a .pt file in it
  with KEY=VALUE ...  change settings: test_nepisode=100, env_args.map_name=2s3z, load_step=50000, save_replay=True
  --trust             let a checkpoint that another account wrote import the code that it names

The options are those of {train}.
"""


def main(argv: list[str] | None = None, program: str = "shoal") -> int:
    """Run the command line ``argv``, or else this process's. Returns the exit status, as ``src/main.py`` does."""
    words = sys.argv[1:] if argv is None else argv
    started_as(program)
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    if name in COMMANDS:
        return COMMANDS[name](rest)
    if name in ("-h", "--help", "help"):
        lines = "\n".join(f"  {known:<14}{command.__doc__}" for known, command in COMMANDS.items())
        return exit_status(lambda: _say(_HELP.format(program=program, commands=lines)))
    if name == "--version":
        from shoal import __version__

        return exit_status(lambda: _say(__version__))
    return exit_status(lambda: _refuse(_unknown(name, program)))


def _run(words: list[str]) -> int:
    return exit_status(lambda: cli.understood(words))


def _evaluation(words: list[str]) -> list[str]:
    """The words of ``train`` that test the checkpoint named in those of ``evaluate``."""
    at = words.index("with") if "with" in words else len(words)
    before, settings = words[:at], words[at + 1 :]
    if not before or before[0].startswith("-"):
        raise UserError(f"evaluate needs a checkpoint first: {typed('evaluate')} results/sacred/7 (see --help).")
    return [*before[1:], "with", *settings, f"checkpoint_path={before[0]!r}", "evaluate=True"]


def _say(text: str) -> int:
    print(text)
    return 0


def _refuse(sentence: str) -> int:
    raise UserError(sentence)


def _unknown(name: str, program: str) -> str:
    if name.startswith(("--config", "--env-config", "with")):
        return f"{program} wants a command first: {program} train {name} ..."
    near = difflib.get_close_matches(name, list(COMMANDS), n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}."
    return f"Unknown command {name!r}: {meant} ({program} --help tells more.)"
