"""TCP proxies in front of servers, which make the network fail: connections are cut, or bytes come late or not at all.

A proxy knows the address from which a connection comes, so it can treat clients, replicas and sentinels differently
(common/services/node.py gives each server an address of its own). Bytes that are held back are not lost: as when
packets are dropped, they arrive when the network works again, unless the connection has already ended.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

POLL_SECONDS = 0.005
CLIENT = "127.0.0.1"  # the source address of programs that do not choose one


@dataclass(frozen=True)
class Way:
    """What happens to the bytes of one direction."""

    held: bool = False
    seconds: float = 0.0
    """How much later each piece arrives."""


@dataclass(eq=False)
class Connection:
    source: str
    writer: asyncio.StreamWriter
    cut: bool = False
    """It ends when the server answers."""


class Proxy:
    """All methods except `serve` may be called from any thread."""

    def __init__(self, port: int) -> None:
        """`port`: of the server."""
        self.port = 0
        self.times = 0
        """How often it has ended a connection."""
        self._to_port = port
        self._word: bytes | None = None
        self._cuts_left = 0
        self._ways: dict[tuple[str, bool], Way] = {}  # by source, and True for the answers
        self._connections: set[Connection] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    def at(self, word: str, times: int = 1) -> None:
        """Pass on the next requests that contain this word, and end their connections when the server answers."""
        self._word = word.encode()
        self._cuts_left = times

    def lead_to(self, port: int) -> None:
        """New connections lead to this port."""
        self._to_port = port

    def hold(self, sources: Collection[str] = (CLIENT,), *, requests: bool = True, answers: bool = True) -> None:
        """Hold back all bytes, and new connections, without an error that either side could see."""
        self._set(sources, requests, answers, Way(held=True))

    def delay(
        self, seconds: float, sources: Collection[str] = (CLIENT,), *, requests: bool = True, answers: bool = True
    ) -> None:
        self._set(sources, requests, answers, Way(seconds=seconds))

    def restore(self, sources: Collection[str] = (CLIENT,)) -> None:
        """Pass on what was held back, and everything that follows."""
        self._set(sources, True, True, Way())

    def _set(self, sources: Collection[str], requests: bool, answers: bool, way: Way) -> None:
        for source in sources:
            self._ways |= {(source, back): way for back, chosen in ((False, requests), (True, answers)) if chosen}

    def cut(self, sources: Collection[str] | None = None) -> None:
        """Reset all connections from these sources (None: all), as a firewall does. What was held back is lost."""
        self._loop.call_soon_threadsafe(self._reset, sources)

    def _reset(self, sources: Collection[str] | None) -> None:
        for connection in [one for one in self._connections if sources is None or one.source in sources]:
            client: Any = connection.writer.get_extra_info("socket")
            with suppress(OSError):  # the client has closed it just now
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
            connection.writer.transport.abort()
            self.times += 1

    async def end(self) -> None:
        """Reset all connections, and return when they are closed."""
        self._reset(None)
        while self._connections:  # noqa: ASYNC110  they end within a few turns of the loop
            await asyncio.sleep(POLL_SECONDS)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer.get_extra_info("peername")[0], writer)
        self._connections.add(connection)
        try:
            with suppress(OSError):
                await self._pass_on(connection, reader)
        finally:
            writer.close()
            self._connections.discard(connection)

    async def _pass_on(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        await self._travel(connection, back=False)
        answers, server = await asyncio.open_connection("127.0.0.1", self._to_port)
        there = asyncio.create_task(self._requests(connection, reader, server))
        back = asyncio.create_task(self._answers(connection, answers))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            server.close()

    async def _travel(self, connection: Connection, *, back: bool) -> None:
        """Wait as long as a piece is in transit in this direction. Raises ConnectionError if it was cut."""
        key = (connection.source, back)
        await asyncio.sleep(self._ways.get(key, Way()).seconds)
        while self._ways.get(key, Way()).held:
            if connection.writer.transport.is_closing():
                raise ConnectionError
            await asyncio.sleep(POLL_SECONDS)

    async def _requests(
        self, connection: Connection, reader: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(1 << 20):
            if self._word is not None and self._word in data:
                self._cuts_left -= 1
                if not self._cuts_left:
                    self._word = None
                connection.cut = True
            await self._travel(connection, back=False)
            server.write(data)
            await server.drain()
        await self._travel(connection, back=False)

    async def _answers(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(1 << 20):
            if connection.cut:
                self.times += 1
                return
            await self._travel(connection, back=True)
            connection.writer.write(data)
            await connection.writer.drain()
        await self._travel(connection, back=True)


@asynccontextmanager
async def a_proxy(port: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port, in front of the server on this port."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()


@contextmanager
def a_proxy_thread(count: int) -> Iterator[list[Proxy]]:
    """This number of proxies on free ports, in a thread of their own. They lead nowhere until you call `lead_to`."""
    proxies: list[Proxy] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            proxies.extend([await stack.enter_async_context(a_proxy(0)) for _ in range(count)])
            ready.set()
            await stop.wait()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=runner.run, args=(main(),))
        thread.start()
        try:
            ready.wait()
            yield proxies
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
