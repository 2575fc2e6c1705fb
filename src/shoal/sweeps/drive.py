"""The loop that every command which trains many runs is in: start what there is room for, watch, stop when asked."""

from shoal.sweeps.board import Board
from shoal.sweeps.pool import Pool
from shoal.sweeps.search import Search
from shoal.utils.signals import StopRequest

_TURN_S = 0.5


def drive(pool: Pool, board: Board, stop: StopRequest, search: Search | None = None) -> None:
    """Bring the jobs of ``pool``, and what ``search`` adds, to their end, or, when ``stop`` asks, to a checkpoint."""
    while True:
        if stop and not pool.stopping:
            board.say("stopping: every run finishes its rollout and saves a checkpoint (Ctrl-C again: at once)")
            pool.stop()
        if search:
            for line in search.settle():
                board.say(line)
            while search.wants_more and pool.idle and not pool.stopping:
                pool.add(search.more())
        if not pool.busy and not (search and search.wants_more and not pool.stopping):
            return
        for job in pool.turn(_TURN_S):
            board.changed(job, pool.jobs)
        board.show(pool.jobs)
