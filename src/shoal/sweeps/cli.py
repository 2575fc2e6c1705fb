"""The sweep's command line, from its words to its exit status."""

import shlex

from shoal.sweeps.options import parsed
from shoal.utils.ending import exit_status
from shoal.utils.program import typed


def main(argv: list[str]) -> int:
    """Run the command line. Exit status: 0 all runs finished, 1 some failed for good or an error the user can fix,
    128 + n stopped by signal n.
    """
    again = f"{typed('sweep')} {shlex.join(argv[1:])}"

    def sweep() -> int:
        options, settings = parsed(argv[1:])
        from shoal.sweeps.carry_out import carry_out  # torch, which no help needs
        from shoal.sweeps.request import read

        return carry_out(read(options, settings), again)

    return exit_status(sweep, stopped=f"stopped at once; resume with: {again}")
