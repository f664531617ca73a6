"""The lab's proxy: what is held back, delayed and cut, for which source and in which direction."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from lab.harness.proxy import CLIENT, Proxy, a_proxy, a_proxy_thread
from tests.support.programs import LIMIT, until, wait_until

OTHER = "127.0.1.7"


@asynccontextmanager
async def an_echo() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers with what it gets. Yields its port, and what it has got."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                got.append(data)
                writer.write(data)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], got


@asynccontextmanager
async def a_connection(
    proxy: Proxy, source: str = CLIENT
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(LIMIT):
        return await reader.read(100)


async def test_what_is_held_back_arrives_later_and_other_sources_are_not_held() -> None:
    async with (
        an_echo() as (port, got),
        a_proxy(port) as proxy,
        a_connection(proxy) as (reader, writer),
        a_connection(proxy, OTHER) as (other, to_other),
    ):
        proxy.hold([CLIENT])
        writer.write(b"held")
        to_other.write(b"passed on")
        assert await answer(other) == b"passed on"
        assert got == [b"passed on"]
        proxy.restore([CLIENT])
        assert await answer(reader) == b"held"


async def test_one_direction_is_held_back() -> None:
    async with an_echo() as (port, got), a_proxy(port) as proxy, a_connection(proxy) as (reader, writer):
        proxy.hold([CLIENT], requests=False)
        writer.write(b"x")
        await until(lambda: got == [b"x"], "the request arrives")
        early = asyncio.create_task(answer(reader))
        writer.write(b"y")
        await until(lambda: got == [b"x", b"y"], "the second request arrives")
        assert not early.done()
        proxy.restore([CLIENT])
        assert (await early).startswith(b"x")


async def test_a_piece_that_is_delayed_arrives_no_earlier() -> None:
    async with an_echo() as (port, _), a_proxy(port) as proxy, a_connection(proxy) as (reader, writer):
        proxy.delay(0.1, [CLIENT], answers=False)
        begin = time.monotonic()
        writer.write(b"x")
        assert await answer(reader) == b"x"
        assert time.monotonic() - begin >= 0.1


async def test_a_connection_that_is_cut_loses_what_was_held_back() -> None:
    async with (
        an_echo() as (port, got),
        a_proxy(port) as proxy,
        a_connection(proxy) as (reader, writer),
        a_connection(proxy, OTHER) as (other, to_other),
    ):
        writer.write(b"first")
        assert await answer(reader) == b"first"
        proxy.hold([CLIENT])
        writer.write(b"lost")
        proxy.cut([CLIENT])
        with pytest.raises(ConnectionResetError):
            await answer(reader)
        await until(lambda: proxy.open == 1, "the other one is open")
        proxy.restore([CLIENT])
        to_other.write(b"second")
        assert await answer(other) == b"second"
        assert (got, proxy.times) == ([b"first", b"second"], 1)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        found.settimeout(LIMIT)
        yield found


def test_proxies_in_a_thread_lead_where_they_are_told(listener: socket.socket) -> None:
    with a_proxy_thread(2) as [one, two]:
        assert one.port != two.port
        two.lead_to(listener.getsockname()[1])
        two.hold()
        with socket.create_connection(("127.0.0.1", two.port), LIMIT) as client:
            client.sendall(b"hello")
            wait_until(lambda: two.open == 1, "the proxy has the connection")
            two.restore()
            with listener.accept()[0] as server:
                server.settimeout(LIMIT)
                assert server.recv(10) == b"hello"
