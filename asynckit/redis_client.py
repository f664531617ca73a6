"""Clients for Redis that repeat no command and never hang.

redis-py's defaults suit reads. They repeat a command whose answer was lost: then a PUBLISH or a push happens twice, and
an element that a pop removed is lost. Here a lost answer is an error, and the caller decides what to do.

redis-py also keeps a connection to a node for as long as the node lives. If the node has become a replica, and the name
or proxy in the URL now leads to another node, the first write raises ReadOnlyError, and all connections are replaced.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

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
    ConnectionError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)
from redis.retry import Retry as BlockingRetry

from asynckit.sentinel import BlockingFindsPrimary, FindsPrimary, SentinelUrl, read_sentinel_url

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
WAIT_MS = 1000  # how long the replicas may take to acknowledge; below ANSWER_SECONDS, for the answer must come too
CALL_ERRORS = (RedisError, RuntimeError)
"""What a call of Redis may raise. RuntimeError: the event loop has closed the connection, or is closing."""
BAD_OPTION = "has an option that redis-py does not know"


def redis_client(url: str, answer_seconds: float = ANSWER_SECONDS) -> Redis:
    """A client for `redis://`, `rediss://`, `unix://` or `redis+sentinel://`; connections are opened when needed and
    kept open.

    A command fails at the latest `answer_seconds` after it was sent; a blocking read needs a client of its own with a
    longer limit. Commands raise RedisError. Raises ValueError when the URL has an option that redis-py does not know;
    the message does not repeat the URL, which may hold a password.
    """
    sentinels = read_sentinel_url(url)
    try:
        from_url = parse_url(sentinels.primary if sentinels else url)
        options = _options(from_url, Retry(NoBackoff(), 0), answer_seconds)
        mixins = (FindsPrimary, _LeavesReplica) if sentinels else (_LeavesReplica,)
        pool = ConnectionPool(**_with_mixins(mixins, Connection, options, sentinels))
        pool.make_connection()  # type: ignore[no-untyped-call]  # does not connect, but checks the options
    except (TypeError, ValueError, RedisError):
        raise ValueError(BAD_OPTION) from None
    return Redis.from_pool(pool)


def blocking_redis_client(url: str, answer_seconds: float = ANSWER_SECONDS) -> redis.Redis:
    """A blocking client for a thread of its own. Never use it on the event loop."""
    sentinels = read_sentinel_url(url)
    try:
        from_url = parse_blocking_url(sentinels.primary if sentinels else url)  # type: ignore[no-untyped-call]
        options = _options(from_url, BlockingRetry(NoBackoff(), 0), answer_seconds)
        mixins = (BlockingFindsPrimary, _BlockingLeavesReplica) if sentinels else (_BlockingLeavesReplica,)
        pool = redis.ConnectionPool(**_with_mixins(mixins, BlockingConnection, options, sentinels))
        pool.make_connection()  # does not connect, but checks the options
    except (TypeError, ValueError, RedisError):
        raise ValueError(BAD_OPTION) from None
    return redis.Redis(connection_pool=pool)


class NotSent(Exception):
    """Mixed into errors of Redis: there was no connection, or the call was not tried, so Redis got nothing."""


class NotConnected(NotSent, ConnectionError):
    pass


class ConnectTimedOut(NotSent, TimeoutError):
    pass


class TooFewReplicas(TimeoutError):
    """The primary has the write, but too few replicas have acknowledged it in time: a failover may lose it."""

    def __init__(self, wanted: int, acknowledged: int) -> None:
        super().__init__(f"{acknowledged} of {wanted} replicas have acknowledged the write")


class _LeavesReplica:
    """A mixin for the connections of one client: after a ReadOnlyError, all of them reconnect."""

    siblings: WeakSet[Any]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.siblings.add(self)

    async def connect_check_health(self, *how: Any, **more: Any) -> None:
        try:
            with _closed_is_lost():
                await super().connect_check_health(*how, **more)  # type: ignore[misc]
        except (AuthenticationError, BusyLoadingError):
            raise
        except TimeoutError as error:
            raise ConnectTimedOut(str(error)) from error
        except ConnectionError as error:
            raise NotConnected(str(error)) from error

    async def send_packed_command(self, *command: Any, **how: Any) -> None:
        with _closed_is_lost():
            await super().send_packed_command(*command, **how)  # type: ignore[misc]

    async def read_response(self, *how: Any, **more: Any) -> Any:
        try:
            with _closed_is_lost():
                return await super().read_response(*how, **more)  # type: ignore[misc]
        except ReadOnlyError:
            for connection in self.siblings:
                connection.mark_for_reconnect()
            raise

    async def can_read(self: Any) -> bool:
        """Called before an idle connection is used: a readable one is broken and is replaced."""
        with _closed_is_lost():
            return bool(self.should_reconnect() or await super().can_read())  # type: ignore[misc]


@contextmanager
def _closed_is_lost() -> Iterator[None]:
    """uvloop raises RuntimeError for a closed transport; redis-py expects an OSError and would not catch it."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(f"Connection lost: {error}") from error


class _BlockingLeavesReplica:
    """The same mixin for a thread, which has one connection."""

    def read_response(self: Any, *how: Any, **more: Any) -> Any:
        try:
            return super().read_response(*how, **more)  # type: ignore[misc]
        except ReadOnlyError:
            self.mark_for_reconnect()
            raise


def _with_mixins(
    mixins: tuple[type, ...], plain: type, options: dict[str, Any], sentinels: SentinelUrl | None
) -> dict[str, Any]:
    """The options of a pool whose connections, of the plain class or the URL's, have these mixins."""
    kind = options.get("connection_class", plain)
    members: dict[str, Any] = {"siblings": WeakSet(), "sentinels": sentinels}
    return {**options, "connection_class": type(kind.__name__, (*mixins, kind), members)}


def _options(from_url: Any, retry: object, answer_seconds: float) -> dict[str, Any]:
    """Our options override those of the URL (with redis-py's `from_url`, the URL's would win)."""
    return {
        **from_url,
        "retry": retry,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": answer_seconds,
        "protocol": 2,  # with RESP3, redis-py considers a connection with an unread answer usable
    }


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
        case _:
            return f"Redis: {error}"
