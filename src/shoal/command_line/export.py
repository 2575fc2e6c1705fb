"""``export CHECKPOINT``: its help and its words; what it does is in ``deployment.py``."""

from pathlib import Path

from shoal.command_line.imports import late_imports
from shoal.utils.errors import UserError
from shoal.utils.program import typed

HELP = """Writes what is deployed of a checkpoint into a file of its own: the agents' network and what they need to act.
Mixers, critics, target networks, optimisers and replay memory stay behind.

  {export} CHECKPOINT [--onnx] [--out FILE] [--load_step STEP]

  CHECKPOINT          a folder of results/models, a .pt file in it, or a recorded run (results/sacred/7)
  --onnx              write the team's step as an ONNX model, which plays without torch and Shoal (docs/deployment.md)
  --out FILE          where to (default: team.pt, or team.onnx)
  --load_step STEP    the checkpoint nearest to this environment step (default: the newest)

In a program:

  from shoal import deployment
  team = deployment.load("team.pt")
"""


def main(args: list[str], trusted: bool = False) -> int:
    """Run the command. Exit status 0. ``trusted``: the checkpoint may name code outside Shoal, whoever wrote it.

    Raises:
        UserError: the command line cannot be understood, there is no such checkpoint, or the file cannot be written.
    """
    if {"-h", "--help"} & set(args):
        print(HELP.format(export=typed("export")))
        return 0
    source, out, step, as_onnx = _parse(args)
    with late_imports():
        from shoal import deployment
    deployment.write(source, out, step, as_onnx, trusted)
    return 0


def _parse(args: list[str]) -> tuple[Path, Path, int, bool]:
    options, places, rest = {"--out": "", "--load_step": "0"}, [], [word for word in args if word != "--onnx"]
    as_onnx = len(rest) < len(args)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        if word in options:
            if not equals and not rest:
                raise UserError(f"{word} needs a value: see {typed('export')} --help.")
            options[word] = value if equals else rest.pop(0)
        elif word.startswith("-"):
            raise UserError(f"export has no option {word}: see {typed('export')} --help.")
        else:
            places.append(word + equals + value)
    if len(places) != 1:
        raise UserError(f"export needs one checkpoint: {typed('export')} results/sacred/7 (see export --help).")
    if not options["--load_step"].isdigit():
        raise UserError(f"--load_step {options['--load_step']} is no environment step: give a whole number.")
    out = options["--out"] or ("team.onnx" if as_onnx else "team.pt")
    return Path(places[0]), Path(out), int(options["--load_step"]), as_onnx
