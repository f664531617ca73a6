"""Events that may have killed their worker: it handles one at a time, although it runs several consumers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from asynckit.tasks import end_tasks
from eventlog.consumers import Consumer
from eventlog.worker import Worker
from tests.support.event_log import append, claim_when_due, commit, numbers
from tests.support.listeners import Listener
from tests.support.programs import until

LEASE = 1.0
SLOW_SECONDS = 0.3  # longer than a claim takes
KILLED = "claimed 3 times and never finished: it may kill its worker"


def a_worker(log: Any, *handlers: Any) -> Sequence[Consumer]:
    """The consumers of a worker with these handlers."""
    consumers = [Consumer(log, handler, attempts=3) for handler in handlers]
    Worker(log, consumers, lease_seconds=LEASE, drain_seconds=1.0, retention_seconds=3600.0, retention_bytes=10**9)
    return consumers


@asynccontextmanager
async def running_until_killed(consumers: Sequence[Consumer]) -> AsyncIterator[None]:
    """At the end, all tasks stop where they are, as if the process was killed."""
    running = [asyncio.create_task(consumer.run()) for consumer in consumers]
    try:
        yield
    finally:
        for consumer in consumers:
            consumer.stop()
        await end_tasks([*running, *(task for consumer in consumers for task in consumer._tasks)])


def named(name: str) -> Listener:
    listener = Listener()
    listener.name = name
    return listener


async def test_while_one_consumer_handles_an_event_alone_the_others_of_its_worker_hold_none(new_log: Any) -> None:
    await append(await new_log(), 1)
    for _ in range(2):  # two owners die while they hold the event for both consumers
        dead = await new_log(lease=0.05)
        for name in ("email", "audit"):
            await claim_when_due(dead, name)
    handlers = [named("email"), named("audit")]
    email, audit = consumers = a_worker(await new_log(lease=LEASE), *handlers)
    seen: dict[str, Any] = {}

    async def handle_alone(own: Consumer, other: Consumer) -> None:
        seen[own.name] = [(one.attempts, one.alone) for one in own.held()], other.held()
        await asyncio.sleep(SLOW_SECONDS)
        await until(lambda: not other.held(), "what the other has claimed meanwhile is put back")

    handlers[0]._act = lambda _: handle_alone(email, audit)
    handlers[1]._act = lambda _: handle_alone(audit, email)
    async with running_until_killed(consumers):
        await until(lambda: email.handled and audit.handled)
    assert seen == {name: ([(3, True)], ()) for name in ("email", "audit")}
    assert [handler.began for handler in handlers] == [[0], [0]]


async def test_an_event_is_parked_only_for_the_consumer_whose_worker_it_kills(new_log: Any) -> None:
    email, audit = named("email"), named("audit")
    log = await new_log()
    await append(log, 1)
    for seconds in (60.0, 60.0, SLOW_SECONDS):
        await until_killed(await new_log(lease=LEASE), email, audit, seconds)
    # In the fourth process, the event is parked before its handler is called.
    audit._act = lambda _: None
    consumers = a_worker(await new_log(lease=LEASE), email, audit)
    async with running_until_killed(consumers):
        await until(lambda: consumers[0].failed and audit.ended)
        await until(lambda: not consumers[1].held())
    assert [parked.reason for parked in await log.parked("email")] == [KILLED]
    assert await log.parked("audit") == []
    assert (email.began, email.ended, audit.ended) == ([0, 0, 0], [], [0])


async def until_killed(log: Any, email: Listener, audit: Listener, seconds: float) -> None:
    """Run a worker that the event kills when the other consumer holds an event too, or does not hold one in time. The
    other handler takes `seconds`."""
    killed = asyncio.Event()
    consumers = a_worker(log, email, audit)

    async def kill() -> None:
        with suppress(AssertionError):
            await until(consumers[1].held, limit=SLOW_SECONDS)
        killed.set()
        await asyncio.sleep(60.0)

    email._act = lambda _: kill()
    audit._act = lambda _: asyncio.sleep(seconds)
    async with running_until_killed(consumers):
        await until(killed.is_set, "the event kills the process")


async def test_a_parked_event_that_may_kill_its_worker_is_retried_alone(new_log: Any) -> None:
    """The other parked events are retried together. Each retry of the suspect is alone, also after another kill."""
    log = await new_log()
    await append(log, 3)
    await log.park((await log.claim("email", 1))[0], "no such mailbox")
    [suspect] = await log.claim("email", 1)
    await log.park(suspect._replace(alone=True), KILLED)
    await log.park((await log.claim("email", 1))[0], '"alone":true')
    await log.unpark("email")
    dead, found = await new_log(lease=0.05), []
    for _ in range(3):
        found += [await claim_when_due(dead, "email")]
        if not found[-1][0].alone:
            await commit(dead, found[-1])
    [again] = await claim_when_due(log, "email")
    alone = [claims for claims in found if claims[0].alone]
    together = [number for claims in found if not claims[0].alone for number in numbers(claims)]
    assert (sorted(together), [numbers(claims) for claims in alone]) == ([0, 2], [[1]] * len(alone))
    assert (again.alone, numbers([again]), again.attempts) == (True, [1], len(alone) + 1)
    assert await log.commit(again)
    assert await log.parked("email") == []
