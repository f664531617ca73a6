"""QUEUE=rabbitmq: the same strategy on RabbitMQ. The email is a message in a queue until a worker acknowledges it.

The body of a message is the email as JSON, `{"id", "to", "subject", "text"}`. The queues are described in
common/amqp/queues.py, the worker's side is in common/amqp/consumer.py. Compared with the scripts of the engine:
`publish` is enqueue.lua, `consume` with its prefetch is claim.lua, `ack` is acknowledge.lua, `_put_off` is retry.lua,
`_give_up` is give_up.lua. RabbitMQ itself does what reap.lua and promote.lua do: it puts the unacknowledged messages of
a closed connection back into the queue, and moves messages that have expired.

`python -m 5_remote_queue.rabbitmq failed list | requeue | remove`: manage the failed list.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from asynckit.tasks import end_tasks, keep_running
from common.amqp.consumer import Consumer, Handler, PutOff
from common.amqp.failed import main
from common.amqp.limit import SharedLimit
from common.amqp.queues import WorkQueue, make_message
from common.mail.emails import BadEmail, Email, email_from_members
from common.mail.errors import Refused, SendError
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender, window
from common.processes.process import stop_requested
from common.settings import Settings, read_pauses

QUEUE = "emailQueue"
HOLD_SECONDS = 900.0  # how long an email waits for the mail server; after 1800 s RabbitMQ closes the channel


def open_queue(settings: Settings) -> WorkQueue:
    return WorkQueue(settings.amqp, QUEUE, read_pauses(settings.retry_pauses_seconds))


class Jobs:
    """The server's side."""

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self.check = queue.check

    async def enqueue(self, email: Email) -> None:
        """When this returns, the email is in the queue. Raises CannotAccept if it is not, NoAnswer if it may be.

        After a lost confirm the email is not published again: RabbitMQ does not recognise ids, and would keep both.
        """
        await self._queue.publish(make_message(email.to_json(), email.id))

    async def stats(self) -> dict[str, Any]:
        return {**await self._queue.stats()}


@asynccontextmanager
async def open_jobs(settings: Settings) -> AsyncIterator[Jobs]:
    queue = open_queue(settings)
    yield Jobs(queue)
    await queue.link.close()


async def send(sender: PatientSender, domain: str, body: bytes) -> None:
    """Send the email. Raises BadEmail, JSONDecodeError or a SendError, and PutOff after HOLD_SECONDS of an outage."""
    email = email_from_members(orjson.loads(body), domain)
    sending = asyncio.create_task(sender.send(email))
    try:
        while not (await asyncio.wait([sending], timeout=HOLD_SECONDS))[0]:
            if sender.paused:
                raise PutOff("the mail server is still unreachable")
        sending.result()
    finally:
        await end_tasks([sending])


@asynccontextmanager
async def shared_limit(settings: Settings) -> AsyncIterator[SharedLimit | None]:
    """EMAILS_PER_SECOND, for all workers together."""
    if settings.emails_per_second is None:
        yield None
        return
    queue = open_queue(settings)  # with a connection of its own
    limit = SharedLimit(queue, settings.emails_per_second)
    sharing = keep_running(limit.keep_share, "sharing the limit")
    try:
        yield limit
    finally:
        await end_tasks([sharing])
        await queue.link.close()


async def work(settings: Settings) -> None:
    """Take messages from the queue until this process is stopped."""
    async with Mailer(settings, patient=True) as mailer, shared_limit(settings) as limit:
        sender = PatientSender(mailer, None, throttle=limit)
        handler = Handler(
            lambda body: send(sender, settings.id_domain, body),
            final=(BadEmail, orjson.JSONDecodeError, Refused),
            expected=SendError,
            attempts=settings.attempts,
            pause=settings.retry_pause,
        )
        consumer = Consumer(open_queue(settings), handler, window(settings.emails_per_second), settings.drain_seconds)
        try:
            await consumer.run(stop_requested)
        finally:
            await sender.close()


if __name__ == "__main__":
    main(sys.argv[1:], "python -m 5_remote_queue.rabbitmq", open_queue)
