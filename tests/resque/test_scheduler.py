"""Schedules: each due second is enqueued once."""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

import resque
from resque import cron as cron_module
from resque.doctor import Doctor
from tests.support.clockwork import Clockwork

DAY = 86400


async def test_a_due_schedule_enqueues_a_job_in_resque_s_format(clockwork: Clockwork) -> None:
    clockwork.put("hello", cron="0 0 1 * *", queue="q", args=["Alice", 1], **{"class": "greet"})
    await clockwork.schedules.fire()
    assert clockwork.jobs() == [], "a schedule that is new does not look back"
    clockwork.set_back("hello", 31 * DAY)
    assert await clockwork.schedules.fire() == 1
    [raw] = clockwork.client.lrange(clockwork.keys.queue("q"), 0, -1)
    assert raw == '{"class":"greet","queue":"q","args":["Alice",1]}'
    assert clockwork.client.smembers(clockwork.keys.queues) == {"q"}
    [fired] = clockwork.fired
    assert (fired.schedule, fired.job.raw, fired.second) == ("hello", raw, clockwork.mark("hello"))
    assert fired.second % 60 == 0
    assert await clockwork.schedules.fire() == 0


async def test_each_second_is_enqueued_once_however_many_schedulers_run(clockwork: Clockwork) -> None:
    clockwork.put("tick", every="1m", queue="q", **{"class": "tick"})
    await clockwork.schedules.fire()
    many = [clockwork.another() for _ in range(20)]
    for round_ in range(1, 4):
        clockwork.set_back("tick", 60)
        assert sum(await asyncio.gather(*(schedules.fire() for schedules in many))) == 1
        assert len(clockwork.jobs()) == round_


async def test_each_firing_is_a_separate_job(clockwork: Clockwork) -> None:
    clockwork.put("tick", every="1m", queue="q", args=[{"to": "x"}], **{"class": "tick"})
    await clockwork.schedules.fire()
    for _ in range(2):
        clockwork.set_back("tick", 60)
        await clockwork.schedules.fire()
    first, second = (job["args"][0]["id"] for job in clockwork.jobs())
    assert first != second


@pytest.mark.parametrize("when", [{"cron": "0 0 1 * *"}, {"every": "30d"}])
async def test_missed_times_are_fired_once(clockwork: Clockwork, when: dict[str, str]) -> None:
    clockwork.put("tick", queue="q", **when, **{"class": "tick"})
    await clockwork.schedules.fire()
    began = clockwork.mark("tick")
    clockwork.set_back("tick", 400 * DAY)
    assert await clockwork.schedules.fire() == 1
    assert await clockwork.schedules.fire() == 0
    assert began - 31 * DAY < clockwork.mark("tick") <= time.time(), "for the last time that was missed"
    assert len(clockwork.jobs()) == 1


async def test_a_schedule_that_is_changed_or_added_again_is_new(clockwork: Clockwork) -> None:
    clockwork.put("tick", every="1m", queue="q", **{"class": "tick"})
    await clockwork.schedules.fire()
    clockwork.set_back("tick", DAY)
    clockwork.put("tick", cron="* * * * *", queue="q", **{"class": "tick"})
    assert await clockwork.schedules.fire() == 0
    clockwork.set_back("tick", DAY)
    clockwork.client.hdel(clockwork.keys.cron_schedules, "tick")
    await clockwork.schedules.fire()
    assert clockwork.client.hgetall(clockwork.keys.cron) == {}
    clockwork.put("tick", cron="* * * * *", queue="q", **{"class": "tick"})
    assert await clockwork.schedules.fire() == 0
    assert clockwork.jobs() == []


async def test_a_schedule_in_redis_replaces_one_in_code(clockwork: Clockwork) -> None:
    own = resque.Schedule("tick", "q", "from code", every="1m"), resque.Schedule("tock", "q", "tock", every="1m")
    schedules = clockwork.another(*own)
    clockwork.put("tick", every="1m", queue="q", **{"class": "from Redis"})
    await schedules.fire()
    for name in ("tick", "tock"):
        clockwork.set_back(name, 60)
    assert await schedules.fire() == 2
    assert [job["class"] for job in clockwork.jobs()] == ["from Redis", "tock"]


async def test_schedules_are_added_in_resque_scheduler_s_format_and_removed(clockwork: Clockwork) -> None:
    schedule = resque.Schedule("näh/e", "q", "DoIt", [{"to": "x"}, 1.0], cron="0 0 * * *", description="d")
    await clockwork.schedules.add(schedule)
    text = '{"cron":"0 0 * * *","class":"DoIt","queue":"q","args":[{"to":"x"},1],"description":"d"}'
    assert clockwork.client.hgetall(clockwork.keys.cron_schedules) == {"näh/e": text}
    assert clockwork.client.smembers(clockwork.keys.schedules_changed) == {"näh/e"}
    assert await clockwork.schedules.all() == {"näh/e": cron_module.read_schedule("näh/e", text)}
    await clockwork.schedules.fire()
    assert await clockwork.schedules.remove("näh/e")
    assert clockwork.client.exists(clockwork.keys.cron_schedules, clockwork.keys.cron) == 0
    assert not await clockwork.schedules.remove("näh/e")


