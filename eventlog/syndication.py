"""Syndication: one event becomes one job in the queue of each application that subscribed.

You publish an event once, and each application handles it as a job in its own queue, in its own language, with the
tools of the queue. The jobs are ordinary Resque jobs of the class that the application names. The Ruby gem queue-bus
does the same with a different format (one JSON string with `bus_…` attributes), which this does not write.

    eventlog:subscriptions   hash   "APPLICATION EVENT" -> JSON {event, queue, class, since}; since: a position

A subscription covers only events that are appended after you subscribe; positions decide that, not clocks. The job's
id consists of the event's id and the application's name. If a worker is killed after some of the jobs, the next one
makes all of them again. The queue remembers an id for an hour and takes only jobs with new ids.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis

from .events import BadEvent, Event, read_position
from .log import Log

SUBSCRIPTIONS = "eventlog:subscriptions"


class JobQueue(Protocol):
    """The part of a queue that syndication needs, such as `resque.Queue`."""

    def enqueue(self, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None) -> Awaitable[bool]:
        """Returns False if a job with this id was enqueued already."""


@dataclass(frozen=True, slots=True)
class Subscription:
    application: str
    event: str
    queue: str
    job_class: str
    since: tuple[int, int]

    def covers(self, event: Event) -> bool:
        return event.name == self.event and read_position(event.position) >= self.since


class Syndication:
    name = "syndication"
    events: frozenset[str] | None = None
    window = 500
    gather_seconds = 0.0

    def __init__(self, redis: Redis, queue: JobQueue) -> None:
        self._redis = redis
        self._queue = queue

    async def needed(self) -> bool:
        """Without a subscription this handler need not read the log."""
        return bool(await subscriptions(self._redis))

    async def handle(self, event: Event) -> None:
        await self.handle_many([event])

    async def handle_many(self, events: Sequence[Event]) -> None:
        """Enqueue a job for each event and each subscription to it. Raises BadEvent if an event cannot be a job."""
        # Read after the claim: this finds every subscription that is older than these events.
        subscribed = await subscriptions(self._redis)
        pairs = [(event, one) for event in events for one in subscribed if one.covers(event)]
        try:
            await asyncio.gather(*[self._enqueue(event, subscription) for event, subscription in pairs])
        except ValueError as error:
            raise BadEvent(f"cannot be a job: {error}") from None

    async def _enqueue(self, event: Event, subscription: Subscription) -> None:
        argument = {"event": event.name, "at": round(event.at * 1000), "data": event.data}
        job_id = f"{event.id}:{subscription.application}"
        await self._queue.enqueue(subscription.queue, subscription.job_class, [argument], job_id)


async def subscribe(log: Log, redis: Redis, application: str, event: str, queue: str, job_class: str) -> None:
    """Subscribe from now on. A second call replaces queue and class, and starts the subscription again.

    Raises ValueError for a name that is empty or has control characters, and for an application with a space.
    """
    for what, name in {"application": application, "event": event, "queue": queue, "class": job_class}.items():
        if not name or not name.isprintable() or (what == "application" and " " in name):
            raise ValueError(f"not a valid name of the {what}")
    subscription = {"event": event, "queue": queue, "class": job_class, "since": await log.end()}
    await redis.hset(SUBSCRIPTIONS, f"{application} {event}", orjson.dumps(subscription))


async def unsubscribe(log: Log, redis: Redis, application: str, event: str) -> bool:
    """End a subscription. Returns False if there was none. After the last one the consumer leaves the log, which then
    keeps no events for it.
    """
    ended = bool(await redis.hdel(SUBSCRIPTIONS, f"{application} {event}"))
    if not await subscriptions(redis):
        await log.leave(Syndication.name)
    return ended


async def subscriptions(redis: Redis) -> list[Subscription]:
    """All subscriptions, without invalid entries."""
    entries = await bytes_redis(redis).hgetall(SUBSCRIPTIONS)
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
