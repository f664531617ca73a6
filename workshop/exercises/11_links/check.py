"""A small site with a cycle, and another host; pages that are read at the same time; and a worker that is killed."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from common.address import free_port
from workshop.program import Failed
from workshop.proxy import CutAfter, Proxy
from workshop.trial import Trial, until

LEASE, LONG_LEASE = "1", "30"  # seconds
PAGES = 4  # of a site whose pages all link to the same URLs; a worker has four jobs at a time
REDIS_SECONDS = 0.02  # how long Redis takes to answer while this site is checked
OTHER_SCHEMES = ("mailto:alice@example.com", "javascript:void(0)", "tel:+4912345", "ftp://127.0.0.1/file")
CUTS = (2, 3, 4)  # commands about a URL after which the worker is killed
LOOK = "links.py, "


class Site:
    """Counts the requests for each URL."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.pages: dict[str, str] = {}
        self.port = 0
        self.meeting: set[str] = set()
        """Pages that are answered only when all of them have been requested."""
        self._met = asyncio.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.Response:
        self.requests[self.url(request.path_qs)] += 1
        if request.path_qs in self.meeting:
            if all(self.requests[self.url(page)] for page in self.meeting):
                self._met.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._met.wait(), 2)  # the worker gives up after 5 s
        page = self.pages.get(request.path_qs)
        if page is None:
            return web.Response(status=404, text=anchors("/only-on-an-error-page"), content_type="text/html")
        return web.Response(text=page, content_type="text/html")


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    found, app = Site(), web.Application()
    app.router.add_get("/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    try:
        yield found
    finally:
        await runner.cleanup()


def anchors(*targets: str) -> str:
    return "".join(f'<p><a class="x" href="{target}">link</a>' for target in targets)


def build(ours: Site, other: Site, number: str) -> dict[str, int]:
    """Fill both sites. Returns the status that each URL should get. `number` makes the URLs different from others."""
    dead = f"http://127.0.0.1:{free_port('127.0.0.1', 0)}/{number}"
    root, a, b, deep = f"/{number}/", f"/{number}/a", f"/{number}/b", f"/{number}/deep/c"
    ours.pages[root] = anchors("a", *OTHER_SCHEMES, "b#top", f"/{number}/missing")
    ours.pages[a] = anchors("b", root, "deep/c", "b?page=2", other.url(f"/{number}/x"))
    ours.pages[b] = anchors("a#one", "a#two", ours.url(root), dead)
    ours.pages[deep] = anchors("../a", "d", "#here")
    ours.pages[f"/{number}/deep/d"] = "no links"
    other.pages[f"/{number}/x"] = anchors("y", ours.url(f"/{number}/from-elsewhere"))
    here = {ours.url(path): 200 for path in (root, a, b, deep, f"/{number}/deep/d")}
    gone = {ours.url(f"/{number}/missing"): 404, ours.url(f"{b}?page=2"): 404}
    return here | gone | {other.url(f"/{number}/x"): 200, dead: 0}


async def check(trial: Trial) -> str:
    redis: Any = await trial.redis()
    async with site() as ours, site() as other:
        expected = build(ours, other, "first")
        start = ("worker.py", ours.url("/first/"))
        workers = [await trial.start(*start, ready="ready", LEASE_SECONDS=LONG_LEASE) for _ in range(2)]
        found = await statuses(redis, expected, 4.0)
        trial.measured = float(len(found))
        compare(found, expected, "")
        check_once(ours.requests + other.requests)
        for worker in workers:
            await worker.kill()
        expected |= await at_the_same_time(trial, redis, expected)
        for number in CUTS:
            expected |= build(ours, other, f"cut-{number}")
            await run_and_kill(trial, ours.url(f"/cut-{number}/"), number)
        await trial.start(*start, ready="ready", LEASE_SECONDS=LEASE)
        found = await statuses(redis, expected, 8.0)
        compare(found, expected, " after the worker was killed between two commands")
    return f"{len(expected)} URLs were checked, with {len(CUTS)} kills between two commands"


async def at_the_same_time(trial: Trial, redis: Any, before: dict[str, int]) -> dict[str, int]:
    """Pages that link to the same URLs are read at the same time, and Redis is slow. Returns the statuses."""

    async def slowly(chunk: bytes) -> bool:
        await asyncio.sleep(REDIS_SECONDS)
        return True

    async with site() as ours, Proxy(trial.redis_url, slowly) as proxy:
        pages, targets = ([f"/{name}{number}" for number in range(PAGES)] for name in ("page", "target"))
        ours.pages = {"/": anchors(*pages)} | dict.fromkeys(pages, anchors(*targets)) | dict.fromkeys(targets, "")
        ours.meeting = set(pages)
        expected = {ours.url(path): 200 for path in ours.pages}
        settings = {"LEASE_SECONDS": LONG_LEASE, "REDIS_URL": proxy.url}
        worker = await trial.start("worker.py", ours.url("/"), **settings)
        compare(await statuses(redis, before | expected, 8.0), before | expected, "")
        await worker.kill()
        check_once(ours.requests)
    return expected


def check_once(requests: Counter[str]) -> None:
    for url, number in requests.items():
        if number > 1:
            raise Failed("each URL is fetched once", f"{url} was fetched {number} times", f"{LOOK}enqueue()")


async def statuses(redis: Any, expected: dict[str, int], limit: float) -> dict[str, int]:
    """The stored statuses, as soon as they are the expected ones or have not changed for `limit` seconds."""
    found, since = dict[str, int](), time.monotonic()
    while found != expected and time.monotonic() - since < limit:
        await asyncio.sleep(0.05)
        if (now := await stored(redis)) != found:
            found, since = now, time.monotonic()
    await asyncio.sleep(0.2)  # for statuses that are not expected
    return await stored(redis)


async def stored(redis: Any) -> dict[str, int]:
    return {url.decode(): int(status) for url, status in (await redis.hgetall("links:status")).items()}


async def run_and_kill(trial: Trial, url: str, number: int) -> None:
    cut = CutAfter(number, b"http://127.0.0.1")
    async with Proxy(trial.redis_url, cut) as proxy:
        worker = await trial.start("worker.py", url, LEASE_SECONDS=LEASE, REDIS_URL=proxy.url)
        await until(lambda: cut.cut.is_set() or worker.status is not None)
        await worker.kill()


def compare(found: dict[str, int], expected: dict[str, int], when: str) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        happened = f"{len(missing)} {'is' if len(missing) == 1 else 'are'} missing, such as {missing[0]}"
        raise Failed(f"{len(expected)} URLs are checked{when}", happened, f"{LOOK}check()")
    if more := sorted(found.keys() - expected.keys()):
        raise Failed(f"{len(expected)} URLs are checked{when}", f"{more[0]} was checked too", f"{LOOK}check()")
    for url, status in expected.items():
        if found[url] != status:
            raise Failed(f"{url} has the status {status}", f"it is {found[url]}", f"{LOOK}check()")
