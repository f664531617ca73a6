"""A wire that takes its time: a TCP proxy that delivers each piece of the server's answers later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def slow_wire(port: int, seconds: float) -> AsyncIterator[int]:
    """Run it before this port of loopback; its own port. `seconds` are added to each round trip."""
    loop = asyncio.get_running_loop()
    wires: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            wires.add(task)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            async with asyncio.TaskGroup() as directions:
                directions.create_task(forward(reader, server_writer, 0.0))
                directions.create_task(forward(server_reader, writer, seconds))

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, later: float) -> None:
        while data := await reader.read(1 << 20):
            loop.call_later(later, writer.write, data)  # pieces do not wait for each other
        loop.call_later(later, writer.close)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait(wires)
