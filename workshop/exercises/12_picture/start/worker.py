"""Given: a worker that runs the jobs of thumbnail.py."""

from thumbnail import make_thumbnail

from common.processes.process import run, stop_requested
from common.settings import read_settings
from resque import Definition, Scaling, Worker, open_connections


async def work() -> None:
    settings = read_settings()
    async with open_connections(settings.redis) as connections:

        async def perform(arguments: dict[str, str]) -> None:
            await make_thumbnail(connections.commands, arguments["name"])

        async def stop() -> str:
            print("ready", flush=True)
            return await stop_requested()

        definitions = {"thumbnail": Definition(perform, attempts=2, base_seconds=0.1)}
        worker = Worker(
            connections, ["pictures"], definitions, scaling=Scaling(2, 2), lease_seconds=settings.lease_seconds
        )
        await worker.run(stop)


if __name__ == "__main__":
    run(work())