DURATIONS = {  # as Ruby's rufus-scheduler reads them
    "15m": 900,
    "15mins": 900,
    "2 hours": 7200,
    "1 month": 2592000,
    "1M": 2592000,
    "1H": 3600,
    "1 Day": 86400,
    "2S": 2,
    "30": 30,
    "1m30": 90,
    "0.5m": 30,
    "1.5h": 5400,
    "1 hour and 30 minutes": 5400,
    "1 day, 2 hours": 93600,
    "1hand30m": 5400,
}


def test_the_supported_formats_of_resque_scheduler_are_read() -> None:
    read: Any = cron_module.read_schedule
    schedule = read(
        "DoIt", '{"cron":"*/15 8-18 * * mon-fri","queue":"q","args":{"a":1},"persist":true,"parameters":{}}'
    )
    assert (schedule.job, schedule.args, schedule.when.fields) == ("DoIt", [{"a": 1}], "*/15 8-18 * * mon-fri")
    assert read("x", '{"every":"1h30m","queue":"q","args":null}').when == cron_module.Every(5400, 5400)
    for text, args in {"null": [], "false": [], "0": [0], '""': [""], "{}": [{}], "[false]": [False]}.items():
        assert read("x", f'{{"every":"1h","queue":"q","args":{text}}}').args == args
    for every in (["1h"], ["1h", "2h"], ["1h", {"first_in": "5m"}, 3]):
        assert read("x", json.dumps({"every": every, "queue": "q"})).when == cron_module.Every(3600, 3600)
    for cron, other in (("0 0 * * *", "1h"), ("0 0 * * *", "invalid"), ("0 0 * * *", "")):
        schedule = read("x", json.dumps({"cron": cron, "every": other, "queue": "q"}))
        assert isinstance(schedule.when, cron_module.Cron), "a cron counts, whatever the `every`"
    assert read("x", '{"cron":"","every":"1h","queue":"q"}').when == cron_module.Every(3600, 3600)
    assert read("x", '{"every":"1h","queue":"q","class":""}').job == "x"
    assert read("x", '{"every":["1w",{"first_in":"5m"}],"queue":"q"}').when == cron_module.Every(604800, 300)
    for text, seconds in DURATIONS.items():
        assert read("x", json.dumps({"every": text, "queue": "q"})).when.seconds == seconds, text
    missing = {"rails_env": None, "env": None, "custom_job_class": None, "description": None, "class": None}
    assert read("x", json.dumps({"every": "1h", "queue": "q", **missing})).job == "x"
    assert read("x", '{"cron":"@daily","queue":"q","custom_job_class":"Resque::Job"}').when.fields == "0 0 * * *"
    assert read("x", '{"cron":"@noon Europe/Vienna","queue":"q"}').when.zone == ZoneInfo("Europe/Vienna")
    assert read("x", '{"cron":"30 0 0 * * *","queue":"q"}').when.zone is UTC
    assert read("x", '{"cron":"0 0 * * * Europe/Vienna","queue":"q"}').when.zone == ZoneInfo("Europe/Vienna")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\x00", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"cron":"0 0 * * *","queue":"q","rails_env":"production"}', "has rails_env, which is not supported"),
        ('{"cron":"0 0 * * *","queue":"q","env":"production"}', "has env, which is not supported"),
        ('{"cron":"0 0 * * *","queue":"q","custom_job_class":"X"}', "has custom_job_class, which is not supported"),
        ('{"cron":"0 0 * * *","class":"X"}', "names no queue"),
        ('{"cron":"0 0 * * *","queue":7}', "queue is not a string"),
        ('{"cron":"every day at noon","queue":"q"}', "cron 'every day at noon'"),
        ('{"cron":"61 * * * *","queue":"q"}', "Bad minute"),
        ('{"cron":"0 0 30 2 *","queue":"q"}', "Bad day-of-month"),
        ('{"cron":"0 0 */20 * 1L","queue":"q"}', "is never due"),
        ('{"cron":"0 0 * * * ../etc/passwd","queue":"q"}', "Bad day-of-week"),
        ('{"cron":["0 0 * * *",{"overlap":false}],"queue":"q"}', "cron is not a string"),
        ('{"every":["1h",{"first_at":"noon"}],"queue":"q"}', "the only known option is first_in"),
        ('{"every":"1x","queue":"q"}', "'1x' is not a duration"),
        ('{"every":"0s","queue":"q"}', "'0s' is zero"),
        ('{"every":"1.5s","queue":"q"}', "'1.5s' is not a whole number of seconds"),
        ('{"every":"5 Min","queue":"q"}', "'5 Min' is not a duration"),
        ('{"every":"-5s","queue":"q"}', "'-5s' is not a duration"),
        ('{"every":3600,"queue":"q"}', "3600 is not a duration"),
        ('{"every":"1h","queue":"q","args":[12345678901234567]}', "above 2^53"),
    ],
)
async def test_an_unsupported_schedule_is_logged_once_and_skipped(
    clockwork: Clockwork, caplog: pytest.LogCaptureFixture, text: str, reason: str
) -> None:
    clockwork.client.hset(clockwork.keys.cron_schedules, "odd", text)
    clockwork.put("tick", every="1m", queue="q", **{"class": "tick"})
    with caplog.at_level(logging.WARNING):
        await clockwork.schedules.fire()
        clockwork.set_back("tick", 60)
        assert await clockwork.schedules.fire() == 1, "the others go on"
    [line] = caplog.messages
    assert line.startswith("the schedule 'odd' is left to resque-scheduler: ")
    assert reason in line
    assert clockwork.client.hget(clockwork.keys.cron_schedules, "odd") == text


