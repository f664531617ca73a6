"""A wire that takes its time: a TCP proxy that delivers each piece of the server's answers later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass


@dataclass
class Wire:
    port: int
    round_trips: int = 0
    """How often the client has sent something after an answer was delivered to it."""
    delivered: bool = False


@asynccontextmanager
async def slow_wire(port: int, seconds: float) -> AsyncIterator[Wire]:
    """Run it before this port of loopback. `seconds` are added to each round trip."""
    loop = asyncio.get_running_loop()
    wires: set[asyncio.Task[None]] = set()
    wire = Wire(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            wires.add(task)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            async with asyncio.TaskGroup() as directions:
                directions.create_task(ask(reader, server_writer))
                directions.create_task(answer(server_reader, writer))

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            wire.round_trips += wire.delivered
            wire.delivered = False
            writer.write(data)
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            loop.call_later(seconds, deliver, writer, data)  # pieces do not wait for each other
        await asyncio.sleep(seconds)
        writer.close()
        await writer.wait_closed()

    def deliver(writer: asyncio.StreamWriter, data: bytes) -> None:
        wire.delivered = True
        writer.write(data)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        wire.port = server.sockets[0].getsockname()[1]
        yield wire
    finally:
        server.close()
        await asyncio.wait(wires)
