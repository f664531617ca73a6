"""A proxy in front of Redis that can close a connection instead of answering, or reset all connections at any time."""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any


class Proxy:
    def __init__(self, port: int) -> None:
        self.url = ""
        self.times = 0
        """How often it has closed a connection."""
        self._port = port
        self._word: bytes | None = None
        self._cuts_left = 0
        self.open = 0
        """The number of open connections."""
        self._writers: set[asyncio.StreamWriter] = set()

    def at(self, word: str, times: int = 1) -> None:
        """Pass on the next requests that contain this word, and close their connections when Redis answers."""
        self._word = word.encode()
        self._cuts_left = times

    def lead_to(self, port: int) -> None:
        """New connections lead to this port."""
        self._port = port

    def drop(self) -> None:
        """Reset all connections, as a proxy does in a failover."""
        for writer in self._writers:
            client: Any = writer.get_extra_info("socket")
            with suppress(OSError):  # the client has closed it just now
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
            writer.transport.abort()
            self.times += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self._writers.add(writer)
        with suppress(ConnectionError):
            to_redis = await asyncio.open_connection("127.0.0.1", self._port)
            cut = asyncio.Event()
            there = asyncio.create_task(self._requests(reader, to_redis[1], cut))
            back = asyncio.create_task(self._answers(to_redis[0], writer, cut))
            try:
                await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (there, back):
                    task.cancel()
                await asyncio.gather(there, back, return_exceptions=True)
                to_redis[1].close()
                writer.close()
        self.open -= 1
        self._writers.discard(writer)

    async def _requests(self, reader: asyncio.StreamReader, redis: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await reader.read(1 << 20):
            if self._word is not None and self._word in data:
                self._cuts_left -= 1
                if not self._cuts_left:
                    self._word = None
                cut.set()
            redis.write(data)
            await redis.drain()

    async def _answers(self, redis: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event) -> None:
        while data := await redis.read(1 << 20):
            if cut.is_set():
                self.times += 1
                return
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def a_proxy(port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield proxy
    finally:
        server.close()


@contextmanager
def dropping_proxy(port: int, every_seconds: float) -> Iterator[Proxy]:
    """A proxy in a separate thread. It resets all connections every `every_seconds`."""
    proxies: list[Proxy] = []
    ready, stop = threading.Event(), threading.Event()

    async def main() -> None:
        async with a_proxy(port) as proxy:
            proxies.append(proxy)
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(every_seconds)
                proxy.drop()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        ready.wait()
        yield proxies[0]
    finally:
        stop.set()
        thread.join()
