"""A connection to RabbitMQ that is opened again after it broke, and RabbitMQ's errors as text.

aio-pika's "robust" connections are not used: they publish into a closed connection while they reconnect, and do not
restore a consumer that RabbitMQ has cancelled.
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
CLOSE_SECONDS = 0.5  # a suspended RabbitMQ does not answer the close either
HEARTBEAT_SECONDS = 10  # both sides close a connection that is silent for two or three times this
BROKEN = (AMQPError, OSError, RuntimeError, TimeoutError)  # aiormq raises RuntimeError on a closed channel

# These libraries also log each error that they raise, some with a traceback.
for _name in ("aio_pika", "aiormq"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class CannotConnect(Exception):
    """There is no connection, and nothing was handed over. The message is one line, without user and password."""


async def connect(url: str) -> AbstractConnection:
    """One attempt. Raises CannotConnect."""
    parts = urlsplit(url)
    address = URL(url) if "heartbeat=" in parts.query else URL(url).update_query(heartbeat=HEARTBEAT_SECONDS)
    place = f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"
    try:
        return await aio_pika.connect(address, timeout=CONNECT_SECONDS)
    except ProbableAuthenticationError:
        raise CannotConnect(f"RabbitMQ at {place} does not accept the user or the password") from None
    except ProtocolSyntaxError:  # aiormq expects Connection.OpenOk and reads Connection.Close
        name = unquote(parts.path.removeprefix("/")) or "/"
        raise CannotConnect(f"RabbitMQ at {place} does not give this user the virtual host {name!r}") from None
    except TimeoutError:
        raise CannotConnect(f"RabbitMQ at {place} does not answer within {CONNECT_SECONDS:g} s") from None
    except FileNotFoundError:
        raise CannotConnect("a file that the URL names, such as cafile, does not exist") from None
    except (AMQPError, OSError, RuntimeError, ValueError) as error:
        raise CannotConnect(f"RabbitMQ at {place} cannot be reached: {describe(error)}") from None


def describe(error: BaseException) -> str:
    """One line for a log or an answer."""
    if isinstance(error, TimeoutError):
        return "RabbitMQ does not answer in time"
    return one_line(str(error)) or type(error).__name__


def one_line(text: str, limit: int = 200) -> str:
    """The text without control characters, and at most this long: other programs may have written anything."""
    return "".join(c if c.isprintable() else " " for c in text)[:limit].strip()


class Link:
    """A connection with one channel. It is opened at the first use, and again at the first use after it broke."""

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
            # If all callers were cancelled, nothing else retrieves the exception.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._opening)

    async def _open(self) -> AbstractChannel:
        await self.close()
        try:
            self._connection = await connect(self._url)
            async with asyncio.timeout(DECLARE_SECONDS):
                # RabbitMQ confirms each message, and a message that reaches no queue is an error.
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
        """How many messages wait in the queue, and how many consumers it has. Raises CannotAccept."""
        channel = await self.channel()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = (await channel.declare_queue(queue, passive=True)).declaration_result
        except BROKEN as error:
            await self.drop(channel)
            raise CannotAccept(describe(error)) from None
        return found.message_count or 0, found.consumer_count or 0

    async def wait_while_blocked(self, seconds: float = ANSWER_SECONDS) -> None:
        """Wait for the end of an alarm. During an alarm RabbitMQ reads nothing from connections that publish.

        Raises CannotAccept.
        """
        try:
            async with asyncio.timeout(seconds):
                if self._connection is not None and self._connection.transport is not None:
                    await self._connection.transport.ready()
        except TimeoutError:
            raise CannotAccept("RabbitMQ accepts no messages now: its memory or its disk is nearly full") from None

    async def drop(self, channel: AbstractChannel) -> None:
        """Close a connection that does not answer, so that the next call opens another. A blocked one stays open."""
        try:
            await self.wait_while_blocked(0.01)
        except CannotAccept:
            return
        if channel is self._channel:
            await self.close()

    async def close(self) -> None:
        """Close the connection. RabbitMQ puts the unacknowledged messages of this connection back into their queue."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            closing = background(_close(connection), "closing a connection to RabbitMQ")
            await asyncio.wait([closing], timeout=CLOSE_SECONDS)


async def _close(connection: AbstractConnection) -> None:
    with suppress(*BROKEN):
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.close()
