"""QUEUE=rabbitmq: the same strategy on RabbitMQ. The email is a message in a queue until a worker acknowledges it.

    emailQueue            what waits, and what is in flight
    emailQueue.retry.5s   one for each pause of RETRY_PAUSES_SECONDS: its messages expire, and move to emailQueue
    emailQueue.failed     the failed list. RabbitMQ's word for it is dead-letter queue

All are quorum queues: a message is on disk, in a cluster on most of the nodes, before RabbitMQ confirms it. The body is
the email as JSON, `{"id", "to", "subject", "text"}`. The header `attempt` counts from 1; in the failed list there are
`error` and `failed_at` (unix seconds) besides.

Beside the engine's scripts: `enqueue` is enqueue.lua, `consume` with its prefetch is claim.lua, `ack` is
acknowledge.lua, `_put_off` is retry.lua, `_give_up` is give_up.lua. RabbitMQ itself does what reap.lua and promote.lua
do: it puts back what a closed connection had not acknowledged, and moves what has expired.

`python -m 5_remote_queue.rabbitmq failed list | requeue | remove`: look after the failed list.
"""

import asyncio
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError
from pamqp.common import FieldTable

from asynckit.backoff import backoff_seconds
from asynckit.log_limit import OncePerSecond
from asynckit.tasks import background, end_tasks
from common.amqp import ANSWER_SECONDS, BROKEN, Link, describe, one_line
from common.mail.emails import BadEmail, Email, email_from_members
from common.mail.errors import CannotAccept, NoAnswer, Refused, SendError
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender, window
from common.processes.process import stop_requested
from common.settings import Settings, read_pauses

QUEUE = "emailQueue"
FAILED = f"{QUEUE}.failed"
DELIVERY_LIMIT = 20  # a message that came back so often, because its workers died, is in the failed list
HOLD_SECONDS = 900.0  # an email waits so long for the mail server; RabbitMQ takes it away after 1800
AGAIN_SECONDS = 1.0  # between two attempts to publish a copy
REMEMBERED = 1000  # emails whose acknowledgement may have got lost with a connection

log = logging.getLogger(__name__)
often = OncePerSecond(log)


def retry_queues(settings: Settings) -> list[str]:
    """The name of the queue for each of RETRY_PAUSES_SECONDS."""
    return [f"{QUEUE}.retry.{pause:g}s" for pause in read_pauses(settings.retry_pauses_seconds)]


