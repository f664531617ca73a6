"""A role that ends by itself with exit status 2: `python -m tests.support.odd_role at-start | later | parent`.

"later" ends after it has started. So does "parent", and it leaves behind a process that keeps its output open.
"""

import asyncio
import os
import sys

from common.processes.process import run, stop_requested


async def work(role: str) -> None:
    if role == "at-start":
        sys.exit(2)
    stop = asyncio.create_task(stop_requested())
    await asyncio.wait([stop], timeout=0.05)
    if role == "parent":
        orphan = await asyncio.create_subprocess_exec("sleep", "600")
        print(f"left {orphan.pid}", flush=True)
    os._exit(2)


if __name__ == "__main__":
    run(work(sys.argv[1]))
