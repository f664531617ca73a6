"""What the connections of our Redis clients have in common: their limits, their errors, and when they reconnect.

redis-py keeps a connection to a node for as long as the node lives. If the node has become a replica, and the name or
proxy in the URL now leads to another node, the first write raises ReadOnlyError, and all connections are replaced. A
node of a cluster that does not have a slot any more raises MovedError, with the same result (cluster.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
WAIT_MS = 1000  # how long the replicas may take to acknowledge; below ANSWER_SECONDS, for the answer must come too


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


class LeavesReplica:
    """A mixin for the connections of one client: after a ReadOnlyError, all that lead to this node reconnect."""

    siblings: WeakSet[Any]
    wrong_node: tuple[type[RedisError], ...] = (ReadOnlyError,)

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
        except self.wrong_node:
            for connection in self.siblings:
                if _address_of(connection) == _address_of(self):  # others may have just connected to the right node
                    connection.mark_for_reconnect()
            raise

    async def can_read(self: Any) -> bool:
        """Called before an idle connection is used: a readable one is broken and is replaced."""
        with _closed_is_lost():
            return bool(self.should_reconnect() or await super().can_read())  # type: ignore[misc]


def _address_of(connection: Any) -> tuple[object, object]:
    """None for a Unix socket."""
    return getattr(connection, "host", None), getattr(connection, "port", None)


@contextmanager
def _closed_is_lost() -> Iterator[None]:
    """uvloop raises RuntimeError for a closed transport; redis-py expects an OSError and would not catch it."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(f"Connection lost: {error}") from error


class BlockingLeavesReplica:
    """The same mixin for a thread, which has one connection."""

    wrong_node: tuple[type[RedisError], ...] = (ReadOnlyError,)

    def read_response(self: Any, *how: Any, **more: Any) -> Any:
        try:
            return super().read_response(*how, **more)  # type: ignore[misc]
        except self.wrong_node:
            self.mark_for_reconnect()
            raise


def with_mixins(mixins: tuple[type, ...], plain: type, options: dict[str, Any], **members: Any) -> dict[str, Any]:
    """The options of a pool whose connections, of the plain class or the URL's, have these mixins and members."""
    kind = options.get("connection_class", plain)
    kind = type(kind.__name__, (*mixins, kind), {"siblings": WeakSet(), **members})
    return {**options, "connection_class": kind}


def limited(from_url: Any, retry: object, answer_seconds: float) -> dict[str, Any]:
    """Our options override those of the URL (with redis-py's `from_url`, the URL's would win)."""
    return {
        **from_url,
        "retry": retry,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": answer_seconds,
        "protocol": 2,  # with RESP3, redis-py considers a connection with an unread answer usable
    }