@pytest.mark.parametrize("members", [{}, {"cron": ""}, {"every": "", "cron": None}, {"cron": "", "every": []}])
async def test_a_schedule_that_is_only_a_button_in_ruby_s_pages_is_not_a_fault(
    clockwork: Clockwork, caplog: pytest.LogCaptureFixture, members: dict[str, Any]
) -> None:
    clockwork.put("button", queue="q", **{"class": "Press"}, **members)
    clockwork.put("tick", every="1m", queue="q", **{"class": "tick"})
    await clockwork.schedules.fire()
    clockwork.set_back("tick", 60)
    assert await clockwork.schedules.fire() == 1
    assert [job["class"] for job in clockwork.jobs()] == ["tick"]
    found = await Doctor(clockwork.redis, clockwork.keys).examine()
    assert (caplog.messages, [finding for finding in found if "schedule" in finding.what]) == ([], [])


async def test_a_queue_that_is_not_a_list_affects_no_other_schedule(
    clockwork: Clockwork, caplog: pytest.LogCaptureFixture
) -> None:
    clockwork.client.set(clockwork.keys.queue("bad"), "no list")
    for name, queue in (("a", "bad"), ("b", "q")):
        clockwork.put(name, every="1m", queue=queue, **{"class": "tick"})
    await clockwork.schedules.fire()
    for name in ("a", "b"):
        clockwork.set_back(name, 60)
    assert await clockwork.schedules.fire() == 1
    assert [job["queue"] for job in clockwork.jobs()] == ["q"]
    assert "the schedule 'a': Redis: WRONGTYPE" in caplog.text
    clockwork.client.delete(clockwork.keys.queue("bad"))
    assert await clockwork.schedules.fire() == 1, "it was not marked as enqueued before"


def test_every_counts_from_its_first_reading_and_keeps_its_pace() -> None:
    every = cron_module.read_every(["1m", {"first_in": "5s"}])
    mark = every.begin(1000)
    assert every.due(mark, 1004) is None
    assert every.due(mark, 1005) == 1005
    assert every.due(1005, 1064) is None
    assert every.due(1005, 1190) == 1185, "late, but not later and later"


MOMENTS = st.integers(
    int(datetime(2026, 3, 27, tzinfo=UTC).timestamp()), int(datetime(2026, 3, 31, tzinfo=UTC).timestamp())
)

AUTUMN = int(datetime(2026, 10, 25, tzinfo=UTC).timestamp()) - int(datetime(2026, 3, 29, tzinfo=UTC).timestamp())


@given(
    now=MOMENTS,
    before=st.integers(1, 2 * DAY),
    text=st.sampled_from(
        ["* * * * *", "30 2 * * *", "*/20 1-3 * * *", "0 0 * * sun", "15 */6 * * *", "7 0 2,3 * * *", "0 3 L * *"]
    ),
    zone=st.sampled_from(["UTC", "Europe/Vienna", "America/St_Johns"]),
    later=st.sampled_from([0, AUTUMN]),
)
def test_searching_backwards_finds_the_same_due_times_as_searching_forwards(
    now: int, before: int, text: str, zone: str, later: int
) -> None:
    """Across two changes of the clocks, with steps of any length, each time is due once."""
    cron, mark, end = cron_module.read_cron(f"{text} {zone}"), now + later, now + later + before
    forward = CronSim(text, datetime.fromtimestamp(mark, ZoneInfo(zone)))
    expected = None
    while (second := int(next(forward).timestamp())) <= end:
        expected = second
    found = cron.due(mark, end)
    assert found == expected or (zone != "UTC" and later and _in_repeated_hour(end, zone) and found is None)


def _in_repeated_hour(second: int, zone: str) -> bool:
    return datetime.fromtimestamp(second, ZoneInfo(zone)).fold == 1


def test_a_nightly_job_runs_once_a_night_even_when_the_clocks_change() -> None:
    for day in (datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)):
        cron, start = cron_module.read_cron("30 2 * * * Europe/Vienna"), int(day.timestamp())
        mark, fired = start, 0
        for now in range(start, start + DAY, 10):
            if due := cron.due(mark, now):
                mark, fired = due, fired + 1
        assert fired == 1
