"""Idle and slow connections do not keep the server from answering other clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from common.http import connections, frame, serving
from common.http.frame import json_errors
from common.http.guard import HOST
from common.http.serving import start
from tests.support.programs import LIMIT, ask

HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@asynccontextmanager
async def running() -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application(middlewares=[json_errors])
    app[HOST] = "127.0.0.1"
    app.router.add_get("/", answer)
    app.router.add_post("/", answer)
    runner = await start(app, "127.0.0.1", 0)
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Everything that the server sends until it closes the connection."""
    async with asyncio.timeout(LIMIT):
        return await reader.read()


async def test_a_connection_with_slow_headers_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "IDLE_SECONDS", 0.5)
    async with running() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        waiting = asyncio.create_task(ended(reader))
        while not waiting.done():
            writer.write(b"G")
            await asyncio.sleep(0.05)
        assert b"200" not in await waiting
        writer.close()


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "IDLE_SECONDS", 0.5)
    async with running() as port:
        for begin in (b"", HEAD + b"\r\n", HEAD):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begin)
            await ended(reader)
            writer.close()


async def test_a_slow_body_is_answered_with_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "BODY_SECONDS", 0.3)
    async with running() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD.replace(b"GET", b"POST") + b"Content-Length: 100\r\n\r\nx")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_at_the_limit_the_oldest_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_descriptors", lambda: 12)
    async with running() as port:
        idle = []
        for _ in range(30):
            idle.append(await asyncio.open_connection("127.0.0.1", port))
            await asyncio.to_thread(ask, f"http://127.0.0.1:{port}")
        assert await ended(idle[0][0]) == b""
        for _, writer in idle:
            writer.close()


async def test_a_client_that_disconnects_in_its_body_is_not_an_error_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as port:
        await begin_a_body(port)
    assert not caplog.records


async def begin_a_body(port: int) -> None:
    """Send half a body, and disconnect when the server reads it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.replace(b"GET", b"POST") + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
    writer.write(b"x")
    writer.close()
    await writer.wait_closed()
