"""Meeting in the middle: one event becomes one job in the queue of each application that has subscribed.

Publish once, and let every application work through a queue of its own, in its own language, with the tools of the
queue. The jobs are ordinary Resque jobs of the class that the application names. The Ruby gem queue-bus has the same
idea and another format, which this does not write: its worker takes one JSON string with `bus_…` attributes.

    eventlog:subscriptions   hash   "APPLICATION EVENT" -> JSON {event, queue, class, since}; since: a position

A subscription covers only events appended after it was made: those behind the end of the log at that moment, whatever
clocks say. The job's id is made of the event's id and the application's name. A worker that is killed in the middle has
made some of the jobs; the next one makes all of them again, and the queue, which knows an id for an hour, takes those
that are new.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from redis.asyncio import Redis

from .events import BadEvent, Event, read_position
from .log import Log

SUBSCRIPTIONS = "eventlog:subscriptions"


class JobQueue(Protocol):
    """What this needs of a queue, such as `resque.Queue`."""

    def enqueue(self, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None) -> Awaitable[bool]:
        """False: a job with this id was enqueued already."""


@dataclass(frozen=True, slots=True)
class Subscription:
    application: str
    event: str
    queue: str
    job_class: str
    since: tuple[int, int]

    def wants(self, event: Event) -> bool:
        return event.name == self.event and read_position(event.position) >= self.since


class Syndication:
    name = "syndication"
    events: frozenset[str] | None = None
    window = 500
    gather_seconds = 0.0

    def __init__(self, redis: Redis, queue: JobQueue) -> None:
        self._redis = redis
        self._queue = queue

    async def wanted(self) -> bool:
        """Nobody need read the log for this while nobody has subscribed."""
        return bool(await subscriptions(self._redis))

    async def handle(self, event: Event) -> None:
        await self.handle_many([event])

    async def handle_many(self, events: Sequence[Event]) -> None:
        """One job for each event and each application that wants it. Raises BadEvent for what cannot be a job."""
        # Read after the events were claimed: whoever had subscribed before they happened is in it.
        subscribed = await subscriptions(self._redis)
        wanted = [(event, one) for event in events for one in subscribed if one.wants(event)]
        try:
            await asyncio.gather(*[self._enqueue(event, subscription) for event, subscription in wanted])
        except ValueError as error:
            raise BadEvent(f"cannot be a job: {error}") from None

    async def _enqueue(self, event: Event, subscription: Subscription) -> None:
        argument = {"event": event.name, "at": round(event.at * 1000), "data": event.data}
        job_id = f"{event.id}:{subscription.application}"
        await self._queue.enqueue(subscription.queue, subscription.job_class, [argument], job_id)


async def subscribe(log: Log, redis: Redis, application: str, event: str, queue: str, job_class: str) -> None:
    """From now on. A second time replaces queue and class, and begins anew."""
    subscription = {"event": event, "queue": queue, "class": job_class, "since": await log.end()}
    await redis.hset(SUBSCRIPTIONS, f"{application} {event}", orjson.dumps(subscription))


async def unsubscribe(log: Log, redis: Redis, application: str, event: str) -> None:
    """With the last one the consumer goes, too: the log keeps nothing for it."""
    await redis.hdel(SUBSCRIPTIONS, f"{application} {event}")
    if not await subscriptions(redis):
        await log.leave(Syndication.name)


async def subscriptions(redis: Redis) -> list[Subscription]:
    """Those that can be read; rubbish subscribes to nothing."""
    entries: dict[bytes, bytes] = await redis.hgetall(SUBSCRIPTIONS)  # type: ignore[assignment]
    found = []
    for key, text in entries.items():
        application = key.decode(errors="replace").partition(" ")[0]
        try:
            members = orjson.loads(text)
            event, queue, job_class = (str(members[name]) for name in ("event", "queue", "class"))
            found.append(Subscription(application, event, queue, job_class, read_position(members["since"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found
