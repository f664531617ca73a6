"""The dashboard: its pages and its buttons."""

import json
import re
import time
from html import unescape
from typing import Any

import pytest

from asynckit.ids import new_id
from asynckit.redis_client import redis_client
from resque import queue as queue_module
from resque import states, wire
from resque.dashboard import charts
from tests.support.dashboard import JOB, KEYS, XSS, Site, failure
from tests.support.resque import ReadableQueue


def words(page: str) -> str:
    """The visible text of a page."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", page)).split())


# Pages


async def test_the_strategy_s_page_and_the_dashboard_link_to_each_other(site: Site) -> None:
    async with site.http.get(f"{site.url}/") as response:
        assert '<a href="/resque">resque</a>' in await response.text()
    assert '<a href="/">' in await site.get()


async def test_the_overview_shows_the_counts(site: Site) -> None:
    site.redis.sadd(KEYS.queues, "q", "p")
    site.redis.rpush(KEYS.queue("q"), *[JOB] * 1000)
    site.redis.rpush(KEYS.queue("p"), *[JOB] * 234)
    site.redis.rpush(KEYS.failed, failure())
    site.redis.zadd(KEYS.schedule, {"4000000000": 4_000_000_000})
    site.redis.rpush(KEYS.delayed(4_000_000_000), JOB, JOB)
    site.redis.hset(KEYS.totals, mapping={"succeeded": 12345, "late": 1})
    text = words(await site.get())
    assert "waiting 1,234 in flight 0 delayed 2 failed 1 " in text
    assert "succeeded 12,345 " in text
    assert "finished after their lease 1 " in text


async def test_a_queue_shows_its_length_its_oldest_job_and_why_it_is_paused(site: Site) -> None:
    made = f"<{int((time.time() - 200) * 1000):012x}{new_id('example.com')[13:]}"
    site.redis.sadd(KEYS.queues, "q", "a/b?c=d&e", "")
    site.redis.rpush(KEYS.queue("q"), json.dumps({"class": "c", "args": [{"id": made}]}), JOB)
    site.redis.set(KEYS.paused("q"), "LoginFailed: 535")
    text = words(await site.get("/queues"))
    assert re.search(r"q 2 3 min 2\d s paused LoginFailed: 535 Resume", text)
    site.redis.rpush(KEYS.queue("a/b?c=d&e"), '{"class":"odd","args":[]}')
    [link] = re.findall(r'href="/resque(/queue\?name=a[^"]*)"', await site.get("/queues"))
    assert "1 odd []" in words(await site.get(unescape(link)))
    assert "0 waiting." in words(await site.get("/queue?name="))


async def test_jobs_are_shown_with_their_arguments_a_page_at_a_time(site: Site) -> None:
    site.redis.rpush(KEYS.queue("q"), *(json.dumps({"class": "c", "args": [f"job {n}"]}) for n in range(60)))
    page = await site.get("/queue?name=q")
    assert [f'c ["job {n}"]' in words(page) for n in (0, 24, 25)] == [True, True, False]
    [following] = re.findall(r'href="/resque(/queue\?name=q&amp;from=\d+)">Next 25', page)
    page = await site.get(unescape(following))
    assert [f'c ["job {n}"]' in words(page) for n in (24, 25, 49, 50)] == [False, True, True, False]
    [last] = re.findall(r'href="/resque(/queue\?name=q&amp;from=\d+)">Newest', page)
    page = await site.get(unescape(last))
    assert [f'c ["job {n}"]' in words(page) for n in (34, 35, 59)] == [False, True, True]
    assert "Next 25" not in page


async def test_a_job_of_rails_is_shown_with_the_class_inside_its_wrapper(site: Site) -> None:
    name = "ActiveJob::QueueAdapters::ResqueAdapter::JobWrapper"
    for first in ({"job_class": "InvoiceJob", "arguments": [7]}, {"job_class": 5}, 5):
        site.redis.rpush(KEYS.queue("q"), json.dumps({"class": name, "args": [first]}))
    text = words(await site.get("/queue?name=q"))
    assert "1 InvoiceJob [7] " in text
    assert f'2 {name} [{{"job_class":5}}] ' in text
    assert f"3 {name} [5] " in text


async def test_delayed_jobs_are_shown_by_due_time_a_page_at_a_time(site: Site) -> None:
    for second, count in ((4_000_000_000, 20), (3_999_999_999, 10), (4_000_000_001, 10)):
        site.redis.zadd(KEYS.schedule, {str(second): second})
        site.redis.rpush(KEYS.delayed(second), *(f'{{"class":"c","args":[{second},{n}]}}' for n in range(count)))
    page = await site.get("/delayed")
    shown = re.findall(r"c \[(\d+),(\d+)\]", words(page))
    assert shown[0] == ("3999999999", "0")
    assert (len(shown), shown[-1]) == (25, ("4000000000", "14"))
    assert "2096-10-02 07:06:39 UTC" in page
    assert "40 delayed jobs." in page
    [following] = re.findall(r'href="/resque(/delayed\?from[^"]*)"', page)
    rest = re.findall(r"c \[(\d+),(\d+)\]", words(await site.get(unescape(following))))
    assert (len(rest), rest[0], rest[-1]) == (15, ("4000000000", "15"), ("4000000001", "9"))


async def test_a_failure_shows_its_error_worker_and_job(site: Site) -> None:
    site.redis.rpush(KEYS.failed, *(failure(error=f"error {n}") for n in range(30)))
    page = await site.get("/failed")
    text = words(page)
    assert [f"Refused error {n}" in text for n in (29, 5, 4)] == [True, True, False], "the newest first"
    assert "mailer.py:7" in text
    assert "2026-11-21 07:39:33 UTC" in text
    assert "30 failed jobs." in text
    [older] = re.findall(r'href="/resque(/failed\?before=\d+)">Older', page)
    assert [f"Refused error {n}" in words(await site.get(older)) for n in (5, 4, 0)] == [False, True, True]


async def test_the_workers_page_shows_jobs_and_silent_workers(site: Site) -> None:
    now = time.time()
    busy, idle, dead, never = "h.01234567:7+1:q", "h.01234567:7+2:q", "gone:8:q", "node:9:*"
    site.redis.sadd(KEYS.workers, busy, idle, "h.01234567:7+3:q", dead, never)
    for slot in (1, 2, 3):
        site.redis.set(KEYS.ping(f"h.01234567:7+{slot}"), wire.ping("x", ["q"], now))
    site.redis.hset(KEYS.heartbeats, dead, wire.heartbeat_at(now - 600))
    record = f'{{"token":"t",{wire.working_since(now - 125)},"worker":"x","queue":"q","payload":{JOB}}}'
    for worker in (busy, dead):
        site.redis.set(KEYS.worker(worker), record)
    text = words(await site.get("/workers"))
    work, rest = text.split(" Idle ")
    free, silent = rest.split(" Silent ")
    assert re.search(r'Busy sendEmail \[{"to":"a@example.com"}\] for 2 min \d+ s h.01234567:7\+1:q', work)
    assert re.search(r"h.01234567:7 q 2 \d+(\.\d)? m?s ago", free), "the process has two slots"
    assert "node:9:* no heartbeat" in silent
    assert re.search(r"gone:8:q silent for 10 min \d+ s sendEmail", silent)
    assert "h.01234567" not in silent
    assert "gone" not in work + free


def moment(second: int, succeeded: int = 0, failed: int = 0, retried: int = 0, **waits: int) -> Any:
    return states.Moment(second, succeeded, failed, retried, {int(power[1:]): n for power, n in waits.items()})


def test_the_charts_have_a_summary_in_words() -> None:
    moments = [
        moment(0, 100, w3=90, w10=10),
        moment(10),
        moment(20, 50, 10, 20, w0=50),
        *(moment(30 + n) for n in range(4)),
    ]
    chart = charts.throughput(moments)
    assert chart.summary == (
        "The last ten minutes: 150 jobs succeeded, 10 failed, 20 attempts will be repeated; at most 10.0 a second."
    )
    assert [(bar.kind, bar.height) for bar in chart.bars] == [
        ("succeeded", 130.0), ("succeeded", 65.0), ("retried", 26.0), ("failed", 13.0),
    ]  # fmt: skip
    assert chart.bars[-1].y == 130 - 65 - 26 - 13, "the bars are stacked"
    assert chart.rows == [("00:00", "150", "20", "10"), ("00:00", "0", "0", "0")]
    waits = charts.waiting_times(moments)
    assert waits.summary == "The last ten minutes: half of the jobs had waited at most 8 ms, 95 of 100 at most 1.0 s."
    assert [line.points.count(" ") for line in waits.lines] == [0, 0, 0, 0], "no line across a gap"
    assert waits.rows[0] == ("00:00", "≤ 8 ms", "≤ 1.0 s")
    assert "no job with a time in its id has succeeded" in charts.waiting_times([moment(0)]).summary


@pytest.mark.parametrize("moments", [[], [moment(0, 10**18, 10**18, w999=1)], [moment(0, w0=1)], [moment(10**11)]])
def test_no_figures_break_a_chart(moments: list[Any]) -> None:
    for chart in (charts.throughput(moments), charts.waiting_times(moments)):
        assert all(-2 <= bar.y <= 130 and bar.height <= 130.1 for bar in chart.bars)


async def test_the_charts_have_a_text_for_screen_readers(site: Site) -> None:
    site.redis.hset(KEYS.chart(int(time.time()) // 10 - 2), mapping={"succeeded": 70, "waited:5": 70})
    page = await site.get()
    assert page.count('<svg viewBox="') == page.count('role="img" aria-labelledby=') == 2
    assert re.search(r'<title id="throughput-summary">The last ten minutes: 70 jobs succeeded', page)
    assert re.search(r'<rect class="succeeded" x="[\d.]+" y="[\d.]+" width="[\d.]+" height="[\d.]+"/>', page)
    assert "half of the jobs had waited at most 32 ms" in page


# Buttons


async def test_two_clicks_on_retry_requeue_a_failed_job_once(site: Site) -> None:
    site.redis.rpush(KEYS.failed, failure(error="1"), failure(error="2"))
    form = await site.form("/failed", "failed/retry")
    assert "The job is back in its queue." in await site.press("failed/retry", **form)
    assert "Nothing has changed: the job was no longer there." in await site.press("failed/retry", **form)
    assert [json.loads(raw) for raw in site.list(KEYS.queue("q"))] == [json.loads(JOB)]
    assert site.redis.sismember(KEYS.queues, "q")
    assert site.list(KEYS.failed) == [failure(error="1").encode()]


async def test_removing_a_failed_job_returns_to_the_same_page_of_the_list(site: Site) -> None:
    site.redis.rpush(KEYS.failed, *(failure(error=f"{n}") for n in range(30)))
    form = await site.form("/failed?before=4", "failed/remove", 1)
    response = await site.post("failed/remove", **form)
    assert response.headers["Location"] == "/resque/failed?done=removed&before=4"
    assert failure(error="1").encode() not in site.list(KEYS.failed)
    assert site.redis.llen(KEYS.failed) == 29


async def test_all_failed_jobs_are_retried_or_removed(site: Site) -> None:
    site.redis.rpush(KEYS.failed, *(failure(error=n) for n in range(1234)))
    page = await site.press("failed/retry-all", **await site.form("/failed", "failed/retry-all"))
    assert "1,234 jobs are back in their queues." in page
    assert site.redis.llen(KEYS.queue("q")) == 1234
    site.redis.rpush(KEYS.failed, b"\xff", failure(), failure(payload=None))
    assert "1 jobs are back in their queues. The others cannot" in await site.press("failed/retry-all")
    page = await site.press("failed/remove-all", **await site.form("/failed", "failed/remove-all"))
    assert "2 failed jobs are removed." in page
    assert "No failed jobs." in page


async def test_a_job_that_cannot_be_retried_has_no_button_and_says_why(site: Site) -> None:
    site.redis.rpush(KEYS.failed, failure(payload=None))
    page = await site.get("/failed")
    assert "Cannot be retried there is no job in the record" in words(page)
    assert 'action="/resque/failed/retry"' not in page
    form = await site.form("/failed", "failed/remove")
    assert "Nothing has changed: it is not a valid job" in await site.press("failed/retry", **form)
    assert "The job is removed." in await site.press("failed/remove", **form)


async def test_a_delayed_job_shows_which_attempt_comes_next(site: Site) -> None:
    second = 4_000_000_000
    jobs = [f'{{"class":"c","queue":"q","args":[{{"id":"{name}"}}]}}' for name in ("new", "tried")]
    site.redis.zadd(KEYS.schedule, {str(second): second})
    site.redis.rpush(KEYS.delayed(second), *jobs, "rubbish")
    site.redis.hset(KEYS.attempts, wire.read_job(jobs[1]).key, 2)
    page = await site.get("/delayed")
    assert page.count(", attempt 3") == page.count(", attempt ") == 1
    site.redis.set(KEYS.attempts, "not a hash")
    assert "attempt" not in await site.get("/delayed")


async def test_a_delayed_job_runs_now_or_is_removed(site: Site) -> None:
    second = 4_000_000_000
    jobs = [f'{{"class":"c","queue":"q","args":[{n}]}}' for n in range(3)]
    site.redis.zadd(KEYS.schedule, {str(second): second})
    site.redis.rpush(KEYS.delayed(second), *jobs)
    for job in jobs:
        site.redis.sadd(KEYS.timestamps(job), f"delayed:{second}")
    form = await site.form("/delayed", "delayed/run", 1)
    assert "The job is in its queue now." in await site.press("delayed/run", **form)
    assert "the job was no longer there" in await site.press("delayed/run", **form)
    assert site.list(KEYS.queue("q")) == [jobs[1].encode()]
    assert site.redis.exists(KEYS.timestamps(jobs[1])) == 0
    for _ in range(2):
        assert "The job is removed." in await site.press(
            "delayed/remove", **await site.form("/delayed", "delayed/remove")
        )
    assert set(site.redis.keys()) == {KEYS.queues.encode(), KEYS.queue("q").encode()}


async def test_a_removed_delayed_job_may_be_enqueued_again(site: Site) -> None:
    async with redis_client(site.redis_url) as redis:
        assert await queue_module.Queue(redis).enqueue_in(1000, "q", "c", [{"id": "7"}])
        assert not await queue_module.Queue(redis).enqueue("q", "c", [{"id": "7"}])
        await site.press("delayed/remove", **await site.form("/delayed", "delayed/remove"))
        assert await queue_module.Queue(redis).enqueue("q", "c", [{"id": "7"}])


async def test_an_invalid_delayed_job_can_be_removed_but_not_run(site: Site) -> None:
    site.redis.zadd(KEYS.schedule, {"5": 5})
    site.redis.rpush(KEYS.delayed(5), b"\xff{", '{"class":"c"}')
    assert 'action="/resque/delayed/run"' not in await site.get("/delayed")
    form = await site.form("/delayed", "delayed/remove")
    assert "it is not a valid job" in await site.press("delayed/run", **form)
    await site.press("delayed/remove", **form)
    assert site.list(KEYS.delayed(5)) == [b'{"class":"c"}']


async def test_a_queue_is_paused_until_it_is_resumed_or_for_a_time(site: Site) -> None:
    site.redis.sadd(KEYS.queues, XSS)
    page = await site.press("queues/pause", **await site.form("/queues", "queues/pause"), seconds="")
    assert "paused paused on the dashboard Resume" in words(page)
    assert site.redis.pttl(KEYS.paused(XSS)) == -1
    page = await site.press("queues/resume", **await site.form("/queues", "queues/resume"))
    assert site.redis.exists(KEYS.paused(XSS)) == 0
    assert "The queue is resumed." in page
    await site.press("queues/pause", queue=XSS, seconds="300")
    assert 0 < site.redis.pttl(KEYS.paused(XSS)) <= 300_000


async def test_a_timed_pause_does_not_replace_a_pause_without_a_limit(site: Site) -> None:
    """A worker whose login fails pauses its queue and resumes it when the login works again."""
    async with redis_client(site.redis_url) as redis:
        queue = ReadableQueue(redis)
        await queue.pause("q", "by a person", None)
        await queue.pause("q", "LoginFailed", 5.0)
        await queue.resume("q", only_timed=True)
        assert await queue.paused("q") == "by a person"
        await queue.resume("q")
        await queue.pause("q", "LoginFailed", 5.0)
        await queue.resume("q", only_timed=True)
        assert await queue.paused("q") is None
