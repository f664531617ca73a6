"""Meeting in the middle: one event becomes one job in the queue of each application that has subscribed.

Publish once, and let every application work through a queue of its own, in its own language, with the tools of the
queue. The jobs are ordinary Resque jobs of the class that the application names. The Ruby gem queue-bus has the same
idea and another format, which this does not write: its worker takes one JSON string with `bus_…` attributes.

    eventlog:subscriptions   hash   "APPLICATION EVENT" -> JSON {event, queue, class, since}; since: a position

A subscription covers only events appended after it was made: those behind the end of the log at that moment, whatever
clocks say. The job's id is made of the event's id and the application's name. A worker that is killed in the middle has
made some of the jobs; the next one makes all of them again, and the queue, which knows an id for an hour, takes those
that are new.

`python -m 6_event_bus.syndication APPLICATION EVENT QUEUE CLASS` subscribes, with the LOG of the strategy that runs;
`python -m 6_event_bus.syndication APPLICATION EVENT` ends that.
"""

import asyncio
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from common.process import run
from common.redis_client import reason, redis_client
from common.settings import Settings, exit_with_usage_error, read_settings

from .events import BadEvent, Event, read_position
from .log import Log
from .logs import make_log

USAGE = "usage: python -m 6_event_bus.syndication APPLICATION EVENT [QUEUE CLASS]"
SUBSCRIPTIONS = "eventlog:subscriptions"


class JobQueue(Protocol):
    """What this needs of strategy 5."""

    async def enqueue(self, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None) -> bool:
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


def queue_of_strategy_5(redis: Redis) -> JobQueue:
    """Its folder begins with a digit, so no import statement can name it."""
    queue: JobQueue = importlib.import_module("5_remote_queue.resque").Queue(redis)
    return queue


async def main(settings: Settings, words: Sequence[str]) -> None:
    """Ends the program with one line and exit status 1 when Redis does not do it."""
    try:
        await _change(settings, words)
    except RedisError as error:
        sys.exit(reason(error))


async def _change(settings: Settings, words: Sequence[str]) -> None:
    async with redis_client(settings.redis) as redis, make_log(settings, redis) as log:
        if len(words) == 4:
            await subscribe(log, redis, *words)
        else:
            await unsubscribe(log, redis, *words)
            print(f"{words[0]}: {words[1]} is no longer made into jobs")
        for one in await subscriptions(redis):
            print(f"{one.application}: {one.event} becomes {one.job_class} in {one.queue}")


if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(USAGE)
        sys.exit()
    if len(sys.argv) not in (3, 5):
        exit_with_usage_error(USAGE)
    run(main(read_settings(), sys.argv[1:]), until_stopped=False)
