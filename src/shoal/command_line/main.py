"""The command line of ``python src/main.py`` and ``shoal train``, up to where it is known what has to be imported."""

from shoal.command_line.imports import late_imports
from shoal.config import CONFIG_OPTIONS
from shoal.utils.ending import exit_status
from shoal.utils.errors import UserError
from shoal.utils.lean_imports import import_sacred
from shoal.utils.program import typed

TRUST = "--trust"
_HELP = """Shoal trains teams of cooperating agents (multi-agent reinforcement learning).

  {train} --config=ALG --env-config=ENV [with KEY=VALUE ...] [options]

  --config=ALG        algorithm: a name from --list, or a path to a YAML file of your own
  --env-config=ENV    environment: a name from --list, or a path to a YAML file of your own
  with KEY=VALUE ...  override settings; those of the environment are env_args.KEY=VALUE
  --list              every algorithm, environment, runner, controller, learner, mixer and agent
  doctor [--quick]    check the installation and print fixes; --quick does not play a step of every suite
  sync RUN_DIR ...    send recorded runs to MongoDB afterwards
  export CHECKPOINT   write the trained team of a checkpoint to a file of its own
  --trust             allow a checkpoint from another account to import the code it names (resume, export)

Try:
  {train} --config=s2q --env-config=smax with env_args.map_name=3m t_max=500000
  {train} print_config --config=s2q --env-config=smax        every setting, its meaning and source
  {train} with resume=results/models/NAME                    resume a run that was stopped
  {train} with checkpoint_path=results/models/NAME evaluate=True    test its newest checkpoint

Runs are recorded by sacred under results/sacred. All of sacred's commands and options work:

  -F DIR --file_storage=DIR      folder of the records (default: results/sacred)
  -m ADDRESS --mongo_db=ADDRESS  record in MongoDB too: [HOST:PORT:]DATABASE
  -S ADDRESS --s3=ADDRESS        record in S3 too: s3://BUCKET/PATH
  -s URL --sql=URL               record in an SQL database too
  -t PATH --tiny_db=PATH         record in a TinyDB too
  -u --unobserved                record nothing
  -i ID --id=ID                  the record's number or name
  -n NAME --name=NAME            the experiment's name in the record (default: the algorithm's)
  -c TEXT --comment=TEXT         a comment in the record
  -b S --beat-interval=S         seconds between two heartbeats
  -C HOW --capture=HOW           how printed text is recorded: no, sys or fd
  -l LEVEL --loglevel=LEVEL      what sacred says: DEBUG, INFO, WARNING, ERROR, CRITICAL, or 0 to 50
  -p --print-config              print the settings first
  -e --enforce_clean             refuse to run where files of Shoal differ from the last commit
  -f --force                     do not warn about suspicious changes of settings
  -q --queue                     record the run as queued, and do not start it
  -P N --priority=N              priority of a queued run
  -d --debug                     whole tracebacks
  -D --pdb                       a debugger where an exception ends the run
  -h --help                      this page

  print_config         print the run's settings
  save_config          write them into a file
  print_dependencies   print source files and packages that a record names
  print_named_configs  print sacred's named configurations (Shoal has none)
"""


def main(argv: list[str]) -> int:
    """Run the command line. Exit status: 0 done, 1 an error the user can fix, 128 + n stopped by signal n."""
    return exit_status(lambda: understood(argv[1:]))


def understood(words: list[str]) -> int:
    """Carry out a command line. Returns its exit status.

    Raises:
        UserError: it cannot be understood, or what it asks for cannot be done.
    """
    if words[:1] == ["doctor"]:  # it needs nothing that may be missing
        from shoal.command_line import doctor

        return doctor.main(words[1:])
    for word in words:
        if not word.isascii() and word.encode(errors="replace").decode() != word:
            raise UserError(f"{word!a} on the command line is not valid UTF-8: write it in UTF-8.")
    chosen, rest = _pop_config_options(words)
    trusted = TRUST in rest
    rest = [argument for argument in rest if argument != TRUST]
    if "--list" in rest:
        with late_imports():
            from shoal.command_line.listing import list_components
        print(list_components())
        return 0
    if rest[:1] == ["doctor"]:
        return understood(rest)
    if rest[:1] == ["sync"]:
        from shoal.command_line import sync

        return sync.main(rest[1:])
    if rest[:1] == ["export"]:
        from shoal.command_line import export

        return export.main(rest[1:], trusted)
    if (not rest and not chosen) or {"-h", "--help"} & set(rest) or rest[:1] == ["help"]:
        print(_HELP.format(train=typed("train")))
        return 0
    with late_imports():
        import_sacred()
        from shoal.command_line import train as train_command
    return train_command.run(chosen, rest, trusted)


def _pop_config_options(args: list[str]) -> tuple[dict[str, str], list[str]]:
    """Take ``--config=X`` and ``--env-config=X`` (or with a space) out of the arguments."""
    chosen: dict[str, str] = {}
    rest: list[str] = []
    pending = list(args)
    while pending:
        argument = pending.pop(0)
        option, equals, value = argument.partition("=")
        if option not in CONFIG_OPTIONS:
            rest.append(argument)
            continue
        if not equals:
            value = pending.pop(0) if pending else ""
        if not value or value == "with":
            raise UserError(f"{option} needs a name: {option}=NAME (--list shows them).")
        if option in chosen:
            raise UserError(f"{option} is given twice ({chosen[option]} and {value}): choose one.")
        chosen[option] = value
    return chosen, rest
