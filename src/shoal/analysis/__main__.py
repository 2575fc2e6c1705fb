"""Recorded runs as tables, pictures and a report.

    python -m shoal.analysis report results/sacred --out report.html
    python -m shoal.analysis table results/sacred --where env_args.map_name=3m
    python -m shoal.analysis curves results/sacred/1 results/sacred/2 --metric test_return_mean
    python -m shoal.analysis aggregate localhost:27017:sacred --out comparison

Runs are given as their folders, as folders of them, or as a MongoDB address. Runs that were resumed are put together;
runs of one name, map and settings are seeds of one algorithm; runs that cannot be compared are named and drawn, and do
not count.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.analysis.sources import gather
from shoal.utils.ending import exit_status
from shoal.utils.extras import needed_for
from shoal.utils.program import typed

if TYPE_CHECKING:
    from shoal.analysis.study import Study


_DOOR = "python -m shoal.analysis"


def main(argv: list[str] | None = None) -> int:
    """The command line. Exit status: 0 done, 1 an error the user can fix, 2 a command line that was not understood."""
    args = _parser().parse_args(argv)

    def compare() -> int:
        with needed_for("Comparing runs", "analysis"):
            args.run(args)
        return 0

    return exit_status(compare)


def _table(args: argparse.Namespace) -> None:
    """One row a run, and every recorded value as CSV."""
    from shoal.analysis import tables
    from shoal.analysis.study import default_metric
    from shoal.analysis.wins import with_all_wins

    runs = gather(args.runs, args.where)
    metric = args.metric[0] if args.metric else default_metric(runs)
    values = tables.tidy(runs, args.metric)
    overview = tables.runs_table(with_all_wins(runs), metric)
    print(tables.markdown(overview))
    paths = [*tables.write(overview, args.out / "runs", f"last, best and absolute: {metric}, as recorded.")]
    paths.append(tables.write_csv(values, args.out / "values.csv"))
    _say(*paths)


def _curves(args: argparse.Namespace) -> None:
    """Learning curves with intervals, a diagram for each map."""
    from shoal.analysis import plots, tables
    from shoal.analysis.comparison import seed_notes

    study = _study(args)
    _note(seed_notes(study))
    picture = plots.curves(study, args.out, args.over, args.title)
    _say(picture, *tables.write(tables.curves_table(study), args.out.with_suffix(""), "Mean over runs, as recorded."))


def _aggregate(args: argparse.Namespace) -> None:
    """Aggregate scores, performance profiles, probabilities of improvement and efficiency."""
    from shoal.analysis import plots, tables
    from shoal.analysis.comparison import compare

    study = _study(args)
    comparison = compare(study)
    _note(comparison.notes)
    tables.make_folder(args.out)
    note = plots.normalisation(study, comparison.tasks)
    every = plots.normalisation(study, study.tasks)
    table = tables.aggregates_table(comparison)
    print(tables.markdown(table) + f"\n{note} {plots.BOOTSTRAP} in brackets.")
    paths = [plots.aggregates(study, comparison, args.out / "aggregates.png", args.title)]
    paths.append(plots.profiles(study, comparison, args.out / "profiles.png", args.title))
    paths.append(plots.efficiency(study, args.threshold, args.out / "efficiency.png", args.title))
    paths += tables.write(table, args.out / "aggregates", note)
    paths += tables.write(tables.scores_table(study), args.out / "scores", every)
    paths += tables.write(tables.profiles_table(comparison, plots.THRESHOLDS), args.out / "profiles", note)
    paths += tables.write(tables.efficiency_table(study, args.threshold), args.out / "efficiency", every)
    if len(comparison.scores) > 1:
        paths.append(plots.improvements(study, comparison, args.out / "improvements.png", args.title))
        paths += tables.write(tables.improvements_table(comparison), args.out / "improvements", note)
    _say(*paths)


def _report(args: argparse.Namespace) -> None:
    """One HTML page with all of it, which opens offline."""
    from shoal.analysis.report import write_report

    _say(write_report(_study(args), args.out, args.threshold, args.title or "Report"))


def _study(args: argparse.Namespace) -> "Study":
    """The runs, made comparable; those that do not count are named on the error stream."""
    from shoal.analysis.study import study

    made = study(gather(args.runs, args.where), args.metric, args.score, args.bounds, args.t_max)
    _note(
        f"run {left.run.id} ({left.algorithm} on {left.run.task}) does not count: {left.reason}."
        for left in made.left_out
    )
    return made


def _note(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(f"note: {sentence}", file=sys.stderr)


def _say(*paths: Path) -> None:
    for path in paths:
        print(path)


def _description() -> str:
    assert __doc__ is not None
    return __doc__.replace(_DOOR, typed("compare"))


def _parser() -> argparse.ArgumentParser:
    every, judged, scored = _shared_options()
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=typed("compare"), description=_description(), formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(run: Callable[[argparse.Namespace], None], out: str, what: str, *parents: argparse.ArgumentParser) -> Any:
        assert run.__doc__
        text = run.__doc__.rstrip(".")
        made = commands.add_parser(run.__name__.strip("_"), parents=parents, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--out", type=Path, default=Path(out), help=f"{what} (default: %(default)s)")
        return made

    table = add(_table, "tables", "folder to write to", every)
    table.add_argument(
        "--metric", action="append", default=[], help="values of this metric only; may be repeated (default: all)"
    )
    curves = add(_curves, "curves.png", "picture to write, with its table next to it", every, judged)
    curves.add_argument(
        "--over",
        choices=["steps", "hours"],
        default="steps",
        help="x-axis: environment steps, or the runs' own clocks (default: %(default)s)",
    )
    curves.set_defaults(score="", bounds=())
    add(_aggregate, "aggregates", "folder to write to", every, judged, scored)
    add(_report, "report.html", "page to write", every, judged, scored)
    return parser


def _shared_options() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser, argparse.ArgumentParser]:
    """Options of every command, of those that compare runs, and of those that score them."""
    every, judged, scored = (argparse.ArgumentParser(add_help=False) for _ in range(3))
    every.add_argument(
        "runs",
        nargs="+",
        help="recorded runs: a run's folder, a folder of them (results/sacred), a MongoDB's HOST:PORT:DB or "
        "mongodb://..., or 'mongo' for the address in SHOAL_MONGO_URL",
    )
    every.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE[,VALUE]",
        help="only runs with this setting, as in env_args.map_name=3m; may be repeated",
    )
    judged.add_argument(
        "--metric",
        default="",
        help="what runs are judged by (default: the win rate in tests if any run recorded one, else test_return_mean)",
    )
    judged.add_argument(
        "--t-max",
        type=int,
        metavar="STEPS",
        help="compare up to this environment step (default: the end of a map's shortest completed run)",
    )
    judged.add_argument("--title", default="", help="heading")
    scored.add_argument(
        "--bounds",
        action="append",
        default=[],
        metavar="[MAP=]LOW:HIGH",
        help="what becomes a score of 0 and of 1, with an equals sign where LOW is negative: --bounds=-100:0; may be "
        "repeated (default: win rates as they are, others by the "
        "least and the greatest value of the runs)",
    )
    scored.add_argument(
        "--score",
        choices=["absolute", "final", "best", "tail"],
        default="",
        help="which value of a run is its score: the absolute metric, the last test, the best test, or the mean of "
        "the last tenth of the tests, at least five (default: absolute if all recorded it, else final)",
    )
    scored.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="normalised score whose first reaching is the efficiency (default: %(default)s)",
    )
    return every, judged, scored


if __name__ == "__main__":
    sys.exit(main())
