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


def limit_answers(client: redis.Redis, seconds: float) -> None:
    """Let the client wait at most `seconds` for a connection or an answer. Call it before the first command."""
    options = client.connection_pool.connection_kwargs
    for name in ("socket_timeout", "socket_connect_timeout"):
        options[name] = min(options.get(name) or seconds, seconds)
