"""Keeps the garbage collector from stalling the event loop of a worker with very many jobs.

A full collection looks at every object of the process: with ten thousand jobs it takes a tenth of a second, and while
their number grows it runs again and again. `gc.freeze` excludes all objects that exist now from later collections, and
costs nothing. Objects without reference cycles are freed as usual. A frozen cycle that becomes garbage stays in memory
until only few jobs run. Such cycles take at most the memory that the jobs running at the same time have used.
"""

import gc

STEP = 500  # jobs; with fewer, a collection is short


class Collector:
    """Tell it how many slots there are, and after each claim how many jobs are running."""

    def __init__(self) -> None:
        self._frozen = 0  # jobs that were running at the last freeze

    def start(self, slots: int) -> None:
        if slots >= STEP:
            gc.freeze()

    def adjust(self, running: int) -> None:
        if running >= self._frozen + STEP:
            gc.freeze()
            self._frozen = running
        elif self._frozen and running < STEP:
            self.end()

    def end(self) -> None:
        gc.unfreeze()
        self._frozen = 0
