"""Processes for jobs that compute: the event loop stays free, and each core has something to do."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait


def process_pool(processes: int | None = None) -> ProcessPoolExecutor:
    """So many processes (as a rule one for each core), started when they are needed. None outlives its parent."""
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A parent that is killed closes nothing in order; its children would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(0)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
