"""Events that come twice, a consumer that is killed after each of its commands in turn, and two at the same time."""

import json
from collections import Counter
from typing import Any
from uuid import uuid4

from workshop.program import Failed, Program
from workshop.proxy import CutAfter, PauseAfter, Proxy
from workshop.trial import Trial, let_keys_expire, until

DOMAINS = ("example.com", "example.org", "example.net")
MARK = b"exercise:"
FIRST_EVENTS = 4
CUTS = 13  # commands after which the consumer is killed
TWICE = 5  # after at most this many commands, it is killed two times in a row
PAUSES = (2, 3, 4)  # commands after which a consumer waits while another one handles the same event
OTHER_SECONDS = 5.0  # the time that the other consumer gets; it may also wait for the first one
LOOK = "handler.py, handle()"


def new_event(domain: str) -> dict[str, Any]:
    return {"id": uuid4().hex, "name": "email_sent", "data": {"to": f"alice@{domain}"}}


async def check(trial: Trial) -> str:
    redis: Any = await trial.redis()
    events = [new_event(trial.random.choice(DOMAINS)) for _ in range(FIRST_EVENTS)]
    await append(redis, events)
    await trial.run("consumer.py")
    await compare(trial, redis, events, "each event came once")
    await append(redis, trial.random.sample(events, 3))
    await let_keys_expire(redis, "exercise:*")
    await trial.run("consumer.py")
    await compare(trial, redis, events, "a producer appended 3 events again much later, with the same ids")
    await redis.flushdb()
    await append(redis, events)
    await trial.run("consumer.py")
    await compare(trial, redis, events, "the log is copied into an empty Redis, whose counts begin at 0")
    for number in range(1, CUTS + 1):
        events += (more := [new_event(trial.random.choice(DOMAINS)) for _ in range(2)])
        await append(redis, more)
        for _ in range(2 if number <= TWICE else 1):
            await run_and_kill(trial, number)
        await trial.run("consumer.py")
        await compare(trial, redis, events, f"the consumer was killed after {number} commands and started again")
    for number in PAUSES:
        events += (more := [new_event(trial.random.choice(DOMAINS)) for _ in range(2)])
        await append(redis, more)
        await run_beside_another(trial, number)
        await compare(trial, redis, events, "two consumers handled the same event at the same time")
    return f"{len(events)} events were counted once, with {CUTS} kills between two commands"


async def append(redis: Any, events: list[dict[str, Any]]) -> None:
    await redis.rpush("exercise:log", *[json.dumps(event) for event in events])


async def run_and_kill(trial: Trial, number: int) -> Program:
    cut = CutAfter(number, MARK)
    async with Proxy(trial.redis_url, cut) as proxy:
        consumer = await trial.start("consumer.py", REDIS_URL=proxy.url)
        await until(lambda: cut.cut.is_set() or consumer.status is not None)
        await consumer.kill()
    return consumer


async def run_beside_another(trial: Trial, number: int) -> None:
    """One consumer is paused while another one handles the same events. Then a third one handles what is left."""
    pause = PauseAfter(number, MARK)
    async with Proxy(trial.redis_url, pause) as proxy:
        slow = await trial.start("consumer.py", REDIS_URL=proxy.url)
        await until(lambda: pause.seen > number or slow.status is not None)
        other = await trial.start("consumer.py")
        await until(lambda: other.status is not None, OTHER_SECONDS)
        pause.over.set()
        await slow.wait()
        await other.wait()
    await trial.run("consumer.py")


async def compare(trial: Trial, redis: Any, events: list[dict[str, Any]], when: str) -> None:
    expected = Counter(event["data"]["to"].rpartition("@")[2] for event in events)
    found = {domain.decode(): int(count) for domain, count in (await redis.hgetall("exercise:sent")).items()}
    total, counted = expected.total(), sum(found.values())
    if trial.measured is None and "with the same ids" in when:
        trial.measured = float(counted - total)
    if found != expected:
        wrong = next(domain for domain in {*expected, *found} if found.get(domain) != expected[domain])
        happened = f"{counted} were counted; for {wrong} it was {found.get(wrong, 0)} and not {expected[wrong]}"
        raise Failed(f"{total} events are counted when {when}", happened, LOOK)
