"""The dashboard of a Redis with invalid data."""

import json
import re
import time
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest

from tests.support.dashboard import ACTIONS, JOB, KEYS, PAGES, XSS, Site, failure

GARBAGE: list[str | bytes] = [
    XSS, b"\xff\x00", b"", "NaN", "null", "[]", "{}", '{"class":null}', '{"class":"c","args":5}',
    '{"class":"c","queue":5}', f'{{"class":"c","args":{"[" * 500}{"]" * 500}}}', "[" * 5000,
    json.dumps({"class": XSS, "queue": XSS, "args": [XSS]}),
]  # fmt: skip


# Invalid data


def fill_with_garbage(redis: Any) -> None:
    """Invalid values of the right type."""
    redis.sadd(KEYS.queues, "q", XSS, b"\xff", "")
    for queue in ("q", XSS):
        redis.rpush(KEYS.queue(queue), *GARBAGE)
        redis.set(KEYS.paused(queue), XSS)
    for second in (5, 4_000_000_000, 10**14):
        redis.zadd(KEYS.schedule, {str(second): second})
        redis.rpush(KEYS.delayed(second), *GARBAGE)
    redis.zadd(KEYS.schedule, {XSS: 1, "1e5": 1e5, "-5": 6, "9" * 30: 1e30, "inf": float("inf")})
    values: tuple[Any, ...] = (
        XSS,
        None,
        5,
        1.5,
        1e300,
        True,
        [],
        {},
        [1, None, XSS],
        "9" * 5000,
        "0 JAN 0:10000000000 0",
        [[[]]],
    )
    redis.rpush(KEYS.failed, *GARBAGE, *(failure(**{name: v}) for v in values for name in json.loads(failure())))
    redis.rpush(
        KEYS.failed, failure(**dict.fromkeys(json.loads(failure()), XSS) | {"payload": {"class": XSS, "args": [XSS]}})
    )
    workers: list[str | bytes] = ["", ":", "x", XSS, f"{XSS}:1:{XSS}", b"\xff:1:q", "h:1:q", "h:2+x:q", "::"]
    redis.sadd(KEYS.workers, *workers)
    for worker, text in zip(workers, GARBAGE, strict=False):
        name = worker.encode() if isinstance(worker, str) else worker
        redis.set(b"resque:worker:" + name, text)
        redis.set(b"resque:worker:" + name + b":started", text)
        redis.set(b"resque:worker:ping:" + b":".join(name.split(b":")[:2]), text)
        redis.hset(KEYS.heartbeats, name, text)
    redis.set(
        KEYS.worker("h:1:q"), '{"run_at":1e300,"queue":[],"payload":{"class":"c","args":' + "[" * 500 + "]" * 500 + "}}"
    )
    redis.set(KEYS.ping("h:1"), json.dumps({"time": time.time()}))
    chart: dict[str, Any] = {
        "succeeded": XSS,
        "failed": "9" * 5000,
        "retried": "-1",
        "waited:999": "9" * 15,
        "waited:x": 1,
        XSS: XSS,
    }
    redis.hset(KEYS.chart(int(time.time()) // 10), mapping=chart)
    redis.hset(KEYS.totals, mapping={"succeeded": "9" * 5000, "failed": XSS, XSS: 5})
    redis.set(KEYS.node_lock, XSS)
    redis.set(KEYS.pause_all, XSS)


async def test_invalid_data_in_every_key_is_shown_as_text(site: Site) -> None:
    fill_with_garbage(site.redis)
    asked, to_visit = set(), {*PAGES}
    while to_visit:  # follow the links, too
        page = await site.get(path := to_visit.pop())
        asked.add(path)
        assert "<img" not in page, path
        assert "alert(1)" not in re.sub(r"&lt;img src=x onerror=alert\(1\)&gt;", "", page), path
        links = {unescape(link) for link in re.findall(r'href="/resque([^"]*)"', page)}
        to_visit |= {link for link in links if not link.startswith("/assets")} - asked
    assert len(asked) > len(PAGES)


async def test_a_wrong_type_under_every_key_causes_no_error(site: Site) -> None:
    names = [value for value in vars(KEYS).values() if isinstance(value, str) and ":" in value]
    others = [
        KEYS.queue("q"),
        KEYS.paused("q"),
        KEYS.delayed(5),
        KEYS.worker("h:1:q"),
        KEYS.chart(int(time.time()) // 10),
    ]
    wrongs: list[Callable[[str], object]] = [
        lambda key: site.redis.set(key, "x"),
        lambda key: site.redis.xadd(key, {"a": 1}),
    ]
    for wrong in wrongs:
        site.redis.flushall()
        for key in (*names, *others):
            wrong(key)
        for path in PAGES:
            await site.get(path)
        site.redis.delete(KEYS.queues, KEYS.workers, KEYS.schedule)
        site.redis.sadd(KEYS.queues, "q")
        site.redis.sadd(KEYS.workers, "h:1:q")
        site.redis.zadd(KEYS.schedule, {"5": 5})
        for path in PAGES:
            await site.get(path)


ODD_QUESTIONS = [
    "/failed?before=-1", "/failed?before=x", f"/failed?before={'9' * 400}", "/failed?done=x&count=y",
    "/delayed?from=-5&place=x", f"/delayed?from={'9' * 15}", "/queues?from=99999", "/queue", "/queue?name=%FF%00",
    "/queue?name=q&from=999999999999999", "/queue?name=q&from=1e5",
]  # fmt: skip


async def test_an_invalid_query_gets_a_page(site: Site) -> None:
    fill_with_garbage(site.redis)
    for path in ODD_QUESTIONS:
        await site.get(path)


ODD_FORMS: list[dict[str, str]] = [
    {}, {"id": "", "number": "x"}, {"id": "*", "number": "-1"}, {"id": XSS, "number": "9" * 400, "before": XSS},
    {"second": "x"}, {"second": "9" * 15, "place": "9" * 15, "id": "f" * 40}, {"queue": "\x00\uffff", "seconds": "-1"},
]  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS)
async def test_an_invalid_form_redirects_to_a_page(site: Site, action: str) -> None:
    site.redis.rpush(KEYS.failed, failure())
    for form in ODD_FORMS:
        assert "<img" not in await site.press(action, **form)


async def test_only_the_beginning_of_ten_megabytes_is_shown(site: Site) -> None:
    large = json.dumps({"class": "c", "queue": "q", "args": ["x" * 10_000_000]})
    site.redis.sadd(KEYS.queues, "q")
    site.redis.rpush(KEYS.queue("q"), large)
    site.redis.rpush(KEYS.failed, failure(error="small"), failure(error="x" * 10_000_000))
    site.redis.zadd(KEYS.schedule, {"5": 5})
    site.redis.rpush(KEYS.delayed(5), large)
    for path in PAGES:
        assert len(await site.get(path)) < 100_000
    assert "10.0 MB; this is the beginning" in await site.get("/queue?name=q")
    await site.press("failed/remove", **await site.form("/failed", "failed/remove"))
    assert site.list(KEYS.failed) == [failure(error="small").encode()]


async def test_no_page_reads_more_than_it_shows(site: Site) -> None:
    """With ten thousand jobs and failures, and without a command that scans all keys."""
    site.redis.sadd(KEYS.queues, "q")
    site.redis.rpush(KEYS.queue("q"), *[JOB] * 10_000)
    site.redis.rpush(KEYS.failed, *[failure()] * 10_000)
    site.redis.zadd(KEYS.schedule, {str(second): second for second in range(4_000_000_000, 4_000_010_000)})
    site.redis.rpush(KEYS.delayed(4_000_000_000), *[JOB] * 10_000)
    for path in PAGES:  # so that Redis has loaded the scripts
        await site.get(path)
    with site.redis.monitor() as monitor:
        for path in (*PAGES, "/queue?name=q&from=5000", "/failed?before=5000", "/delayed?from=4000000000&place=5000"):
            assert len(await site.get(path)) < 150_000
        site.redis.echo("the end")
        commands = [monitor.next_command()["command"].split()]
        while commands[-1] != ["ECHO", "the", "end"]:
            commands.append(monitor.next_command()["command"].split())
    names = {command[0].upper() for command in commands}
    assert not {"KEYS", "SCAN", "SSCAN", "HSCAN", "SORT"} & names
    ranges = [command for command in commands if command[0].upper() in ("LRANGE", "ZRANGE")]
    assert {command[1] for command in ranges} >= {
        KEYS.queue("q"),
        KEYS.failed,
        KEYS.delayed(4_000_000_000),
        KEYS.schedule,
    }
    spans = [(command[0].upper(), int(command[-2]), int(command[-1])) for command in ranges]
    assert all(0 <= last - first <= 1000 and last >= 0 for _, first, last in spans)
    assert sum(last - first + 1 for name, first, last in spans if name == "LRANGE") <= 26 * len(PAGES)
