"""Which answer a client gets, and which name a picture gets."""

import asyncio

import pytest
from aiohttp import web

from common.http.guard import HOST
from common.http.serving import start
from examples.pictures.answers import errors
from examples.pictures.negotiation import quality
from examples.pictures.server import change_picture
from examples.pictures.upload import NAME_LENGTH, clean_name, read_form


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("*/*", False),
        ("application/json", False),
        ("text/html;q=0.5, application/json", False),
        ("text/*", True),
        ("text/html;q=0, */*", False),
        ("text/html; level=1; q=0.9, */*;q=0.1", True),
        ("TEXT/HTML", True),
        ("text/html;q=x, application/json;q=0.1", False),
        ("image/webp", False),
        ("", False),
    ],
)
def test_a_client_gets_html_if_it_prefers_it(accept: str, html: bool) -> None:
    assert (quality(accept, "text/html") > quality(accept, "application/json")) is html


@pytest.mark.parametrize(
    ("given", "name"),
    [("  a\tb\n", "a b"), ("\x00\u202e", None), ("", None), ("ä" * 300, "ä" * NAME_LENGTH), ("<b>&\"'", "<b>&\"'")],
)
def test_a_name_is_one_printable_line(given: str, name: str | None) -> None:
    assert clean_name(given) == name


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
async def test_a_client_that_disconnects_in_its_upload_is_no_outage(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    answered = asyncio.Event()

    async def upload(request: web.Request) -> web.StreamResponse:
        try:
            if kind == "application/json":
                return await change_picture(request)
            async with read_form(request, 1000):
                return web.Response()
        finally:
            answered.set()

    app = web.Application(middlewares=[errors])
    app[HOST] = "127.0.0.1"
    app.router.add_put("/{id}", upload)
    runner = await start(app, "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        head = f"PUT /{'0' * 32} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        writer.write(f"{head}Expect: 100-continue\r\nContent-Length: 100\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
        writer.write(b"-")
        writer.close()
        await answered.wait()
    finally:
        await runner.cleanup()
    assert not caplog.records
