"""A job may call `os.fork`."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

from tests.support.programs import LIMIT

FORKS = """
import asyncio, os, sys
from resque.isolation import Threads, call_on_loop

def forks(ends):
    pid = os.fork()
    if pid == 0 and ends:
        sys.exit(ends)
    return pid

async def forks_on_loop(ends):
    return forks(ends)

async def main():
    for ends in (None, "error"):
        calls = [call_on_loop(forks_on_loop, [ends]), Threads().call(forks, [ends])]
        pids = [await call for call in calls]
        print(os.getpid(), *[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])

asyncio.run(main())
"""


def test_the_child_of_a_job_that_forks_ends_with_the_job() -> None:
    """It shares our connections: if it ran our event loop, it would take answers that belong to the worker."""
    with subprocess.Popen([sys.executable, "-c", FORKS], stdout=subprocess.PIPE, text=True, process_group=0) as program:
        try:
            printed, _ = program.communicate(timeout=LIMIT)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
    assert printed.splitlines() == [f"{program.pid} 0 0", f"{program.pid} 1 1"]
