"""A role that misbehaves: `python -m tests.support.odd_role at-start | looking | later | parent | cancels`.

All but the last end by themselves with exit status 2: "looking" when it has waited a while for the stop but not started
yet, "later" when it has started. "parent" does so too, and leaves a process behind that keeps its output open.
"cancels" cancels all tasks, and then its main task never ends.
"""

import asyncio
import os
import sys
from contextlib import suppress

from common.processes.process import run, stop_requested


async def cancel_all_tasks() -> None:
    await asyncio.wait([asyncio.create_task(stop_requested())], timeout=0.05)
    for task in asyncio.all_tasks():
        task.cancel()
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


async def work(role: str) -> None:
    if role == "at-start":
        sys.exit(2)
    if role == "looking":
        with suppress(TimeoutError):
            await asyncio.wait_for(stop_requested(started=False), 0.05)
        sys.exit(2)
    if role == "cancels":
        await cancel_all_tasks()
    stop = asyncio.create_task(stop_requested())
    await asyncio.wait([stop], timeout=0.05)
    if role == "parent":
        orphan = await asyncio.create_subprocess_exec("sleep", "600")
        print(f"left {orphan.pid}", flush=True)
    os._exit(2)


if __name__ == "__main__":
    run(work(sys.argv[1]))
