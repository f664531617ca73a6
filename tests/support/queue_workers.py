"""The worker processes of strategy 5."""

from contextlib import suppress

import psutil

from tests.support.programs import Strategy, is_alive


def workers(strategy: Strategy) -> list[int]:
    """The pids of the worker processes that run."""
    found = []
    for process in strategy.program.descendants():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if is_alive(process) and process.cmdline()[-1:] == ["worker"]:
                found.append(process.pid)
    return found
