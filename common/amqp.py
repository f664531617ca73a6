"""A connection to RabbitMQ that comes back, and RabbitMQ's errors in words.

Needs aio-pika, which the extra `rabbitmq` installs. Its "robust" connections are not used: they publish into a closed
connection while they reconnect, and do not restore a consumer that RabbitMQ has cancelled.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import unquote, urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelPreconditionFailed, ProbableAuthenticationError, ProtocolSyntaxError
from yarl import URL

from asynckit.tasks import background
from common.mail.errors import CannotAccept

CONNECT_SECONDS = 2.0  # for TCP, TLS and the login together
ANSWER_SECONDS = 2.0
DECLARE_SECONDS = 10.0  # for all queues: each new quorum queue elects a leader
CLOSE_SECONDS = 0.5  # a frozen RabbitMQ does not answer a farewell either
HEARTBEAT_SECONDS = 10  # both sides take a silent connection for dead after two or three of them
BROKEN = (AMQPError, OSError, RuntimeError, TimeoutError)  # aiormq raises RuntimeError on a closed channel

# They write a line or a traceback of their own for each error that they also raise.
for _name in ("aio_pika", "aiormq"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class CannotConnect(Exception):
    """There is no connection, and nothing was handed over. The reason is one line and names no user and no password."""


class Misconfigured(CannotConnect):
    """RabbitMQ is there and does not accept the login or the virtual host: waiting does not help."""


async def connect(url: str) -> AbstractConnection:
    """One attempt. Raises CannotConnect."""
    parts = urlsplit(url)
    address = URL(url) if "heartbeat=" in parts.query else URL(url).update_query(heartbeat=HEARTBEAT_SECONDS)
    place = f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"
    try:
        return await aio_pika.connect(address, timeout=CONNECT_SECONDS)
    except ProbableAuthenticationError:
        raise Misconfigured(f"RabbitMQ at {place} does not accept the user or the password") from None
    except ProtocolSyntaxError:  # aiormq expects Connection.OpenOk and reads Connection.Close
        name = unquote(parts.path.removeprefix("/")) or "/"
        raise Misconfigured(f"RabbitMQ at {place} does not give this user the virtual host {name!r}") from None
    except TimeoutError:
        raise CannotConnect(f"RabbitMQ at {place} does not answer within {CONNECT_SECONDS:g} s") from None
    except (AMQPError, OSError, RuntimeError, ValueError) as error:
        raise CannotConnect(f"RabbitMQ at {place} cannot be reached: {describe(error)}") from None


def describe(error: BaseException) -> str:
    """One line for a log or an answer."""
    if isinstance(error, TimeoutError):
        return "RabbitMQ does not answer in time"
    return one_line(str(error)) or type(error).__name__


def one_line(text: str, limit: int = 200) -> str:
    """Printable, and at most this long: what other programs wrote may hold anything."""
    return "".join(c if c.isprintable() else " " for c in text)[:limit].strip()


class Link:
    """A connection with one channel. It is made when it is needed, and again when it is needed after it broke."""

    def __init__(self, url: str, declare: Callable[[AbstractChannel], Awaitable[None]]) -> None:
        """`declare` creates the queues that do not exist yet; it is called on each new channel."""
        self._url = url
        self._declare = declare
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._opening: asyncio.Task[AbstractChannel] | None = None

    async def channel(self) -> AbstractChannel:
        """An open channel. Raises CannotAccept. Callers that come at the same time share one attempt."""
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())  # no caller may be left
        return await asyncio.shield(self._opening)

    async def _open(self) -> AbstractChannel:
        await self.close()
        try:
            self._connection = await connect(self._url)
            async with asyncio.timeout(DECLARE_SECONDS):
                # Each message is confirmed, and one that no queue takes is an error.
                channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
                await self._declare(channel)
        except CannotConnect as error:
            raise CannotAccept(str(error)) from None
        except ChannelPreconditionFailed as error:
            raise CannotAccept(f"RabbitMQ has a queue of this name with other arguments: {describe(error)}") from None
        except BROKEN as error:
            raise CannotAccept(describe(error)) from None
        self._channel = channel
        return channel

    async def count(self, queue: str) -> tuple[int, int]:
        """How many messages of the queue wait, and how many consumers it has. Raises CannotAccept."""
        channel = await self.channel()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = (await channel.declare_queue(queue, passive=True)).declaration_result
        except BROKEN as error:
            await self.drop(channel)
            raise CannotAccept(describe(error)) from None
        return found.message_count or 0, found.consumer_count or 0

    async def wait_while_blocked(self, seconds: float = ANSWER_SECONDS) -> None:
        """Wait a little for the end of an alarm: RabbitMQ then reads nothing from connections that publish.

        Raises CannotAccept.
        """
        try:
            async with asyncio.timeout(seconds):
                if self._connection is not None and self._connection.transport is not None:
                    await self._connection.transport.ready()
        except TimeoutError:
            raise CannotAccept("RabbitMQ accepts no messages now: its memory or its disk is nearly full") from None

    async def drop(self, channel: AbstractChannel) -> None:
        """Leave a connection that is silent, so that the next call gets another. A blocked one stays."""
        try:
            await self.wait_while_blocked(0.01)
        except CannotAccept:
            return
        if channel is self._channel:
            await self.close()

    async def close(self) -> None:
        """What was delivered on this connection and is not acknowledged goes back to its queue."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            closing = background(_close(connection), "closing a connection to RabbitMQ")
            await asyncio.wait([closing], timeout=CLOSE_SECONDS)


async def _close(connection: AbstractConnection) -> None:
    with suppress(*BROKEN):
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.close()
