"""A small site with a cycle, and another host; the worker is killed after each of its first commands in turn."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from common.address import free_port
from workshop.program import Failed
from workshop.proxy import CutAfter, Proxy
from workshop.trial import Trial, until

LEASE = "1"  # seconds
CUTS = (2, 3, 4)  # commands about a URL after which the worker is killed
LOOK = "links.py, "


class Site:
    """Counts the requests for each URL."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.pages: dict[str, str] = {}
        self.port = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.Response:
        self.requests[self.url(request.path_qs)] += 1
        page = self.pages.get(request.path_qs)
        return web.Response(status=200 if page is not None else 404, text=page or "", content_type="text/html")


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
    ours.pages[root] = anchors("a", "b#top", f"/{number}/missing", "mailto:alice@example.com", "javascript:void(0)")
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
        workers = [await trial.start(*start, ready="ready", LEASE_SECONDS=LEASE) for _ in range(2)]
        found = await statuses(redis, expected, 4.0)
        trial.measured = float(len(found))
        compare(found, expected, "")
        twice = {url: n for url, n in (ours.requests + other.requests).items() if n > 1}
        if twice:
            url, number = next(iter(twice.items()))
            raise Failed("each URL is fetched once", f"{url} was fetched {number} times", f"{LOOK}enqueue()")
        for worker in workers:
            await worker.kill()
        for number in CUTS:
            expected |= build(ours, other, f"cut-{number}")
            await run_and_kill(trial, ours.url(f"/cut-{number}/"), number)
        await trial.start(*start, ready="ready", LEASE_SECONDS=LEASE)
        found = await statuses(redis, expected, 8.0)
        compare(found, expected, " after the worker was killed between two commands")
    return f"{len(expected)} URLs were checked, with {len(CUTS)} kills between two commands"


async def statuses(redis: Any, expected: dict[str, int], limit: float) -> dict[str, int]:
    """What is stored as soon as it is what is expected, or when the time is over."""
    for _ in range(int(limit / 0.05)):
        found = {url.decode(): int(status) for url, status in (await redis.hgetall("links:status")).items()}
        if found == expected:
            await asyncio.sleep(0.2)  # for what comes too much
            found = {url.decode(): int(status) for url, status in (await redis.hgetall("links:status")).items()}
            break
        await asyncio.sleep(0.05)
    return found


async def run_and_kill(trial: Trial, url: str, number: int) -> None:
    cut = CutAfter(number, b"http://127.0.0.1")
    async with Proxy(trial.redis_url, cut) as proxy:
        worker = await trial.start("worker.py", url, LEASE_SECONDS=LEASE, REDIS_URL=proxy.url)
        await until(lambda: cut.cut.is_set() or worker.status is not None, 5)
        await worker.kill()


def compare(found: dict[str, int], expected: dict[str, int], when: str) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        happened = f"{len(missing)} are missing, such as {missing[0]}"
        raise Failed(f"{len(expected)} URLs are checked{when}", happened, f"{LOOK}check()")
    if more := sorted(found.keys() - expected.keys()):
        raise Failed(f"{len(expected)} URLs are checked{when}", f"{more[0]} was checked too", f"{LOOK}check()")
    for url, status in expected.items():
        if found[url] != status:
            raise Failed(f"{url} has the status {status}", f"it is {found[url]}", f"{LOOK}check()")
