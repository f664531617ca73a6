"""A proxy in front of Redis that sees each command of the learner's program, and can delay it or hold it back."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

See = Callable[[bytes], Awaitable[bool]]
"""Gets the bytes of one or more commands. Returns whether they are passed on."""


class Proxy:
    def __init__(self, url: str, see: See) -> None:
        self._target = urlsplit(url)
        self._see = see
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return f"redis://127.0.0.1:{port}{self._target.path}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        from_redis, to_redis = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers += [writer, to_redis]
        with suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(self._commands(reader, to_redis), _copy(from_redis, writer))

    async def _commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1 << 16):
            if await self._see(chunk):
                writer.write(chunk)
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(1 << 16):
        writer.write(chunk)
    writer.transport.abort()


class CutAfter:
    """Passes the first `number` chunks that name a key of the exercise, and holds back everything after them.

    A program that is killed then is killed between two of its commands, at an exact place.
    """

    def __init__(self, number: int, mark: bytes) -> None:
        self.cut = asyncio.Event()
        self._left = number
        self._mark = mark

    async def __call__(self, chunk: bytes) -> bool:
        if self.cut.is_set():
            return False
        if self._mark in chunk:
            if not self._left:
                self.cut.set()
                return False
            self._left -= 1
        return True


class PauseAfter:
    """Passes the first `number` chunks that name a key of the exercise, and delays the next one until `over` is set."""

    def __init__(self, number: int, mark: bytes) -> None:
        self.over = asyncio.Event()
        self.seen = 0
        """The number of these chunks, including the delayed one."""
        self._number = number
        self._mark = mark

    async def __call__(self, chunk: bytes) -> bool:
        if self._mark in chunk:
            self.seen += 1
            if self.seen > self._number:
                await self.over.wait()
        return True
