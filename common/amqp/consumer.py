"""The worker's side of a queue in RabbitMQ: it handles a message, and then acknowledges it.

A message that is to be tried again, or that has failed, is first published to another queue and then acknowledged, so
that it is never lost. RabbitMQ puts the unacknowledged messages of a closed connection back into the queue.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aio_pika import Message
from aio_pika.abc import AbstractIncomingMessage

from asynckit.backoff import backoff_seconds
from asynckit.error_text import line_of
from asynckit.isolation import attempt as attempt_of
from asynckit.log_limit import OncePerSecond
from asynckit.tasks import background, end_tasks
from common.amqp.link import ANSWER_SECONDS, BROKEN, describe, one_line
from common.amqp.queues import WorkQueue, make_message
from common.mail.errors import CannotAccept, NoAnswer

ALONE_FROM = 2  # redeliveries; from this number on, the message may be what kills its workers
AGAIN_SECONDS = 1.0  # between two attempts to publish a copy
REMEMBERED = 1000  # messages whose acknowledgement may have been lost with a connection

log = logging.getLogger(__name__)
often = OncePerSecond(log)


class PutOff(Exception):
    """Raised by a handler: try the message again after a pause. No attempt is counted."""


@dataclass(frozen=True)
class Handler:
    """What a worker does with a message."""

    handle: Callable[[bytes], Awaitable[None]]
    """It gets the body. If it raises an error, the message is tried again after a pause."""
    final: tuple[type[Exception], ...]
    """After one of these errors the message moves to the failed list at once."""
    expected: type[Exception]
    """Any other error is logged with its traceback."""
    attempts: int
    """After this number of attempts a message moves to the failed list."""
    pause: Callable[[int], float]
    """The seconds to wait after failed attempt number N."""


@dataclass
class Copy:
    """A message that replaces one that was not handled. It is published before that one is acknowledged."""

    message: Message
    queue: str
    published: bool = False


class Consumer:
    """Handles the messages of a queue, at most `prefetch` at a time."""

    def __init__(self, queue: WorkQueue, handler: Handler, prefetch: int, drain_seconds: float) -> None:
        self._queue = queue
        self._handler = handler
        self._prefetch = prefetch
        self._drain_seconds = drain_seconds
        self._alone = True  # take one message at a time, so that a death of this worker counts only for that message
        self._changed = asyncio.Event()  # `_alone` has changed
        self._handling: set[asyncio.Task[None]] = set()
        self._outcomes: OrderedDict[tuple[str | bytes, int], asyncio.Task[Copy | None]] = OrderedDict()

    async def run(self, stop_requested: Callable[[], Awaitable[str]]) -> None:
        """Run until a stop is requested; then take no new message, finish within a limit, and give back the rest."""
        stop, failures = asyncio.ensure_future(stop_requested()), 0
        while not stop.done():
            try:
                await self._consume(stop)
                failures = 0
            except CannotAccept as error:
                failures += 1
                often.warning("no connection: %s", error)
                await asyncio.wait([stop], timeout=0.1 + backoff_seconds(failures, base=0.1, cap=1.0))
        log.info("stopping (%s)", stop.result())
        if self._handling:
            await asyncio.wait(self._handling, timeout=self._drain_seconds)
        await end_tasks([*self._handling, *self._outcomes.values()])
        await self._queue.link.close()
        log.info("stopped")

    async def _consume(self, stop: asyncio.Future[str]) -> None:
        """Consume until a stop is requested, the connection breaks, or RabbitMQ cancels the consumer."""
        link = self._queue.link
        channel, cancelled, is_change = await link.channel(), asyncio.Event(), self._changed.is_set()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._changed.clear()
                await channel.set_qos(prefetch_count=1 if self._alone else self._prefetch)
                (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
                queue = await channel.declare_queue(self._queue.name, passive=True)
                tag = await queue.consume(self._take)
        except BROKEN as error:
            await link.close()
            raise CannotAccept(describe(error)) from None
        if not is_change:
            log.info("ready to send")
        ends: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(channel.closed()),
            asyncio.create_task(cancelled.wait()),
            asyncio.create_task(self._changed.wait()),
        ]
        await asyncio.wait([stop, *ends], return_when=asyncio.FIRST_COMPLETED)
        if stop.done() or (self._changed.is_set() and not (ends[0].done() or cancelled.is_set())):
            with suppress(*BROKEN):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await queue.cancel(tag)
        else:
            log.warning("RabbitMQ has cancelled the consumer" if cancelled.is_set() else "the connection is lost")
            await link.close()
        for end in ends:
            end.cancel()

    async def _take(self, message: AbstractIncomingMessage) -> None:
        """Handle the message in a task of our own: aiormq cancels its tasks when the channel is closed."""
        deaths = message.headers.get("x-delivery-count")
        alone = isinstance(deaths, int) and deaths >= ALONE_FROM
        if alone is not self._alone:
            self._alone = alone
            self._changed.set()  # the limit of unacknowledged messages is set when the queue is consumed again
        task = background(self._handle(message), "handling a message")
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        """Handle the message, then acknowledge it.

        After a lost connection RabbitMQ redelivers the messages whose acknowledgement it did not get. A message that
        this process has handled, or is still handling, is not handled again.
        """
        attempt = message.headers.get("attempt")
        attempt = attempt if isinstance(attempt, int) and attempt > 0 else 1
        key = (message.message_id or message.body, attempt)
        outcome = self._outcomes.get(key) if message.redelivered else None
        if outcome is None:
            outcome = self._outcomes[key] = background(self._outcome(message, attempt), "handling a message once")
            while len(self._outcomes) > REMEMBERED and next(iter(self._outcomes.values())).done():
                self._outcomes.popitem(last=False)
        copy = await asyncio.shield(outcome)
        with suppress(*BROKEN):  # then RabbitMQ delivers the message again
            if copy is None or await self._published(copy, message):
                await message.ack()

    async def _published(self, copy: Copy, message: AbstractIncomingMessage) -> bool:
        """Publish the copy. Returns False if the connection that delivered the original breaks first."""
        while not copy.published and not message.channel.is_closed:
            try:
                await self._queue.publish(copy.message, copy.queue)
                copy.published = True
            except (CannotAccept, NoAnswer) as error:
                often.warning("%s is not in %s yet: %s", one_line(str(message.message_id)), copy.queue, error)
                await asyncio.sleep(AGAIN_SECONDS)
        return copy.published

    async def _outcome(self, message: AbstractIncomingMessage, attempt: int) -> Copy | None:
        """Handle the message. Returns None if that succeeded, else what to publish in its place."""
        error = await attempt_of(lambda: self._handler.handle(message.body))
        if error is None:
            return None
        if isinstance(error, self._handler.final):
            return self._give_up(message, attempt, error)
        if isinstance(error, PutOff):
            return self._put_off(message, attempt, attempt, str(error))
        if not isinstance(error, self._handler.expected):
            log.error("error while handling %s", one_line(str(message.message_id)), exc_info=error)
        if attempt >= self._handler.attempts:
            return self._give_up(message, attempt, error)
        return self._put_off(message, attempt, attempt + 1, line_of(error))

    def _put_off(self, message: AbstractIncomingMessage, attempt: int, next_attempt: int, why: str) -> Copy:
        queues, pause = self._queue.retries, self._handler.pause(attempt)
        name = one_line(str(message.message_id))
        often.warning("%s again in %.1f s, after attempt %d: %s", name, pause, attempt, one_line(why))
        later = make_message(message.body, message.message_id, next_attempt, pause)
        return Copy(later, queues[min(attempt, len(queues)) - 1])

    def _give_up(self, message: AbstractIncomingMessage, attempt: int, error: BaseException) -> Copy:
        why = one_line(line_of(error))
        log.error("gave up %s after %d attempt(s): %s", one_line(str(message.message_id)), attempt, why)
        record = make_message(message.body, message.message_id, attempt, error=why, failed_at=int(time.time()))
        return Copy(record, self._queue.failed)
