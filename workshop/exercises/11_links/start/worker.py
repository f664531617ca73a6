"""Given: a worker for the jobs of links.py. `worker.py URL` also enqueues the first page."""

import sys
from urllib.parse import urlsplit

from aiohttp import ClientSession, ClientTimeout
from links import JOB, QUEUE, Checker

from common.processes.process import run, stop_requested
from common.settings import read_settings
from resque import Definition, Queue, Scaling, Worker, open_connections


async def work(url: str) -> None:
    settings = read_settings()
    async with open_connections(settings.redis) as connections, ClientSession(timeout=ClientTimeout(5)) as session:
        checker = Checker(connections.commands, Queue(connections.commands), session, urlsplit(url).netloc)
        await checker.enqueue(url)
        print("ready", flush=True)
        definitions = {JOB: Definition(checker.check, attempts=2, base_seconds=0.1)}
        options = {"scaling": Scaling(4, 4), "lease_seconds": settings.lease_seconds}
        await Worker(connections, [QUEUE], definitions, **options).run(stop_requested)  # type: ignore[arg-type]


if __name__ == "__main__":
    run(work(sys.argv[1]))