def open_link(settings: Settings) -> Link:
    async def declare(channel: AbstractChannel) -> None:
        quorum: FieldTable = {"x-queue-type": "quorum"}
        # A message that moves is confirmed by the next queue before it leaves this one: at least once.
        moves = quorum | {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        to_failed = moves | {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": FAILED}
        to_queue = moves | {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": QUEUE}
        await channel.declare_queue(FAILED, durable=True, arguments=quorum)
        await channel.declare_queue(QUEUE, durable=True, arguments=to_failed | {"x-delivery-limit": DELIVERY_LIMIT})
        for name in dict.fromkeys(retry_queues(settings)):
            await channel.declare_queue(name, durable=True, arguments=to_queue)

    return Link(settings.amqp, declare)


async def publish(link: Link, message: Message, queue: str) -> None:
    """The message is in the queue when this returns: RabbitMQ has confirmed it.

    Raises CannotAccept if it is certainly not there, NoAnswer if it may be.
    """
    channel = await link.channel()
    await link.wait_while_blocked()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await channel.default_exchange.publish(message, queue, mandatory=True)
    except DeliveryError as error:  # refused, or there is no such queue
        await link.close()  # the next channel declares it again
        raise CannotAccept(f"RabbitMQ: {describe(error)}") from None
    except TimeoutError:
        await link.drop(channel)
        raise NoAnswer(f"RabbitMQ did not confirm within {ANSWER_SECONDS:g} s: the email may still be sent") from None
    except BROKEN as error:
        raise NoAnswer(f"RabbitMQ: {describe(error)}: the email may still be sent") from None


def make_message(
    body: bytes, email_id: str | None, attempt: int = 1, pause: float | None = None, **why: str | int
) -> Message:
    """`pause`: seconds after which the message expires. `why`: more headers."""
    return Message(
        body,
        message_id=email_id,
        headers={"attempt": attempt, **why},
        expiration=pause,
        content_type="application/json",
        delivery_mode=DeliveryMode.PERSISTENT,
    )


class Jobs:
    """The server's end."""

    def __init__(self, settings: Settings, link: Link) -> None:
        self._link = link
        self._retry_queues = list(dict.fromkeys(retry_queues(settings)))

    async def enqueue(self, email: Email) -> None:
        """The email is in the queue when this returns. Raises CannotAccept if it is not, NoAnswer if it may be.

        It is not published again after a lost confirm: RabbitMQ knows no ids, and would keep both.
        """
        await publish(self._link, make_message(email.to_json(), email.id), QUEUE)

    async def check(self) -> None:
        """Raises CannotAccept when no email could be enqueued now."""
        await self._link.count(QUEUE)
        await self._link.wait_while_blocked()

    async def stats(self) -> dict[str, Any]:
        """What RabbitMQ says of its queues. It keeps no totals, and AMQP does not tell what is in flight: null."""
        waiting, consumers = await self._link.count(QUEUE)
        failed, _ = await self._link.count(FAILED)
        delayed = sum([(await self._link.count(name))[0] for name in self._retry_queues])
        return {"waiting": waiting + delayed, "delayed": delayed, "failed_list": failed, "workers": consumers}


@asynccontextmanager
async def open_jobs(settings: Settings) -> AsyncIterator[Jobs]:
    link = open_link(settings)
    yield Jobs(settings, link)
    await link.close()


@dataclass
class Copy:
    """What takes the place of a message that was not sent. It is published before that one is acknowledged."""

    message: Message
    queue: str
    published: bool = False


class Worker:
    """Takes messages from the queue and sends them, as many at a time as the prefetch allows."""

    def __init__(self, settings: Settings, sender: PatientSender) -> None:
        self._settings = settings
        self._sender = sender
        self._link = open_link(settings)
        self._handling: set[asyncio.Task[None]] = set()
        self._outcomes: OrderedDict[tuple[str | bytes, int], asyncio.Task[Copy | None]] = OrderedDict()

    async def run(self) -> None:
        """Until this process is stopped: then take nothing new, finish within a limit, give back the rest."""
        stop, failures = asyncio.create_task(stop_requested()), 0
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
            await asyncio.wait(self._handling, timeout=self._settings.drain_seconds)
        await end_tasks([*self._handling, *self._outcomes.values()])
        await self._link.close()
        log.info("stopped")

    async def _consume(self, stop: asyncio.Task[str]) -> None:
        """Until the process is stopped, the connection breaks, or RabbitMQ cancels the consumer."""
        channel, cancelled = await self._link.channel(), asyncio.Event()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await channel.set_qos(prefetch_count=window(self._settings.emails_per_second))
                (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
                queue = await channel.declare_queue(QUEUE, passive=True)
                tag = await queue.consume(self._take)
        except BROKEN as error:
            await self._link.close()
            raise CannotAccept(describe(error)) from None
        log.info("ready to send")
        ends = [asyncio.ensure_future(channel.closed()), asyncio.create_task(cancelled.wait())]
        await asyncio.wait([stop, *ends], return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            with suppress(*BROKEN):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await queue.cancel(tag)
        else:
            log.warning("RabbitMQ has cancelled the consumer" if cancelled.is_set() else "the connection is lost")
            await self._link.close()
        for end in ends:
            end.cancel()

    async def _take(self, message: AbstractIncomingMessage) -> None:
        """In a task of our own: aiormq's are cancelled with the channel, in the middle of sending."""
        task = background(self._handle(message), "handling a message")
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        """Send, then acknowledge.

        After a lost connection RabbitMQ delivers again what it saw no acknowledgement of. What this process knows the
        outcome of, or is still sending, is not sent again.
        """
        attempt = message.headers.get("attempt")
        attempt = attempt if isinstance(attempt, int) and attempt > 0 else 1
        key = (message.message_id or message.body, attempt)
        outcome = self._outcomes.get(key) if message.redelivered else None
        if outcome is None:
            outcome = self._outcomes[key] = background(self._send(message, attempt), "sending an email")
            while len(self._outcomes) > REMEMBERED and next(iter(self._outcomes.values())).done():
                self._outcomes.popitem(last=False)
        copy = await asyncio.shield(outcome)
        with suppress(*BROKEN):  # then RabbitMQ delivers the message again
            if copy is None or await self._published(copy, message):
                await message.ack()

    async def _published(self, copy: Copy, message: AbstractIncomingMessage) -> bool:
        """Whether the copy is in its queue. Tries until the connection breaks that the original came on."""
        while not copy.published and not message.channel.is_closed:
            try:
                await publish(self._link, copy.message, copy.queue)
                copy.published = True
            except (CannotAccept, NoAnswer) as error:
                often.warning("%s is not in %s yet: %s", one_line(str(message.message_id)), copy.queue, error)
                await asyncio.sleep(AGAIN_SECONDS)
        return copy.published

    async def _send(self, message: AbstractIncomingMessage, attempt: int) -> Copy | None:
        """None: the mail server has the email."""
        try:
            email = email_from_members(orjson.loads(message.body), self._settings.id_domain)
        except (BadEmail, orjson.JSONDecodeError) as error:
            return self._give_up(message, attempt, error)
        try:
            if not await self._sent_in_time(email):
                return self._put_off(message, attempt, attempt, "the mail server is still unreachable")
        except Refused as error:
            return self._give_up(message, attempt, error)
        except Exception as error:
            if not isinstance(error, SendError):
                log.exception("error while sending %s", email.id)
            if attempt >= self._settings.attempts:
                return self._give_up(message, attempt, error)
            return self._put_off(message, attempt, attempt + 1, f"{type(error).__name__}: {error}")
        return None

    async def _sent_in_time(self, email: Email) -> bool:
        """Whether the email was sent. False after HOLD_SECONDS of an outage, which is no fault of the email."""
        sending = asyncio.create_task(self._sender.send(email))
        try:
            while not (await asyncio.wait([sending], timeout=HOLD_SECONDS))[0]:
                if self._sender.paused:
                    return False
            sending.result()
            return True
        finally:
            await end_tasks([sending])

    def _put_off(self, message: AbstractIncomingMessage, attempt: int, next_attempt: int, why: str) -> Copy:
        queues, pause = retry_queues(self._settings), self._settings.retry_pause(attempt)
        name = one_line(str(message.message_id))
        often.warning("%s again in %.1f s, after attempt %d: %s", name, pause, attempt, one_line(why))
        later = make_message(message.body, message.message_id, next_attempt, pause)
        return Copy(later, queues[min(attempt, len(queues)) - 1])

    def _give_up(self, message: AbstractIncomingMessage, attempt: int, error: Exception) -> Copy:
        why = one_line(f"{type(error).__name__}: {error}")
        log.error("gave up %s after %d attempt(s): %s", one_line(str(message.message_id)), attempt, why)
        record = make_message(message.body, message.message_id, attempt, error=why, failed_at=int(time.time()))
        return Copy(record, FAILED)


async def work(settings: Settings) -> None:
    """Take messages from the queue until this process is stopped."""
    async with Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        try:
            await Worker(settings, sender).run()
        finally:
            await sender.close()


if __name__ == "__main__":
    from .rabbitmq_failed import main

    main(sys.argv[1:])
