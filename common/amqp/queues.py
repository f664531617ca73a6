"""The queues of one kind of work in RabbitMQ.

    NAME            the messages that wait or are in flight
    NAME.retry.5s   one for each pause between two attempts: its messages expire and move to NAME
    NAME.failed     the failed list. RabbitMQ's term is dead-letter queue

All are quorum queues: RabbitMQ confirms a message when it is on disk, in a cluster on most of the nodes. The header
`attempt` counts from 1. Messages in the failed list also have the headers `error` and `failed_at` (unix seconds).
"""

import asyncio
from collections.abc import Sequence

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import DeliveryError
from pamqp.common import FieldTable

from common.amqp.link import ANSWER_SECONDS, BROKEN, Link, describe
from common.mail.errors import CannotAccept, NoAnswer

DELIVERY_LIMIT = 20  # RabbitMQ moves a message to the failed list after this number of redeliveries
# Each `failed list` counts as a delivery. If no limit is set, RabbitMQ 4 deletes a message after 20 deliveries.
NO_LIMIT = 2**31 - 1


class WorkQueue:
    """Methods raise CannotAccept when RabbitMQ cannot be reached or refuses."""

    def __init__(self, url: str, name: str, pauses: Sequence[float]) -> None:
        """`pauses`: the seconds between two attempts."""
        self.name = name
        self.failed = f"{name}.failed"
        self.retries = [f"{name}.retry.{pause:g}s" for pause in pauses]
        self.link = Link(url, self._declare)

    async def _declare(self, channel: AbstractChannel) -> None:
        quorum: FieldTable = {"x-queue-type": "quorum"}
        # A message that moves is confirmed by the next queue before it leaves this one: at least once.
        moves = quorum | {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        to_failed = moves | {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.failed}
        to_queue = moves | {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.name}
        await channel.declare_queue(self.failed, durable=True, arguments=quorum | {"x-delivery-limit": NO_LIMIT})
        await channel.declare_queue(self.name, durable=True, arguments=to_failed | {"x-delivery-limit": DELIVERY_LIMIT})
        for name in dict.fromkeys(self.retries):
            await channel.declare_queue(name, durable=True, arguments=to_queue)

    async def publish(self, message: Message, queue: str | None = None) -> None:
        """When this returns, the message is in the queue (default: NAME): RabbitMQ has confirmed it.

        Raises CannotAccept if it is certainly not in the queue, NoAnswer if it may be.
        """
        channel = await self.link.channel()
        await self.link.wait_while_blocked()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await channel.default_exchange.publish(message, queue or self.name, mandatory=True)
        except DeliveryError as error:  # refused, or there is no such queue
            await self.link.close()  # the next channel declares it again
            raise CannotAccept(f"RabbitMQ: {describe(error)}") from None
        except TimeoutError:
            await self.link.drop(channel)
            late = f"RabbitMQ did not confirm within {ANSWER_SECONDS:g} s: the email may still be sent"
            raise NoAnswer(late) from None
        except BROKEN as error:
            raise NoAnswer(f"RabbitMQ: {describe(error)}: the email may still be sent") from None

    async def check(self) -> None:
        """Raises CannotAccept if no message can be published now."""
        await self.link.count(self.name)
        await self.link.wait_while_blocked()

    async def stats(self) -> dict[str, int]:
        """RabbitMQ's counts. It keeps no totals, and AMQP does not tell how many messages are in flight."""
        waiting, consumers = await self.link.count(self.name)
        failed, _ = await self.link.count(self.failed)
        delayed = sum([(await self.link.count(name))[0] for name in dict.fromkeys(self.retries)])
        return {"waiting": waiting + delayed, "delayed": delayed, "failed_list": failed, "workers": consumers}


def make_message(
    body: bytes, message_id: str | None, attempt: int = 1, pause: float | None = None, **headers: str | int
) -> Message:
    """`pause`: seconds after which the message expires. `headers`: more headers."""
    return Message(
        body,
        message_id=message_id,
        headers={"attempt": attempt, **headers},
        expiration=pause,
        content_type="application/json",
        delivery_mode=DeliveryMode.PERSISTENT,
    )
