"""Clients for Redis that repeat no command and never hang.

redis-py's defaults suit reads. They repeat a command whose answer was lost: then a PUBLISH or a push happens twice, and
an element that a pop removed is lost. Here a lost answer is an error, and the caller decides what to do.
"""

import redis
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import Connection as BlockingConnection
from redis.connection import parse_url as parse_blocking_url
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    RedisError,
    TimeoutError,
)
from redis.retry import Retry as BlockingRetry

from asynckit.cluster import ClusterUrl, read_cluster_url
from asynckit.cluster_client import cluster_client
from asynckit.cluster_thread import blocking_cluster_client
from asynckit.connections import ANSWER_SECONDS as ANSWER_SECONDS
from asynckit.connections import BlockingLeavesReplica, LeavesReplica, TooFewReplicas, limited, with_mixins
from asynckit.redis_url import check_redis_url
from asynckit.sentinel import BlockingFindsPrimary, FindsPrimary, SentinelUrl, read_sentinel_url

CALL_ERRORS = (RedisError, RuntimeError)
"""What a call of Redis may raise. RuntimeError: the event loop has closed the connection, or is closing."""
BAD_OPTION = "has an option that redis-py does not know"


def redis_client(url: str, answer_seconds: float = ANSWER_SECONDS, *, key: str | None = None) -> Redis:
    """A client for `redis://`, `rediss://`, `unix://`, `redis+sentinel://` or `redis+cluster://`; connections are
    opened when needed and kept open.

    A command fails at the latest `answer_seconds` after it was sent; a blocking read needs a client of its own with a
    longer limit. In a cluster the client sends each command to the node of its key (cluster_client.py); with `key`, it
    sends all commands to the node of that key, for programs whose keys have one hash tag. Commands raise RedisError.
    Raises ValueError when the URL is wrong or has an option that redis-py does not know; the message does not repeat
    the URL, which may hold a password.
    """
    sentinels, cluster = _read_url(url)
    retry = Retry(NoBackoff(), 0)
    try:
        if cluster:
            return cluster_client(cluster.hosts, limited(parse_url(cluster.node), retry, answer_seconds), key)
        options = limited(parse_url(sentinels.primary if sentinels else url), retry, answer_seconds)
        mixins = (FindsPrimary, LeavesReplica) if sentinels else (LeavesReplica,)
        pool = ConnectionPool(**with_mixins(mixins, Connection, options, sentinels=sentinels))
        pool.make_connection()  # type: ignore[no-untyped-call]  # does not connect, but checks the options
    except (TypeError, ValueError, RedisError):
        raise ValueError(BAD_OPTION) from None
    return Redis.from_pool(pool)


def blocking_redis_client(url: str, answer_seconds: float = ANSWER_SECONDS, *, key: str | None = None) -> redis.Redis:
    """A blocking client for a thread of its own. Never use it on the event loop."""
    sentinels, cluster = _read_url(url)
    retry = BlockingRetry(NoBackoff(), 0)
    try:
        if cluster:
            from_url = parse_blocking_url(cluster.node)  # type: ignore[no-untyped-call]
            return blocking_cluster_client(cluster.hosts, limited(from_url, retry, answer_seconds), key)
        from_url = parse_blocking_url(sentinels.primary if sentinels else url)  # type: ignore[no-untyped-call]
        mixins = (BlockingFindsPrimary, BlockingLeavesReplica) if sentinels else (BlockingLeavesReplica,)
        options = with_mixins(mixins, BlockingConnection, limited(from_url, retry, answer_seconds), sentinels=sentinels)
        pool = redis.ConnectionPool(**options)
        pool.make_connection()  # does not connect, but checks the options
    except (TypeError, ValueError, RedisError):
        raise ValueError(BAD_OPTION) from None
    return redis.Redis(connection_pool=pool)


def _read_url(url: str) -> tuple[SentinelUrl | None, ClusterUrl | None]:
    """Both are None for a single Redis. Raises ValueError."""
    sentinels, cluster = read_sentinel_url(url), read_cluster_url(url)
    if not sentinels and not cluster:
        check_redis_url(url)
    return sentinels, cluster


def describe(error: Exception) -> str:
    """The reason for a log or an answer. The messages of redis-py contain the host and port, but no password."""
    match error:
        case AuthenticationError():
            return "Redis refuses the login"
        case TooFewReplicas():
            return f"Redis: {error}"
        case TimeoutError():
            return "Redis does not answer in time"
        case BusyLoadingError():
            return "Redis is still loading its data"
        case MovedError():
            return "Redis has moved the keys to another node"
        case _:
            return f"Redis: {error}"


def describe_for(url: str, error: Exception) -> str:
    """The same for a command line, which can say what is wrong with its URL."""
    if isinstance(error, (MovedError, ClusterDownError)) and read_cluster_url(url) is None:
        return "the URL names a node of a cluster; write redis+cluster:// in place of redis://"
    return describe(error)
