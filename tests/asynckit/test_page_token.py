"""A request that changes something needs the token of a page."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from asynckit.web.page_token import HEADER, check_token, page_token
from common.http.frame import json_errors
from common.http.guard import HOST

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async def change(request: web.Request) -> web.Response:
        await check_token(request, "/page")
        return web.Response(text="changed")

    app = web.Application(middlewares=[json_errors])
    app[HOST] = "127.0.0.1"
    app.router.add_post("/", change)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_the_token_of_the_page_is_accepted(client: Client) -> None:
    assert (await client.post("/", data={"token": page_token("/page")})).status == 200
    assert (await client.post("/", headers={HEADER: page_token("/page")})).status == 200


@pytest.mark.parametrize("token", ["", "x", "\udcff", "é" * 64])
async def test_any_other_token_is_refused(client: Client, token: str) -> None:
    data = aiohttp.FormData({"token": token.encode("utf-8", "replace").decode()})
    assert (await client.post("/", data=data)).status == 403
    assert (await client.post("/", data={"token": page_token("/another")})).status == 403
    assert (await client.post("/")).status == 403
