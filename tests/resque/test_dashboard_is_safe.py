"""The dashboard: its protection, and its live figures."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp.client import ClientResponse

from asynckit.web.page_token import page_token
from resque.dashboard import live
from tests.support.dashboard import ACTIONS, JOB, KEYS, PAGES, Site, failure, site_of
from tests.support.programs import LIMIT, closed_port

# Protection


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_get_request_a_wrong_token_or_another_site_changes_nothing(site: Site, action: str) -> None:
    site.redis.rpush(KEYS.failed, failure())
    site.redis.zadd(KEYS.schedule, {"4000000000": 4_000_000_000})
    site.redis.rpush(KEYS.delayed(4_000_000_000), JOB)
    site.redis.sadd(KEYS.queues, "q")
    site.redis.set(KEYS.paused("q"), "x")
    before = site.dump()
    url, token = f"{site.url}/resque/{action}", page_token("/resque")
    form = {"queue": "q", "id": "", "number": "1", "second": "4000000000", "place": "0", "seconds": ""}
    for attempt, status in (
        (site.http.get(url, params={"token": token}), 405),
        (site.http.head(url, params={"token": token}), 405),
        (site.http.put(url, data={"token": token}), 405),
        (site.http.post(url, data=form), 403),
        (site.http.post(url, data=form | {"token": "x"}), 403),
        (site.http.post(url, data=form | {"token": page_token("/log")}), 403),
        (site.http.post(url, data=form | {"token": token}, headers={"Origin": "http://evil.test"}), 403),
        (site.http.post(url, data=form | {"token": token}, headers={"Origin": "null"}), 403),
        (site.http.post(url, data=form | {"token": token}, headers={"Sec-Fetch-Site": "cross-site"}), 403),
        (site.http.post(url, data=form | {"token": token}, headers={"Host": "evil.test"}), 403),
    ):
        response = await attempt
        assert response.status == status, (attempt, await response.text())
    assert site.dump() == before


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"token=\xff", 400),
        ("application/x-www-form-urlencoded; charset=nix", b"token=x", 400),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nnix", 400),
        ("application/json", b"{}", 403),
    ],
)
async def test_a_body_that_is_not_a_form_is_refused(site: Site, kind: str, body: bytes, status: int) -> None:
    async with site.http.post(
        f"{site.url}/resque/failed/remove-all", data=body, headers={"Content-Type": kind}
    ) as response:
        assert response.status == status


async def test_the_pages_post_forms_with_an_origin(site: Site) -> None:
    """With `no-referrer` a browser would send `Origin: null`, and the server would refuse every button."""
    async with site.http.get(f"{site.url}/resque/failed") as response:
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/resque/failed/retry", "/resque/a/b", "/resque/x", "/resque/queues/x", "/resque/assets/x"]
)
async def test_no_path_of_the_dashboard_is_taken_for_an_email(site: Site, path: str) -> None:
    async with site.http.get(f"{site.url}{path}") as response:
        assert response.status in (404, 405)
    async with site.http.get(f"{site.url}/resque.example.com/Hello/x") as response:
        assert (await response.json())["error"]["field"] == "to", "a path outside the dashboard is an email"


# Live


async def event(response: ClientResponse) -> Any:
    async with asyncio.timeout(LIMIT):
        while not (line := await response.content.readline()).startswith(b"data: "):
            assert line, "the stream has ended"
    return json.loads(line[6:])


async def test_an_event_is_sent_when_the_figures_change(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.01)
    response = await site.http.get(f"{site.url}/resque/events")
    assert response.content_type == "text/event-stream"
    assert (await event(response))["failed"] == 0
    site.redis.rpush(KEYS.failed, failure())
    assert (await event(response))["failed"] == 1
    site.redis.sadd(KEYS.queues, "q")
    site.redis.rpush(KEYS.queue("q"), JOB, JOB)
    while (figures := await event(response))["waiting"] == 0:
        pass
    assert (figures["waiting"], figures["queues"], figures["failed"]) == (2, 1, 1)
    response.close()


async def test_the_pages_report_that_redis_is_unreachable() -> None:
    with closed_port() as port:
        await assert_pages_report_an_outage(port)


async def assert_pages_report_an_outage(port: int) -> None:
    async with site_of(f"redis://user:secret@127.0.0.1:{port}/0") as site:
        for path in PAGES:
            page = await site.get(path, status=503)
            assert "The queue cannot be shown: Redis: " in page
            assert "secret" not in page
        for action in ACTIONS:
            assert (await site.post(action, id="x", second="5", number="1")).status == 503
        response = await site.http.get(f"{site.url}/resque/events")
        assert (await event(response))["unavailable"].startswith("Redis: ")
        response.close()
