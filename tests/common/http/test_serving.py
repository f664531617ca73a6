"""Idle and slow connections do not keep the server from answering other clients."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from common.http import connections, frame, serving
from common.http.frame import json_errors
from common.http.guard import HOST
from common.http.serving import start
from tests.support.programs import LIMIT, ask, until

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


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")
async def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "UNREAD_SECONDS", 0.5)
    opened: list[object] = []

    def admit(_: object, one: object) -> bool:
        opened.append(one)
        return True

    monkeypatch.setattr(connections.Connections, "admit", admit)
    monkeypatch.setattr(connections.Connections, "remove", lambda _, one: opened.remove(one))
    async with running() as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            while True:  # until neither side takes any more
                try:
                    await asyncio.wait_for(
                        asyncio.get_running_loop().sock_sendall(client, (HEAD + b"\r\n") * 1000), 1.0
                    )
                except (TimeoutError, ConnectionError):
                    break
            await until(lambda: not opened, "the connection is closed")


async def test_every_refusal_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that do not reach the application."""
    monkeypatch.setattr(connections, "_descriptors", lambda: 2)
    async with running() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"Expect: <miracles>\r\n\r\n")
        assert b" 417 " in await reader.readline()
        answers = [await answer(reader)]
        writer.write(HEAD.replace(b"GET", b"POST") + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")  # so it is not idle
        refused, second = await asyncio.open_connection("127.0.0.1", port)
        assert b" 503 " in await refused.readline()
        answers.append(await answer(refused))
        for each in (writer, second):
            each.close()
    reasons = [json.loads(each)["error"]["reason"] for each in answers]
    assert reasons == ["Unknown Expect: <miracles>", "too many connections are open"]


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The body of an answer whose first line has been read."""
    headers = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert b"content-type: application/json" in headers
    return await reader.readexactly(int(headers.partition(b"content-length: ")[2].split(b"\r")[0]))


OURS, OTHER = b"127.0.0.1", b"evil.test"
FIRST_LINES = [
    (b"GET / HTTP/1.1\r\nHost: %b" % OURS, 200),
    (b"GET / HTTP/1.1\r\nHost: %b" % OTHER, 403),
    (b"GET http://%b/ HTTP/1.1\r\nHost: %b" % (OURS, OURS), 200),
    (b"GET http://%b/ HTTP/1.1\r\nHost: %b" % (OURS, OTHER), 200),  # RFC 9112, 3.2.2: the header is ignored
    (b"GET http://%b/ HTTP/1.1\r\nHost: %b" % (OTHER, OURS), 403),
    (b"GET HTTP://%b:80/ HTTP/1.1\r\nHost: %b" % (OTHER, OURS), 403),
    (b"GET http://%b HTTP/1.1\r\nHost: %b" % (OTHER, OURS), 403),
    (b"GET http://%b@%b/ HTTP/1.1\r\nHost: %b" % (OURS, OTHER, OURS), 403),
    (b"GET //%b/ HTTP/1.1\r\nHost: %b" % (OTHER, OURS), 404),  # a path that begins with two slashes
    (b"GET / HTTP/1.1\r\nX: y", 400),
    (b"GET http://%b/ HTTP/1.1\r\nX: y" % OURS, 400),
    (b"GET / HTTP/1.1\r\nHost: %b\r\nHost: %b" % (OURS, OTHER), 400),
    (b"GET / HTTP/1.1\r\nHost: x@%b" % OURS, 403),
    (b"GET / HTTP/1.1\r\nHost: %b/x" % OURS, 400),
    (b"GET * HTTP/1.1\r\nHost: %b" % OURS, 400),
    (b"OPTIONS * HTTP/1.1\r\nHost: %b" % OURS, 404),
]


@pytest.mark.parametrize(("first", "status"), FIRST_LINES)
async def test_an_absolute_url_in_the_first_line_names_the_host(first: bytes, status: int) -> None:
    async with running() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first + b"\r\n\r\n")
        assert int((await reader.readline()).split()[1]) == status
        await answer(reader) if status >= 400 else None
        writer.close()
