"""The connections of a worker process: three clients, so that a blocking read does not delay other commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import redis
from redis.asyncio import Redis

from asynckit.cluster import read_cluster_url
from asynckit.redis_client import ANSWER_SECONDS, blocking_redis_client, redis_client

from .notifier import WAIT_SECONDS


@dataclass(frozen=True)
class Connections:
    commands: Redis
    """For commands that Redis answers at once."""
    waiting: Redis
    """For blocking reads."""
    thread: redis.Redis
    """For the heartbeat's thread."""


@asynccontextmanager
async def open_connections(url: str, namespace: str | None = None) -> AsyncIterator[Connections]:
    """Open the connections for a URL such as `redis://127.0.0.1:6379/0`, and close them at the end.

    In a cluster they lead to the node that has the keys of the namespace, which must be a hash tag.
    """
    key, seconds = namespace or namespace_for(url), WAIT_SECONDS + ANSWER_SECONDS
    async with redis_client(url, key=key) as commands, redis_client(url, seconds, key=key) as waiting:
        with blocking_redis_client(url, key=key) as thread:
            yield Connections(commands, waiting, thread)


def namespace_for(url: str) -> str:
    """The default namespace: `resque`; in a cluster `{resque}`, a hash tag, so that all keys are in one slot."""
    return "{resque}" if read_cluster_url(url) else "resque"


class AnswerLimit:
    """How long the client of a thread waits for a connection or an answer. Create it before the first command.

    At first `least` seconds. After each time-out the limit doubles, up to `most`: otherwise a Redis that always answers
    later than the limit would seem to be down forever. After an answer, the next connection begins with `least`.
    """

    def __init__(self, client: redis.Redis, least: float, most: float) -> None:
        self._pool = client.connection_pool
        self._least = least
        self._most = most
        options = self._pool.connection_kwargs
        self._own = {name: options.get(name) or most for name in ("socket_timeout", "socket_connect_timeout")}
        self.answered()

    def answered(self) -> None:
        self._set(self._least)

    def timed_out(self) -> None:
        self._set(min(2 * self._seconds, self._most))
        self._pool.disconnect()
        self._pool.reset()  # an open connection would keep its limit

    def _set(self, seconds: float) -> None:
        self._seconds = seconds
        self._pool.connection_kwargs.update({name: min(own, seconds) for name, own in self._own.items()})
