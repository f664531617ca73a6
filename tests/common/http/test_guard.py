"""The guard: which requests are answered, and which clients may make changes."""

import base64
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from common.http.frame import json_errors
from common.http.guard import HOST, PASSWORD, exposure

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def running(password: str | None = None, host: str = "127.0.0.1") -> AsyncIterator[Client]:
    async def change(request: web.Request) -> web.Response:
        await request.post()
        return web.Response(text="changed")

    app = web.Application(middlewares=[json_errors])
    app[HOST] = "127.0.0.1"
    if password:
        app[PASSWORD] = SecretStr(password)
    for add in (app.router.add_get, app.router.add_post, app.router.add_put, app.router.add_delete):
        add("/", change)
    async with TestClient(TestServer(app, host=host)) as client:
        yield client


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "x"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "body",
    [b"rubbish", gzip.compress(b"token=x")[:-5], gzip.compress(b"x" * (8 << 20))],
    ids=["garbage", "cut off", "bomb"],
)
async def test_a_compressed_body_is_answered_with_400(method: str, encoding: str, body: bytes) -> None:
    async with running() as client:
        headers = {"Content-Encoding": encoding, "Content-Type": "application/x-www-form-urlencoded"}
        async with client.request(method, "/", data=body, headers=headers) as answer:
            assert answer.status == 400


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("site", "status"),
    [(None, 200), ("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403), ("rubbish", 403)],
)
async def test_pages_of_another_port_or_site_are_refused(method: str, site: str | None, status: int) -> None:
    async with running() as client:
        headers = {"Sec-Fetch-Site": site} if site else {}
        assert (await client.request(method, "/", headers=headers)).status == status


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "rubbish"])
async def test_changes_are_accepted_only_from_this_machine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as client:
        assert (await client.post("/")).status == 200
        monkeypatch.setattr(web.Request, "remote", property(lambda _: address))
        assert (await client.get("/")).status == 200
        for method in ("POST", "PUT", "DELETE"):
            assert (await client.request(method, "/")).status == 403


@pytest.mark.parametrize("address", ["127.0.0.2", "::1", "::ffff:127.0.0.1"])
async def test_every_loopback_address_counts_as_this_machine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as client:
        monkeypatch.setattr(web.Request, "remote", property(lambda _: address))
        assert (await client.post("/")).status == 200


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"x:{password}".encode()).decode()}


async def test_changes_need_the_password_if_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running("geheim:ü") as client:
        answer = await client.post("/")
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert (await client.get("/")).status == 200
        assert (await client.post("/", headers=basic("wrong"))).status == 401
        for header in ("Basic", "Basic %%%", "Bearer x", "Basic /w=="):
            assert (await client.post("/", headers={"Authorization": header})).status == 401
        monkeypatch.setattr(web.Request, "remote", property(lambda _: "192.0.2.7"))
        assert (await client.post("/", headers=basic("geheim:ü"))).status == 200


def test_only_a_server_that_other_machines_can_reach_logs_a_warning() -> None:
    assert exposure("127.0.0.1", False) is None
    assert exposure("localhost", True) is None
    assert "from this machine only" in (exposure("0.0.0.0", False) or "")
    assert "with PAGE_PASSWORD" in (exposure("::", True) or "")
